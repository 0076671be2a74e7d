//! `eventfd(2)`: a wake-up that any thread can send.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};

/// A counter that is readable when it is not 0.
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = super::check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: the kernel has just made `fd`, nobody else knows it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// Makes it readable. One that is full is readable already.
    pub(crate) fn set(&self) {
        drop((&self.0).write(&1_u64.to_ne_bytes()));
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        drop((&self.0).read(&mut [0; 8]));
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
