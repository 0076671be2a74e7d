//! Descriptors that another event loop watches.

use mio::Poll;
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(feature = "tokio")]
use {
    std::{io, os::fd::OwnedFd},
    tokio::io::{Interest, unix::AsyncFd},
};

/// The descriptor behind an mio selector.
pub(crate) fn borrow(poll: &Poll) -> BorrowedFd<'_> {
    // SAFETY: `poll` owns the descriptor and keeps it open for as long as it is
    // borrowed here.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}

/// Has the current tokio runtime watch `fd` for becoming readable.
#[cfg(feature = "tokio")]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and always names the same descriptor; the
    // caller gets it back only behind `AsyncFd`, which owns it from now on.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
