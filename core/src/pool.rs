//! Buffers that go back to where they came from.

use crate::Arena;
use bytes::BytesMut;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A source of equally sized buffers, shared by clones.
///
/// A buffer returns when it is dropped, which is when the last holder of a
/// payload lets go of it; never when a write is merely done.
///
/// ```
/// use lastbyte::Pool;
/// let pool = Pool::new(4096, 8);
/// let mut buffer = pool.take();
/// buffer.fill_from(b"HTTP/1.1 200 OK\r\n");
/// assert_eq!(&buffer[..4], b"HTTP");
/// drop(buffer);
/// assert_eq!(pool.idle(), 1);
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    /// How many buffers of their own allocation are held while unused.
    keep: usize,
    arena: Option<Arena>,
    idle: Mutex<Vec<Memory>>,
}

/// What a buffer consists of.
enum Memory {
    Own(Box<[u8]>),
    /// A block of the pool's arena. Boxed once and for all, so that buffers
    /// are small.
    Cut(Box<BytesMut>),
}

impl Pool {
    /// Buffers of `size` bytes, of which at most `keep` are held while unused.
    #[must_use]
    pub fn new(size: usize, keep: usize) -> Self {
        let idle = Mutex::new(Vec::new());
        Self { shared: Arc::new(Shared { size, keep, arena: None, idle }) }
    }

    /// `count` buffers of `size` bytes, side by side in one piece of memory,
    /// which a driver can have the kernel pin once for all of them
    /// ([`Driver::register`](crate::Driver::register)). Where more are taken at
    /// a time, the others are ordinary ones.
    ///
    /// ```
    /// use lastbyte::Pool;
    /// let pool = Pool::contiguous(64 << 10, 16);
    /// let arena = pool.arena().unwrap();
    /// assert_eq!(arena.len(), 1 << 20);
    /// let mut buffer = pool.take();
    /// buffer.fill_from(b"HTTP/1.1 200 OK\r\n");
    /// assert!(arena.contains(&buffer));
    /// ```
    #[must_use]
    pub fn contiguous(size: usize, count: usize) -> Self {
        let (arena, blocks) = Arena::of_blocks(size, count);
        let idle = blocks.into_iter().rev().map(|block| Memory::Cut(Box::new(block))).collect();
        let (keep, arena, idle) = (0, Some(arena), Mutex::new(idle));
        Self { shared: Arc::new(Shared { size, keep, arena, idle }) }
    }

    /// The memory that the buffers of a [contiguous](Self::contiguous) pool are
    /// parts of.
    #[must_use]
    pub fn arena(&self) -> Option<&Arena> {
        self.shared.arena.as_ref()
    }

    /// An empty buffer: an idle one, or a new one.
    #[must_use]
    pub fn take(&self) -> PooledBuf {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let new = || Memory::Own(vec![0; self.shared.size].into_boxed_slice());
        let memory = idle.unwrap_or_else(new);
        PooledBuf { memory, filled: 0, home: Arc::clone(&self.shared) }
    }

    /// Buffers held for reuse.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Size of each buffer in bytes.
    #[must_use]
    pub fn buffer_size(&self) -> usize {
        self.shared.size
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.shared.size).field("idle", &self.idle()).finish()
    }
}

/// A buffer of a [`Pool`]: a filled part, which it dereferences to, and spare
/// room behind it. Dropping it returns the memory to the pool.
pub struct PooledBuf {
    memory: Memory,
    filled: usize,
    home: Arc<Shared>,
}

impl PooledBuf {
    /// Replaces the content by as much of `bytes` as fits; says how much.
    pub fn fill_from(&mut self, bytes: &[u8]) -> usize {
        self.filled = 0;
        self.append(bytes)
    }

    /// Adds as much of `bytes` as fits; says how much.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = bytes.len().min(spare.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        self.filled += n;
        n
    }

    /// The room behind the filled part, to be written to.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// Says that `n` bytes of the spare room have been written.
    ///
    /// # Panics
    /// If there was not that much room.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.memory.len() - self.filled, "filled more than the buffer holds");
        self.filled += n;
    }

    /// Empties the buffer; its memory stays.
    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::Own(Box::default())
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Cut(block) => block,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Cut(block) => block,
        }
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl std::io::Write for PooledBuf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(self.append(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(memory, Memory::Cut(_)) || idle.len() < self.home.keep {
            idle.push(memory);
        }
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuf").field("filled", &self.filled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_buffer_takes_no_more() {
        let mut buffer = Pool::new(4, 1).take();
        assert_eq!(buffer.fill_from(b"abcdef"), 4);
        assert_eq!(buffer.write(b"g").unwrap(), 0);
        assert_eq!(&*buffer, b"abcd");
    }

    #[test]
    fn no_more_than_asked_is_kept() {
        let pool = Pool::new(4, 1);
        drop((pool.take(), pool.take()));
        assert_eq!(pool.idle(), 1);
        assert!(pool.take().is_empty(), "a reused buffer starts empty");
    }

    #[test]
    fn a_contiguous_pool_keeps_its_own_buffers_and_no_others() {
        let pool = Pool::contiguous(16, 2);
        let arena = pool.arena().unwrap();
        let mut buffers: Vec<_> = (0..3).map(|_| pool.take()).collect();
        for buffer in &mut buffers {
            assert_eq!(buffer.fill_from(b"x"), 1);
        }
        let inside = buffers.iter().map(|buffer| arena.contains(buffer));
        assert_eq!(inside.collect::<Vec<_>>(), [true, true, false]);
        // The one too many comes back first.
        buffers.reverse();
        drop(buffers);
        assert_eq!(pool.idle(), 2);
        assert_eq!(size_of::<PooledBuf>(), 4 * size_of::<usize>());
    }
}
