//! Payload memory that records its end.

use bytes::Bytes;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whether a payload's memory still exists.
///
/// The memory is overwritten as it is freed, so that a kernel which still reads
/// it sends bytes that no peer takes for the right ones.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    freed: Arc<AtomicBool>,
}

impl Canary {
    /// Whether the memory was not freed yet.
    pub(crate) fn is_alive(&self) -> bool {
        !self.freed.load(Ordering::SeqCst)
    }
}

/// `content` as shared bytes with a canary.
pub(crate) fn guarded(content: Vec<u8>) -> (Bytes, Canary) {
    let freed = Arc::new(AtomicBool::new(false));
    let canary = Canary { freed: Arc::clone(&freed) };
    (Bytes::from_owner(Owner { content, freed }), canary)
}

struct Owner {
    content: Vec<u8>,
    freed: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.content.fill(0xDD);
        black_box(&self.content);
        self.freed.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_dies_with_the_last_reference() {
        let (bytes, canary) = super::guarded(vec![1]);
        let second = bytes.clone();
        drop(bytes);
        assert!(canary.is_alive());
        drop(second);
        assert!(!canary.is_alive());
    }
}
