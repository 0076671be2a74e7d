//! A peer that reads to the end and compares.

use super::{Peer, Seen};
use std::io;
use std::net::TcpStream;

/// Reads all, as fast as it can.
pub(crate) fn reader(socket: TcpStream) -> io::Result<Peer> {
    reading(socket, 64 << 10, u64::MAX)
}

/// Reads `len` bytes and closes the connection, unread input or not.
pub(crate) fn reader_of(socket: TcpStream, len: u64) -> io::Result<Peer> {
    reading(socket, 64 << 10, len)
}

/// Reads all, one byte a call.
pub(crate) fn byte_at_a_time(socket: TcpStream) -> io::Result<Peer> {
    reading(socket, 1, u64::MAX)
}

fn reading(mut socket: TcpStream, step: usize, len: u64) -> io::Result<Peer> {
    Peer::spawn(move || {
        let mut seen = Seen::new();
        let mut buffer = vec![0; step];
        while seen.stream.received() < len && seen.read(&mut socket, &mut buffer)? {}
        Ok(seen)
    })
}
