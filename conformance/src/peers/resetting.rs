//! A peer that resets the connection while data is under way.

use super::{Peer, Seen};
use socket2::SockRef;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// Reads `bytes`, and resets.
pub(crate) fn resetting(mut socket: TcpStream, bytes: u64) -> io::Result<Peer> {
    Peer::spawn(move || {
        let mut seen = Seen::new();
        let mut buffer = vec![0; 4096];
        while seen.stream.received() < bytes && seen.read(&mut socket, &mut buffer)? {}
        reset(socket)?;
        Ok(seen)
    })
}

/// Resets the connection: no FIN, and whatever is under way is lost.
pub(crate) fn reset(socket: TcpStream) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}
