//! A peer that answers when it has heard everything.

use super::Peer;
use crate::far_end::FarEnd;
use std::io::{self, Write};

/// Reads to the end, under TLS and of TCP, then sends `answer` and its own end.
pub(crate) fn answering(far: impl Into<FarEnd>, answer: Vec<u8>) -> io::Result<Peer> {
    Peer::spawn(far.into(), move |far, seen| {
        let mut buffer = vec![0; 64 << 10];
        while seen.read(far, &mut buffer)? {}
        let unread = far.socket().peek(&mut [0])?;
        if unread > 0 {
            return Err(io::Error::other("something comes behind the end"));
        }
        far.write_all(&answer)?;
        far.end()
    })
}
