//! A completion that the kernel never wrote.
//!
//! Linux 6.18 to 7.2 put a dummy before a wide completion that would wrap, as
//! rings of mixed widths need it, also into rings that are wide throughout, where
//! it goes to the wrong place (`io_uring/io_uring.c`, `io_cqe_cache_refill`). The
//! queue then has an entry more, in its last place, and in it what was there one
//! round before: an operation is said to have completed once more, with a buffer
//! or a descriptor that has long been somebody else's. So what was read from the
//! last place is crossed out.
//!
//! Found in 6.18.15, 6.18.44 and 7.2.13, not in 6.17.13 (which has no rings of
//! mixed widths) nor in 7.3.4, where nothing is crossed out in vain. A ring of
//! mixed widths (`IORING_SETUP_CQE_MIXED`, 6.18) does not have the fault on any of
//! them; 6.17 would need a wide one all the same.

use io_uring::cqueue;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// `IORING_OFF_CQ_RING`, `include/uapi/linux/io_uring.h`.
const CQ_RING: libc::off_t = 0x0800_0000;

/// `struct io_uring_params`: ten words, the offsets of the submission queue (40
/// bytes), and those of the completion queue.
#[repr(C)]
struct Params {
    words: [u32; 10],
    submission: [u32; 10],
    completion: CompletionOffsets,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
struct CompletionOffsets {
    before: [u32; 5],
    completions: u32,
    after: [u32; 4],
}

const _: () = assert!(size_of::<Params>() == 120 && offset_of!(Params, completion) == 80);

/// The last place of a queue of wide completions.
pub(super) struct LastSlot {
    mapping: NonNull<libc::c_void>,
    bytes: usize,
    name: NonNull<AtomicU64>,
    /// Completions read so far, wrapping, and the number of places less one.
    read: u32,
    mask: u32,
}

// SAFETY: the mapping belongs to this value alone, and is shared with the kernel
// only, which takes atomic stores from any thread.
unsafe impl Send for LastSlot {}

impl LastSlot {
    /// Of the ring `fd`, which has `places`.
    pub(super) fn of(fd: RawFd, places: u32) -> io::Result<Self> {
        let width = size_of::<cqueue::Entry32>();
        let last = completions_offset()? + (places as usize - 1) * width;
        let bytes = last + width;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                CQ_RING,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // SAFETY: `last` lies within the mapping, and is a multiple of 8; the
        // name is a completion's first field.
        let name = unsafe { mapping.byte_add(last) }.cast();
        Ok(Self { mapping, bytes, name, read: 0, mask: places - 1 })
    }

    /// One more completion was read. To be called before the kernel is told so.
    pub(super) fn has_read(&mut self) {
        if self.read & self.mask == self.mask {
            // SAFETY: the mapping lives as long as `self`.
            unsafe { self.name.as_ref() }.store(super::NOBODY, Ordering::Relaxed);
        }
        self.read = self.read.wrapping_add(1);
    }
}

impl Drop for LastSlot {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and nobody borrows it any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.bytes) };
    }
}

/// Where a queue's completions begin: the same in every ring, so a small one is
/// asked.
fn completions_offset() -> io::Result<usize> {
    let mut params = Params {
        words: [0; 10],
        submission: [0; 10],
        completion: CompletionOffsets { before: [0; 5], completions: 0, after: [0; 4] },
    };
    // SAFETY: the kernel reads and writes one `io_uring_params`, which `params`
    // is.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
    let fd = RawFd::try_from(crate::sys::check_len(fd as isize)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made `fd`, nobody else knows it.
    let ring = unsafe { OwnedFd::from_raw_fd(fd) };
    debug_assert!(ring.as_raw_fd() >= 0);
    Ok(params.completion.completions as usize)
}

#[cfg(test)]
mod tests {
    use crate::sys::event_fd::EventFd;
    use crate::sys::message::{self, Options};
    use crate::sys::ring::{Interest, NOBODY, Ring, Wish};
    use crate::sys::timestamping::{self, Wanted};
    use std::io::IoSlice;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::{Duration, Instant};

    const STAMPS: u64 = 7777;
    const PLACES: u64 = 8;

    /// The names of what has completed.
    fn names(ring: &mut Ring) -> Vec<u64> {
        let mut names = Vec::new();
        ring.reap(|completion| names.push(completion.name));
        names
    }

    /// The fault's own conditions: the kernel looked for room when one completion
    /// was unread, so that it has room up to the last place, which a stamp is to
    /// go to.
    #[test]
    fn what_the_kernel_leaves_in_the_last_place_is_nobodys() {
        let wish = Wish { entries: 4, completions: 8, deferred: false };
        let Ok(mut ring) = Ring::new(wish) else {
            eprintln!("no rings here");
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        if !ring.is_wide() || timestamping::enable(socket.as_fd(), false).is_err() {
            eprintln!("no wide rings here, or no stamps");
            return;
        }
        ring.stamps(socket.as_raw_fd(), STAMPS).unwrap();
        ring.submit().unwrap();
        if !names(&mut ring).is_empty() {
            eprintln!("no stamps as completions here");
            return;
        }
        let event = EventFd::new().unwrap();
        event.set();
        // Each completes at once.
        let complete = |ring: &mut Ring, name| {
            ring.poll(event.as_raw_fd(), Interest::Input, false, name).unwrap();
            ring.submit().unwrap();
        };
        (0..PLACES - 1).for_each(|name| complete(&mut ring, name));
        assert_eq!(names(&mut ring), (0..PLACES - 1).collect::<Vec<_>>());
        (PLACES - 1..=PLACES).for_each(|name| complete(&mut ring, name));
        assert_eq!(names(&mut ring), [PLACES - 1, PLACES]);
        for name in PLACES + 1..2 * PLACES - 1 {
            complete(&mut ring, name);
            assert_eq!(names(&mut ring), [name]);
        }
        let stamps = Wanted { acked: true, transmitted: false };
        let options = Options { stamps, end_of_record: true, ..Options::PLAIN };
        message::send(socket.as_fd(), &[IoSlice::new(b"t")], options).unwrap();
        let (began, mut last) = (Instant::now(), Vec::new());
        while !last.contains(&STAMPS) {
            assert!(began.elapsed() < Duration::from_secs(60), "no stamp: {last:?}");
            ring.enter(Some(Duration::from_millis(10))).unwrap();
            last.extend(names(&mut ring));
        }
        last.retain(|name| *name != NOBODY);
        assert_eq!(last, [STAMPS], "said to have completed once more");
    }
}
