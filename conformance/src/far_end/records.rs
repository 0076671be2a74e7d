//! A peer's own account of which bytes of the wire held which of the stream.

/// Counts both, and keeps where each record ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    /// Bytes of the stream in whole records.
    stream: u64,
    /// Bytes of the wire, the handshake's and begun records' too.
    wire: u64,
    /// Where records ended: in the stream, on the wire. None without TLS.
    ends: Vec<(u64, u64)>,
}

impl Records {
    /// Bytes that are both the stream's and the wire's.
    pub(super) fn plain(&mut self, bytes: usize) {
        self.stream += bytes as u64;
        self.wire += bytes as u64;
    }

    /// Bytes of a record were read.
    pub(crate) fn wire(&mut self, bytes: usize) {
        self.wire += bytes as u64;
    }

    /// The record that ends here has `content` bytes of the stream in it.
    pub(crate) fn ended(&mut self, content: usize) {
        self.stream += content as u64;
        self.ends.push((self.stream, self.wire));
    }

    /// Bytes of the wire that were read.
    pub(crate) fn wire_read(&self) -> u64 {
        self.wire
    }

    /// Bytes of the wire up to the last byte of the record that holds the last
    /// of the stream's first `bytes`; `None` if it was not read yet.
    pub(crate) fn wire_end(&self, bytes: u64) -> Option<u64> {
        if self.ends.is_empty() {
            return Some(bytes);
        }
        let n = self.ends.partition_point(|(stream, _)| *stream < bytes);
        self.ends.get(n).map(|(_, wire)| *wire)
    }

    /// Bytes of the stream in records that lie wholly in the wire's first
    /// `bytes`.
    pub(crate) fn stream_in(&self, bytes: u64) -> u64 {
        if self.ends.is_empty() {
            return bytes;
        }
        let n = self.ends.partition_point(|(_, wire)| *wire <= bytes);
        n.checked_sub(1).map_or(0, |last| self.ends[last].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_when_it_is_whole() {
        let mut records = Records::default();
        for content in [0, 100, 50, 0] {
            records.wire(10 + content);
            records.ended(content);
        }
        records.wire(3);
        assert_eq!(records.wire_read(), 193);
        assert_eq!(records.wire_end(1), Some(120));
        assert_eq!(records.wire_end(100), Some(120));
        assert_eq!(records.wire_end(101), Some(180));
        assert_eq!(records.wire_end(151), None);
        assert_eq!((records.stream_in(119), records.stream_in(120)), (0, 100));
    }

    #[test]
    fn without_tls_they_are_the_same() {
        let mut records = Records::default();
        records.plain(7);
        assert_eq!((records.wire_end(5), records.stream_in(5)), (Some(5), 5));
        assert_eq!(records.wire_read(), 7);
    }
}
