//! What responses are made of.

use super::protocol::Body;
use bytes::Bytes;
use lastbyte::{FileRange, FileSource, Payload};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A response's bytes, of any length up to one that was said beforehand.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Bytes),
    File(Arc<dyn FileSource>),
}

impl Store {
    pub(super) fn new(body: Body, largest: u64) -> io::Result<Self> {
        let len = usize::try_from(largest).map_err(io::Error::other)?;
        // Not zeros: those might share a page.
        let content: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[n % 3]).collect();
        Ok(match body {
            Body::Memory => Self::Memory(content.into()),
            Body::File => {
                let folder = std::env::temp_dir();
                let file = nameless(&folder, &content).map_err(|error| {
                    let place = format!("a file in {} (TMPDIR): {error}", folder.display());
                    io::Error::new(error.kind(), place)
                })?;
                Self::File(Arc::new(file))
            }
        })
    }

    /// Adds the first `len` bytes.
    pub(super) fn append(&self, payload: &mut Payload, len: u64) {
        match self {
            Self::Memory(content) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(content.len());
                payload.push(content.slice(..len));
            }
            Self::File(file) => payload.push(FileRange::new(Arc::clone(file), 0, len)),
        }
    }
}

/// A file with this `content` that has no name, so that nothing is left of it whatever
/// happens.
fn nameless(folder: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(content)?;
    Ok(file)
}
