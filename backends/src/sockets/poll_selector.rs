//! Readiness by `poll(2)`: level-triggered, on every Unix.

use super::selector::{Happening, Ready, Selector};
use crate::sys::poll::{self, Polled};
use lastbyte::Wake;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Where a token that is not in the set has its place.
const NOWHERE: usize = usize::MAX;

#[derive(Debug)]
pub(crate) struct PollSelector {
    /// The wake-up pipe, then one entry a descriptor.
    set: Vec<Polled>,
    /// The token of each entry.
    tokens: Vec<usize>,
    /// The entry of each token.
    places: Vec<usize>,
    /// Events that one wait yields at the most, and the entry to start with.
    limit: usize,
    next: usize,
    woken: UnixStream,
    waker: Arc<PipeWaker>,
}

impl std::fmt::Debug for Polled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Polled").finish_non_exhaustive()
    }
}

impl PollSelector {
    pub(crate) fn new(limit: usize) -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let mut wake_up = Polled::new(woken.as_raw_fd());
        wake_up.want(true, false);
        Ok(Self {
            set: vec![wake_up],
            tokens: vec![NOWHERE],
            places: Vec::new(),
            limit,
            next: 0,
            woken,
            waker: Arc::new(PipeWaker(waker)),
        })
    }

    fn clear_wake_up(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(n) if n > 0) {}
    }
}

impl Selector for PollSelector {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        if self.places.len() <= token {
            self.places.resize(token + 1, NOWHERE);
        }
        self.places[token] = self.set.len();
        self.set.push(Polled::new(fd.as_raw_fd()));
        self.tokens.push(token);
        Ok(())
    }

    fn remove(&mut self, _: BorrowedFd<'_>, token: usize) {
        let place = std::mem::replace(&mut self.places[token], NOWHERE);
        self.set.swap_remove(place);
        self.tokens.swap_remove(place);
        if let Some(&moved) = self.tokens.get(place) {
            self.places[moved] = place;
        }
    }

    fn want(&mut self, token: usize, input: bool, output: bool) {
        if let Some(polled) = self.places.get(token).and_then(|&at| self.set.get_mut(at)) {
            polled.want(input, output);
        }
    }

    fn wait(&mut self, wait: Option<Duration>, happened: &mut Vec<Happening>) -> io::Result<()> {
        let mut left = poll::wait(&mut self.set, wait)?;
        if left > 0 && self.set[0].is_ready() {
            self.clear_wake_up();
            left -= 1;
        }
        // What is left out now is still ready next time, and then comes first.
        let (count, first) = (self.set.len(), self.next);
        for place in (0..count).map(|n| (first + n) % count).filter(|&place| place > 0) {
            if left == 0 || happened.len() == self.limit {
                self.next = place;
                break;
            }
            let polled = &mut self.set[place];
            if !polled.is_ready() {
                continue;
            }
            left -= 1;
            happened.push(Happening::Ready(Ready {
                token: self.tokens[place],
                readable: polled.input(),
                writable: polled.output(),
                error: polled.error(),
                read_closed: polled.hangup(),
                // It asks anew each time.
                urgent: false,
            }));
            // A hang-up lasts, cannot be masked, and is told once.
            if polled.hangup() {
                polled.mute();
            }
        }
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }
}

#[derive(Debug)]
struct PipeWaker(UnixStream);

impl Wake for PipeWaker {
    fn wake(&self) {
        // A full pipe has not been read: it wakes anyway.
        drop((&self.0).write(&[1]));
    }
}
