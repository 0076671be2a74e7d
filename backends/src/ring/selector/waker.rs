//! Waking a ring's thread from another one, and the descriptor that tells another
//! loop of the ring.

use crate::sys::event_fd::EventFd;
use lastbyte::Wake;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

/// An event file that the ring polls, and the one that the ring sets.
#[derive(Debug)]
pub(super) struct EventWaker {
    polled: EventFd,
    /// Once somebody polls it. A ring does not set it for a wake-up, but for the first:
    /// event files do not wake each other (`io_uring/eventfd.c`, `io_eventfd_do_signal`,
    /// Linux 6.12 and 6.18).
    announced: OnceLock<EventFd>,
}

impl EventWaker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { polled: EventFd::new()?, announced: OnceLock::new() })
    }

    /// Forgets the wake-ups so far.
    pub(super) fn clear(&self) {
        self.polled.clear();
    }

    pub(super) fn announced(&self) -> Option<&EventFd> {
        self.announced.get()
    }

    pub(super) fn announce(&self, event: EventFd) {
        drop(self.announced.set(event));
    }
}

impl Wake for EventWaker {
    fn wake(&self) {
        self.polled.set();
        if let Some(announced) = self.announced() {
            announced.set();
        }
    }
}

impl AsRawFd for EventWaker {
    fn as_raw_fd(&self) -> RawFd {
        self.polled.as_raw_fd()
    }
}
