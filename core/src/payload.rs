//! What is sent, with its ownership.

use crate::PooledBuf;
use bytes::Bytes;
use smallvec::SmallVec;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// An open file that a payload can refer to.
///
/// The bytes of a referenced range must not be changed before the transfer is
/// released: the kernel reads them late, for retransmission even after they
/// were first sent.
pub trait FileSource: fmt::Debug + Send + Sync {
    /// The descriptor to read or send from. It is only used with explicit
    /// offsets, so its file position does not matter.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// The file's content as memory, where it is mapped and cannot change
    /// (a sealed memory file, for example).
    fn memory(&self) -> Option<&[u8]> {
        None
    }
}

impl FileSource for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(self)
    }
}

/// `len` bytes of an open file from `offset` on.
#[derive(Clone, Debug)]
pub struct FileRange {
    source: Arc<dyn FileSource>,
    offset: u64,
    len: u64,
}

impl FileRange {
    /// A range of `source`. It is not checked against the file's size: a file
    /// that turns out shorter fails the transfer with
    /// [`FailReason::FileTruncated`](crate::FailReason::FileTruncated).
    #[must_use]
    pub fn new(source: Arc<dyn FileSource>, offset: u64, len: u64) -> Self {
        Self { source, offset, len }
    }

    /// The file.
    #[must_use]
    pub fn source(&self) -> &dyn FileSource {
        &*self.source
    }

    /// Where the range starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long the range is.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the range is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range's bytes where the source is mapped and long enough.
    #[must_use]
    pub fn memory(&self) -> Option<&[u8]> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        self.source.memory()?.get(start..end)
    }
}

/// One piece of a payload.
#[derive(Debug)]
#[non_exhaustive]
pub enum Segment {
    /// Shared immutable bytes.
    Shared(Bytes),
    /// The filled part of a pooled buffer.
    Pooled(PooledBuf),
    /// A range of an open file.
    File(FileRange),
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Pooled(buffer) => buffer.len() as u64,
            Self::File(range) => range.len(),
        }
    }

    /// Whether there can be such bytes: no file is longer than `off_t` can count.
    fn is_possible(&self) -> bool {
        let Self::File(range) = self else { return true };
        range.offset.checked_add(range.len()).is_some_and(|end| i64::try_from(end).is_ok())
    }
}

/// Bytes handed over to be sent, with their ownership: memory, pooled buffers,
/// file ranges, or several of them in a row as one transfer.
///
/// ```
/// use lastbyte::{Payload, Pool};
/// let mut header = Pool::new(64, 1).take();
/// header.fill_from(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
/// let payload = Payload::from(header).with(bytes::Bytes::from_static(b"hello"));
/// assert_eq!(payload.len(), 43);
/// ```
#[derive(Debug, Default)]
pub struct Payload {
    segments: SmallVec<[Segment; 2]>,
    len: u64,
    memory: u64,
}

impl Payload {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This payload with `segment` behind it. Empty segments are dropped.
    #[must_use]
    pub fn with(mut self, segment: impl Into<Segment>) -> Self {
        self.push(segment);
        self
    }

    /// Adds `segment` at the end. Empty segments are dropped.
    pub fn push(&mut self, segment: impl Into<Segment>) {
        let segment = segment.into();
        let len = segment.len();
        if len == 0 {
            return;
        }
        // A file range may claim any length, and begin anywhere; too long is refused
        // when it is submitted.
        let len = if segment.is_possible() { len } else { u64::MAX };
        self.len = self.len.saturating_add(len);
        if !matches!(segment, Segment::File(_)) {
            self.memory += len;
        }
        self.segments.push(segment);
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of it that occupy this process's memory (file ranges do not).
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        self.memory
    }

    /// The pieces, in order; none is empty.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pieces that remain when the first `offset` bytes are left out.
    pub fn remaining(&self, offset: u64) -> impl Iterator<Item = Part<'_>> {
        self.remaining_from(Place::default(), offset)
    }

    /// The same, found from `place` on, which must not be behind `offset`.
    pub(crate) fn remaining_from(
        &self,
        place: Place,
        offset: u64,
    ) -> impl Iterator<Item = Part<'_>> {
        let mut skip = offset.saturating_sub(place.start);
        let segments = self.segments.get(place.segment..).unwrap_or_default();
        segments.iter().filter_map(move |segment| {
            let len = segment.len();
            let start = skip.min(len);
            skip -= start;
            if start == len {
                return None;
            }
            Some(match segment {
                Segment::Shared(bytes) => Part::Memory(&bytes[to_usize(start)..]),
                Segment::Pooled(buffer) => Part::Memory(&buffer[to_usize(start)..]),
                Segment::File(range) => Part::File {
                    range,
                    offset: range.offset.saturating_add(start),
                    len: len - start,
                },
            })
        })
    }
}

/// The start of a segment, to go on from: a payload can have very many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    segment: usize,
    /// Bytes before it.
    start: u64,
}

impl Place {
    /// Moves on to the segment of `payload` that `offset` is in.
    pub(crate) fn advance(&mut self, payload: &Payload, offset: u64) {
        while let Some(segment) = payload.segments.get(self.segment)
            && self.start + segment.len() <= offset
        {
            self.start += segment.len();
            self.segment += 1;
        }
    }
}

/// What is left of one segment.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes in memory.
    Memory(&'a [u8]),
    /// Bytes of a file.
    File {
        /// The segment they belong to.
        range: &'a FileRange,
        /// Where in the file they start.
        offset: u64,
        /// How many they are.
        len: u64,
    },
}

impl Part<'_> {
    /// Bytes in this part.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there are none; parts from [`Payload::remaining`] are never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An offset into memory that exists, so it fits.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl From<Bytes> for Segment {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

impl From<Vec<u8>> for Segment {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(bytes.into())
    }
}

impl From<&'static [u8]> for Segment {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Shared(Bytes::from_static(bytes))
    }
}

impl From<PooledBuf> for Segment {
    fn from(buffer: PooledBuf) -> Self {
        Self::Pooled(buffer)
    }
}

impl From<FileRange> for Segment {
    fn from(range: FileRange) -> Self {
        Self::File(range)
    }
}

impl<S: Into<Segment>> From<S> for Payload {
    fn from(segment: S) -> Self {
        Self::new().with(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(payload: &Payload, offset: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for part in payload.remaining(offset) {
            match part {
                Part::Memory(bytes) => all.extend_from_slice(bytes),
                Part::File { .. } => panic!("no file in here"),
            }
        }
        all
    }

    #[test]
    fn what_remains_after_any_offset_is_the_tail() {
        let payload = Payload::from(b"abc".to_vec()).with(Vec::new()).with(b"defg".to_vec());
        for offset in 0..=7_usize {
            assert_eq!(memory(&payload, offset as u64), b"abcdefg"[offset..].to_vec());
        }
        assert_eq!(payload.segments().len(), 2, "an empty segment is dropped");
    }

    #[test]
    fn what_remains_is_the_same_from_any_place_before() {
        let payload = Payload::from(b"abc".to_vec()).with(b"d".to_vec()).with(b"ef".to_vec());
        for first in 0..=6_u64 {
            let mut place = Place::default();
            place.advance(&payload, first);
            for offset in first..=6 {
                place.advance(&payload, offset);
                let parts: Vec<_> = payload.remaining_from(place, offset).collect();
                assert_eq!(parts.len(), payload.remaining(offset).count());
                let len: u64 = parts.iter().map(Part::len).sum();
                assert_eq!(len, 6 - offset, "from {first}");
            }
        }
    }
}
