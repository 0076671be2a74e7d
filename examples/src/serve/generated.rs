//! Bodies made up on demand: `/<n>`, `/<n>kb` and `/<n>mb`, all of them
//! stretches of one block of memory.

use bytes::Bytes;
use lastbyte::{FileRange, FileSource, Payload};
use std::sync::Arc;

/// Longest generated body.
pub const MAX_LEN: u64 = 1 << 30;
/// Length of the block, which is that of a huge page; longer bodies repeat it.
pub const BLOCK_LEN: u64 = 2 << 20;
/// The longest where the block is in ordinary memory, of which each response counts all
/// that it refers to, as often as it does: a few must not take what a thread may have
/// for all.
pub const MAX_LEN_IN_MEMORY: u64 = BLOCK_LEN;

/// The block, shared by all threads.
#[derive(Clone, Debug)]
pub enum Block {
    /// In a memory file that the kernel sends from without copying.
    File(Arc<dyn FileSource>),
    /// In ordinary memory.
    Memory(Bytes),
}

impl Block {
    /// Longest body that is made of it.
    #[must_use]
    pub fn max_len(&self) -> u64 {
        match self {
            Self::File(_) => MAX_LEN,
            Self::Memory(_) => MAX_LEN_IN_MEMORY,
        }
    }

    /// Adds `len` bytes of a generated body from `offset` on.
    pub fn append(&self, payload: &mut Payload, mut offset: u64, mut len: u64) {
        while len > 0 {
            let start = offset % BLOCK_LEN;
            let step = len.min(BLOCK_LEN - start);
            match self {
                Self::File(file) => {
                    payload.push(FileRange::new(Arc::clone(file), start, step));
                }
                Self::Memory(bytes) => payload.push(bytes.slice(index(start)..index(start + step))),
            }
            offset += step;
            len -= step;
        }
    }
}

/// The content of the block: lines of 16 bytes that say their own offset, so
/// that a byte in the wrong place shows.
#[must_use]
pub fn content() -> Vec<u8> {
    let mut content = Vec::with_capacity(index(BLOCK_LEN));
    for offset in (0..BLOCK_LEN).step_by(16) {
        content.extend_from_slice(format!("{offset:015x}\n").as_bytes());
    }
    content
}

/// The length that a file name asks for.
#[must_use]
pub fn len_of(name: &str) -> Option<u64> {
    let (digits, unit) = match name.len().checked_sub(2).map(|end| name.split_at_checked(end)) {
        Some(Some((digits, "kb"))) => (digits, 1 << 10),
        Some(Some((digits, "mb"))) => (digits, 1 << 20),
        _ => (name, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|&len| len <= MAX_LEN)
}

/// An offset into the block, which is far smaller than the address space.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::Part;

    #[test]
    fn names_are_sizes() {
        for (name, len) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("128kb", Some(128 << 10)),
            ("16mb", Some(16 << 20)),
            ("1024mb", Some(1 << 30)),
            ("1025mb", None),
            ("99999999999999999999", None),
            ("99999999999999999mb", None),
            ("kb", None),
            ("-1", None),
            ("1gb", None),
            ("1KB", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(len_of(name), len, "{name}");
        }
    }

    #[test]
    fn any_stretch_is_the_right_one() {
        let block = Block::Memory(content().into());
        assert_eq!(content().len() as u64, BLOCK_LEN);
        for (offset, len) in [(0, 0), (5, 20), (BLOCK_LEN - 3, 6), (7, 3 * BLOCK_LEN)] {
            let mut payload = Payload::new();
            block.append(&mut payload, offset, len);
            assert_eq!(payload.len(), len);
            let mut at = offset;
            for part in payload.remaining(0) {
                let Part::Memory(bytes) = part else { panic!("no file in here") };
                assert_eq!(bytes[0], content()[index(at % BLOCK_LEN)]);
                at += bytes.len() as u64;
            }
        }
    }
}
