//! `pread(2)` on a borrowed descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads up to `buffer.len()` bytes of `file` from `offset` on. 0 means that the
/// file has none there.
pub(crate) fn pread(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `buffer` is valid for writes of its length.
    super::check_len(unsafe {
        libc::pread(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset)
    })
}
