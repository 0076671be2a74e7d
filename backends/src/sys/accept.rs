//! `accept4(2)`: a non-blocking socket in one call.

use std::io;
use std::net::{
    Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
};
use std::os::fd::{AsRawFd, FromRawFd};

pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`: it is integers only.
    let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&peer)).map_err(io::Error::other)?;
    // SAFETY: `peer` is valid for writes of `len` bytes.
    let fd = super::check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            (&raw mut peer).cast(),
            &raw mut len,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just made `fd`, nobody else knows it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let peer = match libc::c_int::from(peer.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what the kernel wrote, and
            // `sockaddr_storage` is as large and as aligned as any address.
            let v4 = unsafe { *(&raw const peer).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { *(&raw const peer).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id))
        }
        _ => stream.peer_addr()?,
    };
    Ok((stream, peer))
}
