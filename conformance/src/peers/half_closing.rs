//! A peer that ends its own stream first and still reads.

use super::Peer;
use crate::far_end::FarEnd;
use std::io::{self, Write};

/// Sends `request`, then its end, then reads to the end.
pub(crate) fn half_closing(far: impl Into<FarEnd>, request: &[u8]) -> io::Result<Peer> {
    let mut far = far.into();
    far.write_all(request)?;
    far.end()?;
    Peer::spawn(far, move |far, seen| {
        let mut buffer = vec![0; 64 << 10];
        while seen.read(far, &mut buffer)? {}
        Ok(())
    })
}
