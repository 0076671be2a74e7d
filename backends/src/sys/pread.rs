//! `pread(2)` on a borrowed descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// On 32-bit Linux the plain call has 32-bit offsets.
#[cfg(not(target_os = "linux"))]
use libc::pread as call;
#[cfg(target_os = "linux")]
use libc::pread64 as call;

/// Reads up to `buffer.len()` bytes of `file` from `offset` on. 0 means that the
/// file has none there.
pub(crate) fn pread(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = offset.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `buffer` is valid for writes of its length.
    super::check_len(unsafe {
        call(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset)
    })
}
