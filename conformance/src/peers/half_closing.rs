//! A peer that ends its own stream first and still reads.

use super::{Peer, Seen};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};

/// Sends `request`, then FIN, then reads to the end.
pub(crate) fn half_closing(mut socket: TcpStream, request: &[u8]) -> io::Result<Peer> {
    socket.write_all(request)?;
    socket.shutdown(Shutdown::Write)?;
    Peer::spawn(move || {
        let mut seen = Seen::new();
        let mut buffer = vec![0; 64 << 10];
        while seen.read(&mut socket, &mut buffer)? {}
        Ok(seen)
    })
}
