//! `sendfile(2)` to a TCP socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Longest count that is asked for at once: the kernel cuts at this anyway
/// (`fs/read_write.c`, `MAX_RW_COUNT`, less a page).
const LONGEST: u64 = 0x7fff_f000;

/// How long the file is now.
pub(crate) fn file_len(file: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: all-zero bytes are a valid `stat64`: it is integers only.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes of a `stat64`.
    super::check(unsafe { libc::fstat64(file.as_raw_fd(), &raw mut stat) })?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Moves up to `len` bytes of `file` from `offset` into `socket`. 0 means that
/// the file has none there.
pub(crate) fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    len: u64,
) -> io::Result<u64> {
    let mut offset = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
    let count = usize::try_from(len.min(LONGEST)).map_err(io::Error::other)?;
    // SAFETY: `offset` is valid for reads and writes.
    let sent = super::check_len(unsafe {
        libc::sendfile64(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, count)
    })?;
    Ok(sent as u64)
}
