//! Memory that is pinned once for all (`io_uring_register(2)`,
//! `IORING_REGISTER_BUFFERS2`), to be sent from without pinning it each time.
//!
//! The kernel knows it by its addresses. So an arena stays allocated as long as
//! it is registered: nothing else can come to lie where it is. What the kernel
//! is sending it keeps pinned by itself, registered or not
//! (`io_uring/rsrc.h`, `io_assign_rsrc_node`).

use super::{Ring, SendMemory};
use lastbyte::Arena;
use std::io;
use std::ops::Range;

/// Arenas that one ring can have.
pub(crate) const PLACES: u16 = 32;

/// The arenas of a ring, by their index in the kernel's table.
#[derive(Debug, Default)]
pub(crate) struct Registered {
    arenas: Vec<Option<Arena>>,
}

impl Registered {
    /// Has the kernel pin `arena`, which is not registered yet.
    ///
    /// # Errors
    /// `ENOMEM` if that exceeds `RLIMIT_MEMLOCK`, `EFAULT` if it is longer than
    /// a kernel takes (1 GiB), `ENOSPC` if there are [`PLACES`] already.
    pub(crate) fn add(&mut self, ring: &Ring, arena: &Arena) -> io::Result<()> {
        if self.arenas.is_empty() {
            ring.make_table(PLACES)?;
            self.arenas.resize(usize::from(PLACES), None);
        }
        let place = self.arenas.iter().position(Option::is_none);
        let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        let (index, addresses) = (place_number(place), arena.addresses());
        // SAFETY: `arena` is allocated for as long as `self` holds it, which is
        // until the kernel has forgotten it, or the ring is gone.
        unsafe { ring.fill_place(index, addresses) }?;
        self.arenas[place] = Some(arena.clone());
        Ok(())
    }

    /// Has the kernel forget `arena`. What it is sending stays pinned.
    pub(crate) fn remove(&mut self, ring: &Ring, arena: &Arena) -> io::Result<()> {
        let Some(place) = self.place(arena) else { return Ok(()) };
        // SAFETY: no memory is named.
        unsafe { ring.fill_place(place_number(place), 0..0) }?;
        self.arenas[place] = None;
        Ok(())
    }

    pub(crate) fn has(&self, arena: &Arena) -> bool {
        self.place(arena).is_some()
    }

    /// Where in the kernel's table all the memory is that `memory` refers to;
    /// `None` if it is not in one place.
    pub(crate) fn place_of(&self, memory: &SendMemory) -> Option<u16> {
        if self.arenas.is_empty() {
            return None;
        }
        let all = memory.span();
        let holds = |arena: &Option<Arena>| {
            arena.as_ref().is_some_and(|arena| {
                let addresses = arena.addresses();
                addresses.start <= all.start && all.end <= addresses.end
            })
        };
        self.arenas.iter().position(holds).map(place_number)
    }

    /// Bytes registered now.
    pub(crate) fn bytes(&self) -> u64 {
        self.arenas.iter().flatten().map(|arena| arena.len() as u64).sum()
    }

    fn place(&self, arena: &Arena) -> Option<usize> {
        self.arenas.iter().position(|held| held.as_ref() == Some(arena))
    }
}

impl Ring {
    /// Makes a table of `places` that hold nothing (Linux 5.19).
    fn make_table(&self, places: u16) -> io::Result<()> {
        self.submitter().register_buffers_sparse(u32::from(places))
    }

    /// Puts memory into a place of the table, or nothing.
    ///
    /// # Safety
    /// The memory stays allocated while it is in the table.
    unsafe fn fill_place(&self, place: u16, memory: Range<usize>) -> io::Result<()> {
        let base = std::ptr::without_provenance_mut(memory.start);
        let memory = [libc::iovec { iov_base: base, iov_len: memory.len() }];
        let place = u32::from(place);
        let submitter = self.submitter();
        // SAFETY: as demanded of the caller. The description itself is only read
        // during the call.
        unsafe { submitter.register_buffers_update(place, &memory, None) }
    }
}

fn place_number(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}
