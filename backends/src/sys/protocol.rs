//! `SO_PROTOCOL`, socket(7).

use super::option;
use std::io;
use std::os::fd::BorrowedFd;

/// Whether it is TCP's own socket. One of multipath TCP passes for one, but shows the
/// account of its first path only (`net/mptcp/sockopt.c`, `mptcp_getsockopt_first_sf_only`)
/// and stamps nothing that is sent. A socket that cannot be asked is taken for TCP's.
///
/// # Errors
/// `EPROTONOSUPPORT` if it is not.
pub(crate) fn expect_tcp(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut protocol: libc::c_int = 0;
    match option::get(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, &mut protocol) {
        Ok(_) if protocol != libc::IPPROTO_TCP => {
            Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT))
        }
        _ => Ok(()),
    }
}
