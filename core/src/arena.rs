//! Memory that many buffers are cut from.

use bytes::BytesMut;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Where an arena starts: pages of this size, or of multiples of it, are what
/// every kernel can pin.
const PAGE: usize = 4096;

/// One contiguous piece of memory, page-aligned, which stays where it is for as
/// long as anybody holds its `Arena` or a buffer that was cut from it.
///
/// A driver that has the kernel pin it holds a clone
/// ([`Driver::register`](crate::Driver::register)), so no later allocation can
/// take its place: what lies within [`Self::addresses`] is a part of it.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Range<usize>,
    /// What was left over keeps all of the allocation alive.
    _rest: BytesMut,
}

impl Arena {
    /// Zeroed memory of `count` blocks of `size` bytes, and the blocks.
    pub(crate) fn of_blocks(size: usize, count: usize) -> (Self, Vec<BytesMut>) {
        let len = size.saturating_mul(count);
        let mut rest = BytesMut::zeroed(len.saturating_add(PAGE));
        drop(rest.split_to(rest.as_ptr().align_offset(PAGE).min(PAGE - 1)));
        let start = rest.as_ptr().addr();
        let blocks = (0..count).map(|_| rest.split_to(size)).collect();
        // At least a byte is left, for less than a page went before.
        let shared = Shared { addresses: start..start + len, _rest: rest };
        (Self { shared: Arc::new(shared) }, blocks)
    }

    /// Where it lies in this process's memory.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        self.shared.addresses.clone()
    }

    /// Whether `bytes` lie within it.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr().addr();
        self.shared.addresses.start <= start && start + bytes.len() <= self.shared.addresses.end
    }

    /// How long it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.addresses.len()
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.addresses.is_empty()
    }
}

impl PartialEq for Arena {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Arena {}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_side_by_side_from_a_page_on() {
        let (arena, blocks) = Arena::of_blocks(5000, 3);
        let start = arena.addresses().start;
        assert_eq!((arena.len(), start % PAGE), (15_000, 0));
        for (n, block) in blocks.iter().enumerate() {
            assert_eq!((block.as_ptr().addr(), block.len()), (start + n * 5000, 5000));
            assert!(arena.contains(block));
        }
        let (other, _) = Arena::of_blocks(1, 1);
        assert!(!other.contains(&blocks[0]) && other != arena && arena == arena.clone());
    }

    #[test]
    fn blocks_outlive_their_arena() {
        let (arena, mut blocks) = Arena::of_blocks(4096, 2);
        drop(arena);
        blocks[1].fill(7);
        drop(blocks.remove(0));
        assert!(blocks[0].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn an_arena_of_nothing_is_empty() {
        for (size, count) in [(0, 4), (4, 0)] {
            let (arena, blocks) = Arena::of_blocks(size, count);
            assert_eq!((arena.is_empty(), blocks.len()), (true, count));
        }
    }
}
