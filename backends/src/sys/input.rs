//! `recv(2)`.

use std::io;
use std::os::fd::AsFd;

/// Takes input of a non-blocking socket; 0 is the end of the stream.
pub(crate) fn recv(socket: &std::net::TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    super::check_len(super::uncancelled::recv(socket.as_fd(), buffer, libc::MSG_DONTWAIT))
}
