//! `sendfile(2)` to a TCP socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn too_far() -> io::Error {
    io::Error::from_raw_os_error(libc::EOVERFLOW)
}

/// Longest count that is asked for at once: the kernel cuts at this anyway
/// (`fs/read_write.c`, `MAX_RW_COUNT`, less a page).
const LONGEST: u64 = 0x7fff_f000;

/// Moves up to `len` bytes of `file` from `offset` into `socket`. 0 means that
/// the file has none there.
pub(crate) fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    len: u64,
) -> io::Result<u64> {
    let mut offset = libc::off64_t::try_from(offset).map_err(|_| too_far())?;
    let count = usize::try_from(len.min(LONGEST)).map_err(io::Error::other)?;
    // SAFETY: `offset` is valid for reads and writes.
    let sent = super::check_len(unsafe {
        libc::sendfile64(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, count)
    })?;
    Ok(sent as u64)
}
