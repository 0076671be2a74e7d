//! Resetting a connection without closing its descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends a reset and empties the send queue, as `connect(2)` to `AF_UNSPEC`
/// does (`net/ipv4/tcp.c`, `tcp_disconnect`). The error queue stays readable, so
/// the kernel can say that it has let go of zero-copied memory; after `close(2)`
/// it could not. Not for kernel TLS, which answers `EOPNOTSUPP`.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let unspecified = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).map_err(io::Error::other)?,
        sa_data: [0; 14],
    };
    let len = libc::socklen_t::try_from(size_of_val(&unspecified)).map_err(io::Error::other)?;
    // SAFETY: `unspecified` is valid for reads of `len` bytes, which is its size.
    super::check(unsafe { libc::connect(fd.as_raw_fd(), &raw const unspecified, len) }).map(drop)
}
