//! The descriptor behind an mio selector, for use in another event loop.

use mio::Poll;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(crate) fn borrow(poll: &Poll) -> BorrowedFd<'_> {
    // SAFETY: `poll` owns the descriptor and keeps it open for as long as it is
    // borrowed here.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}
