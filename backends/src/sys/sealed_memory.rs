//! Memory files that can no longer change (`memfd_create(2)`, Linux 3.17).

use super::huge_page;
use lastbyte::FileSource;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::NonNull;

/// Bytes in a sealed memory file, mapped.
///
/// A [`FileRange`](lastbyte::FileRange) of it goes out by `sendfile`: no copy,
/// no pinning, no notification, on every kernel; and where the bytes themselves
/// are needed, they are there. Clone the `Arc` around it to send it many times.
///
/// From Linux 6.1 on, each 2 MiB of it lie in a huge page if one is free, which
/// then costs no more to send than a file's. Many small bodies are best sealed
/// together, as ranges of one memory.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use lastbyte::{FileRange, FileSource};
/// use std::sync::Arc;
/// let body = Arc::new(lastbyte_backends::SealedMemory::new(b"hello")?);
/// assert_eq!(body.memory(), Some(&b"hello"[..]));
/// let payload = lastbyte::Payload::from(FileRange::new(body, 1, 3));
/// # assert_eq!(payload.len(), 3);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SealedMemory {
    file: File,
    /// `None` if it is empty: nothing can be mapped then.
    mapping: Option<Mapping>,
    /// Bytes that lie in huge pages, or a value of `errno(3)`.
    huge_pages: Result<usize, i32>,
}

impl SealedMemory {
    /// Seals a copy of `content`.
    ///
    /// # Errors
    /// The kernel's, where it has no memory files or no more memory.
    pub fn new(content: &[u8]) -> io::Result<Self> {
        Self::write(|file| file.write_all(content))
    }

    /// Seals `len` bytes that repeat `pattern`.
    ///
    /// # Errors
    /// As [`Self::new`]; `InvalidInput` if `pattern` is empty and `len` is not 0.
    pub fn filled(len: usize, pattern: &[u8]) -> io::Result<Self> {
        if pattern.is_empty() && len > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to repeat"));
        }
        Self::write(|file| {
            let mut file = io::BufWriter::with_capacity(1 << 16, file);
            let mut left = len;
            while left > 0 {
                let n = left.min(pattern.len());
                file.write_all(&pattern[..n])?;
                left -= n;
            }
            file.flush()
        })
    }

    fn write(fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a C string.
        let fd = super::check(unsafe { libc::memfd_create(c"lastbyte".as_ptr(), flags) })?;
        // SAFETY: the kernel has just made `fd`, nobody else knows it.
        let mut file = unsafe { File::from_raw_fd(fd) };
        fill(&mut file)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let huge_pages = huge_page::gather(&file, len)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM));
        let seals =
            libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
        // SAFETY: this command takes an `int` and touches no memory.
        super::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        let mapping = if len == 0 { None } else { Some(Mapping::new(&file, len)?) };
        Ok(Self { file, mapping, huge_pages })
    }

    /// How many of its bytes lie in huge pages.
    ///
    /// # Errors
    /// Why none do, by the kernel: `EINVAL` before Linux 6.1, `ENOMEM` if no huge
    /// page was free. All else is as it would be.
    pub fn huge_pages(&self) -> io::Result<usize> {
        self.huge_pages.map_err(io::Error::from_raw_os_error)
    }
}

impl FileSource for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(&self.file)
    }

    fn memory(&self) -> Option<&[u8]> {
        Some(self.mapping.as_ref().map_or(&[], Mapping::bytes))
    }
}

/// A read-only mapping of a whole sealed file.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is never written to, and unmapped only when dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        // Private, because before Linux 6.7 a file sealed against writing could
        // not be mapped shared, not even for reading (mm/shmem.c, `F_SEAL_WRITE`
        // against `VM_MAYWRITE`). Pages that nobody writes stay shared anyway.
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped until `self` is dropped,
        // and seals keep the file from shrinking or changing.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are a mapping of our own, and nobody borrows
        // it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_sealed_and_mapped() {
        let sealed = SealedMemory::filled(10, b"abc").unwrap();
        assert_eq!(sealed.memory(), Some(&b"abcabcabca"[..]));
        let error = (&sealed.file).write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(sealed.file.set_len(5).is_err());
    }

    /// More than a huge page, and not a whole number of them.
    #[test]
    fn what_lies_in_huge_pages_is_the_same() {
        let pattern: Vec<u8> = (0..=250).collect();
        let len = (5 << 20) + 12_345;
        let sealed = SealedMemory::filled(len, &pattern).unwrap();
        let all = sealed.memory().unwrap();
        assert_eq!(all.len(), len);
        assert!(all.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at % 251));
        assert!((&sealed.file).write(b"x").is_err());
        match sealed.huge_pages() {
            Ok(bytes) => assert_eq!(bytes, 4 << 20),
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }

    #[test]
    fn nothing_can_be_sealed_too() {
        assert_eq!(SealedMemory::new(b"").unwrap().memory(), Some(&[][..]));
    }
}
