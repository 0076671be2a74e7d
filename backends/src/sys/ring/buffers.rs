//! Buffers that the kernel fills with input (`io_uring_register_buf_ring(3)`,
//! Linux 5.19).

use super::Ring;
use io_uring::types::BufRingEntry;
use lastbyte::{Pool, PooledBuf};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of a ring.
const GROUP: u16 = 0;

/// A ring of buffers from a pool. The kernel takes them in order and fills
/// them; a filled one is handed out, and a fresh one takes its place, as long as
/// not too many are out.
pub(crate) struct ReceiveBuffers {
    entries: Mapping,
    /// What the kernel may write to, by buffer id. Never touched while it may.
    lent: Box<[Option<PooledBuf>]>,
    /// Ids that lack their buffer.
    empty: Vec<u16>,
    /// How many may be lent or out.
    most: usize,
    pool: Pool,
    /// Entries provided so far, wrapping.
    tail: u16,
}

/// Fewer buffers than these are not worth queueing for: that many sockets are served in
/// a turn that could serve dozens.
const TIGHT: usize = 8;

impl ReceiveBuffers {
    /// Registers `count` buffers of `pool`, rounded up to a power of two, or
    /// fewer, as `most` may be lent or out at a time.
    pub(crate) fn register(
        ring: &mut Ring,
        pool: &Pool,
        count: u16,
        most: usize,
    ) -> io::Result<Self> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let entries = Mapping::new(usize::from(count))?;
        let address = entries.start.as_ptr() as u64;
        let submitter = ring.submitter();
        // SAFETY: `address` is a mapping of `count` entries, aligned to a page.
        // It is unmapped when `self` is dropped, which its owner does only after
        // every receive has ended, and otherwise leaks it.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        let lent = (0..count).map(|_| None).collect();
        let mut buffers = Self {
            entries,
            lent,
            empty: (0..count).rev().collect(),
            most: most.max(1),
            pool: pool.clone(),
            tail: 0,
        };
        buffers.fill_up(0);
        Ok(buffers)
    }

    /// The group to receive into.
    pub(crate) fn group(&self) -> u16 {
        GROUP
    }

    /// Takes the buffer that the kernel has filled with `len` bytes.
    pub(crate) fn take(&mut self, id: u16, len: usize) -> Option<PooledBuf> {
        let mut buffer = self.lent.get_mut(usize::from(id))?.take()?;
        let room = buffer.spare().len();
        buffer.advance(len.min(room));
        self.empty.push(id);
        Some(buffer)
    }

    /// Lends as many buffers as there is room for, and may be when `out` are.
    pub(crate) fn fill_up(&mut self, out: usize) {
        if self.empty.is_empty() {
            return;
        }
        let mut room = self.most.saturating_sub(self.lent() + out);
        while room > 0
            && let Some(id) = self.empty.pop()
        {
            self.lend(id);
            room -= 1;
        }
        self.publish();
    }

    /// Whether less than half of them is lent.
    pub(crate) fn are_few(&self) -> bool {
        self.empty.len() > self.lent.len() / 2
    }

    /// Whether they are so few that a queue for them would take longer than reading
    /// when asked.
    pub(crate) fn are_tight(&self) -> bool {
        self.most < TIGHT
    }

    /// Buffers that the kernel can fill.
    pub(crate) fn lent(&self) -> usize {
        self.lent.len() - self.empty.len()
    }

    /// Size of each in bytes.
    pub(crate) fn size(&self) -> usize {
        self.pool.buffer_size()
    }

    /// Gives back the buffer that the kernel has taken and put nothing into.
    pub(crate) fn give_back(&mut self, id: u16) {
        if let Some(mut buffer) = self.lent.get_mut(usize::from(id)).and_then(Option::take) {
            self.provide(id, &mut buffer);
            self.lent[usize::from(id)] = Some(buffer);
            self.publish();
        }
    }

    fn lend(&mut self, id: u16) {
        let mut buffer = self.pool.take();
        self.provide(id, &mut buffer);
        self.lent[usize::from(id)] = Some(buffer);
    }

    fn provide(&mut self, id: u16, buffer: &mut PooledBuf) {
        let room = buffer.spare();
        let place = usize::from(self.tail) & (self.lent.len() - 1);
        // SAFETY: `place` is within the mapping.
        let mut entry = unsafe { self.entries.start.add(place) };
        // SAFETY: the kernel does not read an entry before the tail is beyond it,
        // and never writes one.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(room.as_mut_ptr() as u64);
        entry.set_len(u32::try_from(room.len()).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was provided.
    fn publish(&self) {
        // SAFETY: `start` is the first entry of the mapping.
        let tail = unsafe { BufRingEntry::tail(self.entries.start.as_ptr()) };
        // SAFETY: the tail is aligned, in the mapping, and shared with the
        // kernel as an atomic integer.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl std::fmt::Debug for ReceiveBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBuffers").field("count", &self.lent.len()).finish_non_exhaustive()
    }
}

/// Zeroed memory of whole pages.
struct Mapping {
    start: NonNull<BufRingEntry>,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping alone.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(entries: usize) -> io::Result<Self> {
        let bytes = entries * size_of::<BufRingEntry>();
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
