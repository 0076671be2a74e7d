//! Payloads whose memory tells when it is freed.

use bytes::Bytes;
use lastbyte::{FileRange, FileSource, Payload};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Longest memory segment.
pub const MAX_MEMORY: u32 = 64 << 10;

static ZEROES: [u8; MAX_MEMORY as usize] = [0; MAX_MEMORY as usize];

/// What a payload is made of: memory first, then a range of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    pub memory: u32,
    pub file: u64,
}

impl Shape {
    pub fn len(self) -> u64 {
        u64::from(self.memory) + self.file
    }

    /// The payload, and the witness of its end.
    pub fn make(self) -> (Payload, Witness) {
        let freed = Arc::new(AtomicBool::new(false));
        let mut payload = Payload::new();
        // The witness must die with the payload even if that is empty or a
        // single segment, so each segment carries it; the last to go counts.
        let owner = Arc::new(Owner { len: self.memory as usize, freed: Arc::clone(&freed) });
        if self.memory > 0 {
            payload.push(Bytes::from_owner(Memory(Arc::clone(&owner))));
        }
        if self.file > 0 {
            payload.push(FileRange::new(Arc::new(Pages(owner)), 0, self.file));
        }
        (payload, Witness(freed))
    }
}

/// Knows whether a payload was freed.
#[derive(Debug)]
pub struct Witness(Arc<AtomicBool>);

impl Witness {
    pub fn freed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Owner {
    len: usize,
    freed: Arc<AtomicBool>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.freed.store(true, Ordering::Relaxed);
    }
}

struct Memory(Arc<Owner>);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &ZEROES[..self.0.len]
    }
}

/// Pages of a file; only ever counted, never read.
#[derive(Debug)]
struct Pages(#[expect(dead_code, reason = "held for its drop")] Arc<Owner>);

impl FileSource for Pages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        static NULL: OnceLock<File> = OnceLock::new();
        AsFd::as_fd(NULL.get_or_init(|| File::open("/dev/null").expect("/dev/null opens")))
    }
}
