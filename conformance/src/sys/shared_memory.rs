//! Memory that can be changed while somebody else is said to own it: how a case
//! finds out whether a kernel still reads what was lent to it.

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::Arc;

/// A piece of memory that is also a file.
#[derive(Clone, Debug)]
pub(crate) struct SharedMemory(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    file: File,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is not tied to a thread, and through it nothing is written.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl SharedMemory {
    pub(crate) fn new(content: &[u8]) -> io::Result<Self> {
        let file = File::from(memfd_create("lastbyte-conformance", MemfdFlags::CLOEXEC)?);
        file.write_all_at(content, 0)?;
        let len = content.len();
        // SAFETY: a new mapping at an address of the kernel's choice replaces
        // no other.
        let start = unsafe { mmap(null_mut(), len, ProtFlags::READ, MapFlags::SHARED, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self(Arc::new(Mapped { file, start, len })))
    }

    /// Replaces the content, in the very pages that are mapped. Only to be called
    /// while no code of this process can be reading them: when the driver that
    /// has them is not in a call, which leaves the kernel.
    pub(crate) fn overwrite(&self, content: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(&content[..content.len().min(self.0.len)], 0)
    }
}

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped for reading for as long as `self` lives; it changes in
        // `overwrite` only, when nobody looks.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the whole of the one mapping made above, which nobody can
        // refer to any more. That it fails would mean that it is not there.
        unsafe { munmap(self.start.as_ptr().cast(), self.len) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overwritten_shows() {
        let memory = SharedMemory::new(b"before").unwrap();
        assert_eq!(memory.as_ref(), b"before");
        memory.overwrite(b"after, and more").unwrap();
        assert_eq!(memory.clone().as_ref(), b"after,");
    }
}
