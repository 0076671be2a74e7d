//! `io_uring_setup(2)`: so far only whether the kernel lets this process.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// `struct io_uring_params`, `include/uapi/linux/io_uring.h`: 120 bytes of
/// integers, all zero for a ring with default settings.
const PARAMS: usize = 120 / 8;

/// Makes a ring of one entry and closes it again.
pub(crate) fn probe() -> io::Result<()> {
    let mut params = [0_u64; PARAMS];
    // SAFETY: the kernel reads and writes one `io_uring_params`, and `params` is
    // valid for that.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let fd = RawFd::try_from(super::check_len(fd as isize)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made `fd`, nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
