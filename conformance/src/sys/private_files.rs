//! A descriptor table of a thread's own, which can be exhausted without
//! disturbing the rest of the process.

use std::io;

/// Gives this thread a table that holds the standard streams only. Threads it
/// starts from now on share it. Whatever was open stays open elsewhere, and is
/// out of reach here.
#[cfg(target_os = "linux")]
pub(crate) fn start_over() -> io::Result<()> {
    // SAFETY: with this flag only the caller's copy of the table is changed, and
    // the caller promises to use nothing that was opened before.
    let failed =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn start_over() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
