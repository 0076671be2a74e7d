//! The kernel's own account of a TCP socket.

use std::io;
use std::mem::size_of;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Bytes that were received and not read: what the kernel has acknowledged
/// beyond what the application took.
pub(crate) fn unread(socket: &TcpStream) -> io::Result<u64> {
    query(socket, libc::FIONREAD)
}

/// Bytes that were written and not acknowledged (`SIOCOUTQ`).
#[cfg(target_os = "linux")]
pub(crate) fn unacknowledged(socket: &TcpStream) -> io::Result<u64> {
    query(socket, libc::TIOCOUTQ)
}

/// Bytes that were written and not even sent (`SIOCOUTQNSD`).
#[cfg(target_os = "linux")]
pub(crate) fn unsent(socket: &TcpStream) -> io::Result<u64> {
    /// `include/uapi/linux/sockios.h`.
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    query(socket, SIOCOUTQNSD)
}

/// `tcpi_bytes_acked` of `TCP_INFO`.
#[cfg(target_os = "linux")]
pub(crate) fn bytes_acked(socket: &TcpStream) -> io::Result<u64> {
    /// Offset in `struct tcp_info` of `include/uapi/linux/tcp.h`, whose older
    /// fields never move.
    const BYTES_ACKED: usize = 120;
    let mut info = [0_u8; 256];
    let mut len = libc::socklen_t::try_from(size_of::<[u8; 256]>()).map_err(io::Error::other)?;
    // SAFETY: `info` is writable for `len` bytes, and `len` is a valid socklen_t.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < BYTES_ACKED + 8 {
        return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
    }
    let mut field = [0; 8];
    field.copy_from_slice(&info[BYTES_ACKED..BYTES_ACKED + 8]);
    Ok(u64::from_ne_bytes(field))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn unacknowledged(_: &TcpStream) -> io::Result<u64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn unsent(_: &TcpStream) -> io::Result<u64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn bytes_acked(_: &TcpStream) -> io::Result<u64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

fn query(socket: &TcpStream, request: libc::c_ulong) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one `int`, which `bytes` is.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut bytes) };
    match failed {
        0 => Ok(u64::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}
