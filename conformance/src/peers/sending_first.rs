//! A peer that reads nothing before it has sent everything.

use super::Peer;
use crate::far_end::FarEnd;
use std::io::{self, Write};

/// Sends `bytes` bytes and its end, then reads to the end.
pub(crate) fn sending_first(far: impl Into<FarEnd>, bytes: usize) -> io::Result<Peer> {
    Peer::spawn(far.into(), move |far, seen| {
        let mut buffer = vec![b'?'; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(buffer.len());
            far.write_all(&buffer[..piece])?;
            left -= piece;
        }
        far.end()?;
        while seen.read(far, &mut buffer)? {}
        Ok(())
    })
}
