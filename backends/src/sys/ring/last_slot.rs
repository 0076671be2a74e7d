//! A completion that the kernel never wrote.
//!
//! Linux 6.18 puts a dummy before a wide completion that would wrap, as rings of
//! mixed widths need it, also into rings that are wide throughout, where it goes
//! to the wrong place (`io_uring/io_uring.c`, `io_cqe_cache_refill`). The queue
//! then has an entry more, in its last place, and in it what was there one round
//! before: an operation is said to have completed once more, with a buffer or a
//! descriptor that has long been somebody else's. So what was read from the last
//! place is crossed out.

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
