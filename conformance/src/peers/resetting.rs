//! A peer that resets the connection while data is under way.

use super::Peer;
use crate::far_end::FarEnd;
use socket2::SockRef;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// Reads `bytes`, and resets.
pub(crate) fn resetting(far: impl Into<FarEnd>, bytes: u64) -> io::Result<Peer> {
    Peer::spawn(far.into(), move |far, seen| {
        let mut buffer = vec![0; 4096];
        while seen.stream.received() < bytes && seen.read(far, &mut buffer)? {}
        set_to_reset(far.socket())
    })
}

/// Resets the connection: no FIN, and whatever is under way is lost.
pub(crate) fn reset(far: impl Into<FarEnd>) -> io::Result<()> {
    set_to_reset(far.into().socket())
}

/// The socket's end is a reset.
fn set_to_reset(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}
