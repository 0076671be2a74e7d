//! Bytes that say where in the stream they belong, so that a peer notices one
//! that is lost, doubled, moved or overwritten.

/// The byte at `offset` of every test stream.
pub(crate) fn byte(offset: u64) -> u8 {
    // The top byte of a Fibonacci hash: no short period, no run of equals.
    offset.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]
}

/// The bytes from `offset` on.
pub(crate) fn bytes(offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(byte).collect()
}

/// Compares a received stream with the pattern.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    received: u64,
    wrong_at: Option<u64>,
}

impl Checker {
    /// Takes what came next.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.wrong_at.is_none() {
            let wrong = (self.received..).zip(bytes).find(|(offset, got)| byte(*offset) != **got);
            self.wrong_at = wrong.map(|(offset, _)| offset);
        }
        self.received += bytes.len() as u64;
    }

    /// Bytes taken so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Offset of the first byte that was not the pattern's.
    pub(crate) fn wrong_at(&self) -> Option<u64> {
        self.wrong_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overwritten_byte_is_found() {
        let mut stream = bytes(0, 10_000);
        stream[7000] ^= 1;
        let mut checker = Checker::default();
        stream.chunks(999).for_each(|chunk| checker.take(chunk));
        assert_eq!((checker.received(), checker.wrong_at()), (10_000, Some(7000)));
    }

    #[test]
    fn a_lost_byte_is_found() {
        let mut checker = Checker::default();
        checker.take(&bytes(0, 100));
        checker.take(&bytes(101, 100));
        assert!(checker.wrong_at().is_some());
    }
}
