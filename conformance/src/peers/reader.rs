//! A peer that reads to the end and compares.

use super::Peer;
use crate::far_end::FarEnd;
use std::io;

/// Reads all, as fast as it can.
pub(crate) fn reader(far: impl Into<FarEnd>) -> io::Result<Peer> {
    reading(far.into(), 64 << 10, u64::MAX)
}

/// Reads `len` bytes and closes the connection, unread input or not.
pub(crate) fn reader_of(far: impl Into<FarEnd>, len: u64) -> io::Result<Peer> {
    reading(far.into(), 64 << 10, len)
}

/// Reads all, one byte a call.
pub(crate) fn byte_at_a_time(far: impl Into<FarEnd>) -> io::Result<Peer> {
    reading(far.into(), 1, u64::MAX)
}

fn reading(far: FarEnd, step: usize, len: u64) -> io::Result<Peer> {
    Peer::spawn(far, move |far, seen| {
        let mut buffer = vec![0; step];
        while seen.stream.received() < len && seen.read(far, &mut buffer)? {}
        Ok(())
    })
}
