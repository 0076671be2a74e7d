//! Waking a ring's thread from another one.

use crate::sys::event_fd::EventFd;
use lastbyte::Wake;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// An event file that the ring polls.
#[derive(Debug)]
pub(super) struct EventWaker(EventFd);

impl EventWaker {
    pub(super) fn new() -> io::Result<Self> {
        EventFd::new().map(Self)
    }

    /// Forgets the wake-ups so far.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

impl Wake for EventWaker {
    fn wake(&self) {
        self.0.set();
    }
}

impl AsRawFd for EventWaker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
