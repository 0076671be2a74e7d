//! Huge pages for a memory file (`madvise(2)`, `MADV_COLLAPSE`, Linux 6.1).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// What is gathered into one: the size of a huge page where a page has 4 KiB.
/// On a machine whose pages are larger the kernel finds no room for one in
/// that, refuses, and nothing is lost.
const HUGE: usize = 2 << 20;

/// Has the kernel gather the pages of `file`, a memory file that nobody maps, in
/// huge ones, as far as its `len` bytes fill them. Says how many bytes that are.
///
/// `sendfile` looks each page of a memory file up and locks it (`mm/shmem.c`,
/// `shmem_file_splice_read`), but a huge one only once for all that it sends.
///
/// # Errors
/// The kernel's, if it does not know how, or has no huge page free: the file's
/// pages are as they were, and its content is, too.
pub(super) fn gather(file: &File, len: usize) -> io::Result<usize> {
    let len = len / HUGE * HUGE;
    if len == 0 {
        return Ok(0);
    }
    let room = Mapping::reserve(len + HUGE)?;
    let start = room.start.map_addr(|address| address.next_multiple_of(HUGE));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: `len` bytes from the first multiple of `HUGE` on lie within `room`,
    // which is ours and which nobody refers to.
    let mapped = unsafe { libc::mmap(start, len, protection, flags, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range was just mapped. Its content stays what it is.
    super::check(unsafe { libc::madvise(start, len, libc::MADV_COLLAPSE) })?;
    Ok(len)
}

/// Addresses of our own, without memory behind them at first.
struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    fn reserve(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nobody refers to what is in it.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
