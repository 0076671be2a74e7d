//! Payloads of every kind with the pattern as their content.

use crate::{Failure, pattern};
use lastbyte::{FileRange, FileSource, Payload, Pool, Segment};
use lastbyte_backends::SealedMemory;
use std::io::{self, Write};
use std::sync::Arc;

/// Where a payload's bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Memory,
    Pooled,
    File,
    SealedMemory,
    HeaderAndFile,
}

/// A file, a sealed memory file and a pool to make payloads from.
#[derive(Debug)]
pub(crate) struct Material {
    file: Arc<dyn FileSource>,
    sealed: io::Result<Arc<dyn FileSource>>,
    pool: Pool,
}

impl Material {
    /// Enough for the first `len` bytes of a stream.
    pub(crate) fn new(len: usize) -> Result<Self, Failure> {
        let content = pattern::bytes(0, len);
        let mut file = tempfile::tempfile()?;
        file.write_all(&content)?;
        let sealed = SealedMemory::new(&content).map(|sealed| Arc::new(sealed) as _);
        Ok(Self { file: Arc::new(file), sealed, pool: Pool::new(len, 4) })
    }

    /// Why there are no sealed memory files.
    pub(crate) fn no_sealed_memory(&self) -> Option<&io::Error> {
        self.sealed.as_ref().err()
    }

    /// The bytes of the stream from `at` on.
    pub(crate) fn payload(&self, kind: Kind, at: u64, len: usize) -> Payload {
        if kind != Kind::HeaderAndFile {
            return self.segment(kind, at, len).into();
        }
        let header = (len / 4).min(150);
        let payload = Payload::from(self.segment(Kind::Memory, at, header));
        payload.with(self.segment(Kind::File, at + header as u64, len - header))
    }

    /// The same as one segment; a file has no header then. Without sealed
    /// memory, an ordinary file takes its place.
    pub(crate) fn segment(&self, kind: Kind, at: u64, len: usize) -> Segment {
        let range = |source: &Arc<dyn FileSource>| {
            FileRange::new(Arc::clone(source), at, len as u64).into()
        };
        match kind {
            Kind::Memory => pattern::bytes(at, len).into(),
            Kind::Pooled => {
                let mut buffer = self.pool.take();
                buffer.fill_from(&pattern::bytes(at, len));
                buffer.into()
            }
            Kind::File | Kind::HeaderAndFile => range(&self.file),
            Kind::SealedMemory => range(self.sealed.as_ref().unwrap_or(&self.file)),
        }
    }
}
