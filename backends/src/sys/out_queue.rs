//! `SIOCOUTQ`: bytes written but not acknowledged, tcp(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes not yet acknowledged; an unacknowledged FIN counts as one
/// (`net/ipv4/tcp.c`, `tcp_ioctl`).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one `int`, and `bytes` is valid for that.
    // `SIOCOUTQ` has the number of `TIOCOUTQ` (`include/uapi/linux/sockios.h`).
    super::check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
