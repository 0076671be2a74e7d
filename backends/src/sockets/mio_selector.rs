//! Readiness by `epoll(7)`, through mio: edge-triggered.

use super::selector::{Happening, Ready, Selector};
use crate::sys::pollable;
use lastbyte::Wake;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = READ_OR_WRITE.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = READ_OR_WRITE;
const READ_OR_WRITE: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// There is room for no more events than these, and what is left out comes next time:
/// with more at a time nothing is faster, and room for any number there is not.
const MOST_EVENTS: usize = 4096;

const WAKER: Token = Token(usize::MAX);

#[derive(Debug)]
pub(crate) struct MioSelector {
    poll: Poll,
    events: Events,
    waker: Arc<MioWaker>,
}

impl MioSelector {
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(MioWaker(Waker::new(poll.registry(), WAKER)?));
        Ok(Self { poll, events: Events::with_capacity(events.min(MOST_EVENTS)), waker })
    }
}

impl Selector for MioSelector {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(token), INTEREST)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>, _: usize) {
        // Fails only if the descriptor is not registered, which is the aim.
        drop(self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd())));
    }

    fn want(&mut self, _: usize, _: bool, _: bool) {}

    fn wait(&mut self, wait: Option<Duration>, happened: &mut Vec<Happening>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let events = self.events.iter().filter(|event| event.token() != WAKER);
        happened.extend(events.map(|event| {
            Happening::Ready(Ready {
                token: event.token().0,
                readable: event.is_readable(),
                writable: event.is_writable(),
                error: event.is_error(),
                read_closed: event.is_read_closed(),
                urgent: event.is_priority(),
            })
        }));
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(pollable::borrow(&self.poll))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }
}

#[derive(Debug)]
struct MioWaker(Waker);

impl Wake for MioWaker {
    fn wake(&self) {
        // An eventfd whose counter is full has not been read: it wakes anyway.
        drop(self.0.wake());
    }
}
