//! Bytes as they come, into whole records.

use super::record::{HEADER, Header, Violation};
use lastbyte::PooledBuf;

/// Input that was not opened yet: at most a record and a buffer of the inner
/// driver's.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The start of a record that did not come in one piece, or all of it.
    partial: Vec<u8>,
    /// What came last, and how much of it is used.
    fresh: Option<(PooledBuf, usize)>,
}

impl Input {
    /// Adds what came. The last buffer has to be used up.
    pub(super) fn add(&mut self, buffer: PooledBuf) {
        debug_assert!(self.fresh.is_none(), "there is input already");
        self.fresh = Some((buffer, 0));
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How much of the next record is not there: of its header, or of its body.
    pub(super) fn missing(&self) -> usize {
        let header = Header::parse(&self.partial);
        let len = header.ok().flatten().map_or(HEADER, |header| header.record_len());
        len.saturating_sub(self.partial.len()).max(1)
    }

    /// Whether everything that came was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.fresh.is_none()
    }

    /// The next record's header, if all of the record is there.
    pub(super) fn peek(&mut self) -> Result<Option<Header>, Violation> {
        if self.partial.is_empty() {
            let rest = self.rest();
            if let Some(header) = Header::parse(rest)?
                && rest.len() >= header.record_len()
            {
                return Ok(Some(header));
            }
        }
        self.top_up(HEADER);
        let Some(header) = Header::parse(&self.partial)? else { return Ok(None) };
        self.top_up(header.record_len());
        Ok((self.partial.len() == header.record_len()).then_some(header))
    }

    /// Takes the record that [`Self::peek`] has found.
    pub(super) fn take<R>(&mut self, header: &Header, read: impl FnOnce(&[u8]) -> R) -> R {
        if self.partial.is_empty() {
            let result = read(&self.rest()[..header.record_len()]);
            self.use_up(header.record_len());
            return result;
        }
        let result = read(&self.partial);
        // An idle connection holds no memory; a busy one uses it again.
        if self.fresh.is_some() {
            self.partial.clear();
        } else {
            self.partial = Vec::new();
        }
        result
    }

    /// Takes all there is, record or not.
    pub(super) fn take_all(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(self.rest());
        self.fresh = None;
        all
    }

    fn rest(&self) -> &[u8] {
        self.fresh.as_ref().map_or(&[], |(buffer, used)| &buffer[*used..])
    }

    /// Makes the partial record `len` bytes long, if that much is there.
    fn top_up(&mut self, len: usize) {
        let Some((buffer, used)) = &self.fresh else { return };
        let missing = len.saturating_sub(self.partial.len()).min(buffer.len() - used);
        self.partial.extend_from_slice(&buffer[*used..][..missing]);
        self.use_up(missing);
    }

    fn use_up(&mut self, len: usize) {
        if let Some((buffer, used)) = &mut self.fresh {
            *used += len;
            if *used == buffer.len() {
                self.fresh = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::Pool;
    use proptest::prelude::*;

    proptest! {
        /// However a stream of records is cut, the same records come out, and
        /// no more is held than one of them.
        #[test]
        fn records_are_found_however_they_come(
            lens in prop::collection::vec(0..300_usize, 1..8),
            cuts in prop::collection::vec(1..200_usize, 1..6),
        ) {
            let mut stream = Vec::new();
            for len in &lens {
                stream.extend_from_slice(&[23, 3, 3, (len >> 8) as u8, *len as u8]);
                stream.resize(stream.len() + len, *len as u8);
            }
            let pool = Pool::new(1024, 1);
            let mut input = Input::default();
            let mut found = Vec::new();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = stream.len().min(at + cuts.next().unwrap());
                let mut buffer = pool.take();
                buffer.fill_from(&stream[at..end]);
                at = end;
                input.add(buffer);
                while let Some(header) = input.peek().unwrap() {
                    found.push(input.take(&header, |record| record.len() - HEADER));
                }
                prop_assert!(input.fresh.is_none());
            }
            prop_assert_eq!(found, lens);
            prop_assert!(input.partial.is_empty());
        }
    }
}
