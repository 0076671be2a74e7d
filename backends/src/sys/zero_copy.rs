//! `SO_ZEROCOPY` (`Documentation/networking/msg_zerocopy.rst`).

use super::option;
use std::io;
use std::os::fd::BorrowedFd;

/// Lets sends on this socket ask for `MSG_ZEROCOPY`. Without it the flag is
/// silently ignored, and no notification comes.
pub(crate) fn enable(fd: BorrowedFd<'_>) -> io::Result<()> {
    option::set(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)
}

/// Whether somebody has enabled it before. That it is off does not say that it was
/// never used: `sk_zckey` goes on from where it was (`net/core/sock.c`).
pub(crate) fn is_enabled(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut on: libc::c_int = 0;
    option::get(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &mut on)?;
    Ok(on != 0)
}
