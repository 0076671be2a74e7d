//! `TCP_FASTOPEN_CONNECT`, tcp(7), Linux 4.11.

use super::option;
use std::os::fd::BorrowedFd;

/// Whether `connect(2)` may have put the connection off to the first write: such a
/// socket is writable, and not connected, for as long as nothing is written.
pub(crate) fn is_put_off(fd: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    // A kernel without the option puts nothing off.
    option::get(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &mut value).is_ok() && value != 0
}
