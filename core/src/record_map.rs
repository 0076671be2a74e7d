//! Where payload bytes lie on the wire when TLS frames them.

use crate::{PlainOffset, WireOffset};
use std::collections::VecDeque;

/// What a TLS record carries.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RecordKind {
    /// Payload bytes: they count as plaintext.
    Data,
    /// An alert, a ticket, a KeyUpdate: it takes room on the wire only.
    Control,
}

/// Maps between payload and wire positions of one direction of a TLS
/// connection.
///
/// The peer can open a record only when it has all of it, and so a payload byte
/// is delivered with the last byte of its record. Feed the map in the order in
/// which records are sealed:
/// - user TLS knows each record: [`Self::sealed`];
/// - kernel TLS splits as it likes and tells only how many records it made, so
///   their content is entered as one: [`Self::sealed_by_kernel`].
///
/// It never errs to the early side: within records that are not known one by
/// one, every byte counts as delivered with the last of them.
///
/// Memory: equal records in a row are one entry, so that 1 GiB in full records
/// is one or two; and what the peer has acknowledged is to be forgotten
/// ([`Self::forget`]), so that entries never outnumber the records in flight, and
/// with it what nobody will ask about ([`Self::forget_payload`]).
#[derive(Clone, Debug)]
pub struct RecordMap {
    /// Where the first run begins.
    start: Position,
    /// Where the last run ends.
    end: Position,
    runs: VecDeque<Run>,
}

/// A record boundary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Position {
    plain: u64,
    wire: u64,
}

/// Equal records in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: Position,
    /// Size of each.
    record: Position,
    count: u64,
}

impl Run {
    /// Where its `n`th record begins; the `count`th is its end.
    fn boundary(&self, n: u64) -> Position {
        Position {
            plain: self.start.plain + n * self.record.plain,
            wire: self.start.wire + n * self.record.wire,
        }
    }

    fn end(&self) -> Position {
        self.boundary(self.count)
    }
}

impl RecordMap {
    /// The map of a connection on which the next record's content and framing
    /// begin at these positions, handshake bytes counted on the wire.
    #[must_use]
    pub fn new(plain: PlainOffset, wire: WireOffset) -> Self {
        let start = Position { plain: plain.get(), wire: wire.get() };
        Self { start, end: start, runs: VecDeque::new() }
    }

    /// A record was sealed: `content` bytes in, `wire` bytes out, framing
    /// included.
    pub fn sealed(&mut self, kind: RecordKind, content: u64, wire: u64) {
        debug_assert!(wire > content, "a record is longer than its content");
        let plain = if kind == RecordKind::Data { content } else { 0 };
        let record = Position { plain, wire };
        let start = self.end;
        match self.runs.back_mut() {
            Some(last) if last.record == record => last.count += 1,
            _ => self.runs.push_back(Run { start, record, count: 1 }),
        }
        self.end = Position { plain: start.plain + plain, wire: start.wire + wire };
    }

    /// The kernel sealed `content` payload bytes in `records` records, each
    /// `overhead` bytes longer than its content
    /// ([`TlsCipher::record_overhead`](crate::TlsCipher::record_overhead)).
    ///
    /// `records` is by how much the kernel's record sequence number has grown
    /// since the last call, without control records; those are entered by
    /// [`Self::sealed`]. A record that is still open, because more was announced
    /// (`MSG_MORE`), is not counted by the kernel and must not be entered yet.
    pub fn sealed_by_kernel(&mut self, content: u64, records: u64, overhead: u64) {
        debug_assert!(records > 0 || content == 0, "content without a record");
        if records > 0 {
            self.sealed(RecordKind::Data, content, content + records * overhead);
        }
    }

    /// Forgets the records that the peer has acknowledged to the last byte,
    /// given that it has acknowledged everything before `acked`.
    pub fn forget(&mut self, acked: WireOffset) {
        let acked = acked.get();
        self.forget_whole(|run| acked.saturating_sub(run.start.wire) / run.record.wire);
    }

    /// Forgets the records that end before `plain` or there, acknowledged or not.
    /// One that holds payload on both sides of it is kept.
    pub fn forget_payload(&mut self, plain: PlainOffset) {
        let plain = plain.get();
        self.forget_whole(|run| {
            if run.end().plain <= plain {
                return run.count;
            }
            // Empty ones that lie beyond are kept.
            plain.saturating_sub(run.start.plain).checked_div(run.record.plain).unwrap_or(0)
        });
    }

    /// Forgets from the start as many records of each run as `whole` says.
    fn forget_whole(&mut self, whole: impl Fn(&Run) -> u64) {
        while let Some(run) = self.runs.front_mut() {
            let whole = whole(run);
            if whole < run.count {
                run.start = run.boundary(whole);
                run.count -= whole;
                self.start = run.start;
                return;
            }
            self.start = run.end();
            self.runs.pop_front();
        }
    }

    /// How far the wire must be acknowledged for the payload before `plain` to
    /// be delivered: just past the last byte of its last record. For what was
    /// forgotten, the end of that. `None` if not all of it was sealed yet.
    #[must_use]
    pub fn wire_end(&self, plain: PlainOffset) -> Option<WireOffset> {
        let plain = plain.get();
        if plain <= self.start.plain {
            return Some(WireOffset::new(self.start.wire));
        }
        // The first run that reaches as far holds the last byte, so its records
        // are not empty.
        let n = self.runs.partition_point(|run| run.end().plain < plain);
        let run = self.runs.get(n)?;
        let records = (plain - run.start.plain).div_ceil(run.record.plain);
        Some(WireOffset::new(run.boundary(records).wire))
    }

    /// How much payload is delivered when the wire is acknowledged up to
    /// `wire`: all of the records that end there or before. Never less than what
    /// was forgotten.
    #[must_use]
    pub fn plain_end(&self, wire: WireOffset) -> PlainOffset {
        let wire = wire.get();
        let n = self.runs.partition_point(|run| run.end().wire <= wire);
        let plain = self.runs.get(n).map_or(self.end.plain, |run| {
            let records = wire.saturating_sub(run.start.wire) / run.record.wire;
            run.boundary(records).plain
        });
        PlainOffset::new(plain)
    }

    /// Where the content of the next record begins.
    #[must_use]
    pub fn plain_sealed(&self) -> PlainOffset {
        PlainOffset::new(self.end.plain)
    }

    /// Where the next record begins on the wire.
    #[must_use]
    pub fn wire_sealed(&self) -> WireOffset {
        WireOffset::new(self.end.wire)
    }

    /// Entries held.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TlsCipher, TlsVersion};
    use proptest::prelude::*;

    const OVERHEAD: u64 = TlsCipher::Aes128Gcm.record_overhead(TlsVersion::Tls13);
    const FULL: u64 = 16_384;

    fn map() -> RecordMap {
        RecordMap::new(PlainOffset::new(0), WireOffset::new(0))
    }

    fn wire_end(map: &RecordMap, plain: u64) -> Option<u64> {
        map.wire_end(PlainOffset::new(plain)).map(WireOffset::get)
    }

    fn plain_end(map: &RecordMap, wire: u64) -> u64 {
        map.plain_end(WireOffset::new(wire)).get()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Seal {
            kind: RecordKind,
            content: u64,
        },
        /// Contents of the records, of which the kernel tells the sum.
        Kernel {
            contents: Vec<u64>,
        },
        /// Acknowledges and forgets this many 255ths of what is sealed.
        Forget {
            share: u8,
        },
        /// Forgets this many 255ths of the payload, acknowledged or not.
        ForgetPayload {
            share: u8,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few sizes, so that runs come about; empty records too.
        let content = || prop_oneof![4 => Just(5_u64), 2 => Just(2_u64), 1 => 0_u64..7];
        let kind = prop_oneof![4 => Just(RecordKind::Data), 1 => Just(RecordKind::Control)];
        prop_oneof![
            6 => (kind, content()).prop_map(|(kind, content)| Step::Seal { kind, content }),
            2 => prop::collection::vec(content(), 1..4)
                .prop_map(|contents| Step::Kernel { contents }),
            1 => any::<u8>().prop_map(|share| Step::Forget { share }),
            1 => any::<u8>().prop_map(|share| Step::ForgetPayload { share }),
        ]
    }

    /// Ends of records, one by one: (plain, wire, known).
    type Ends = Vec<(u64, u64, bool)>;

    /// Plays the steps on the map and on a list of all records.
    fn play(first: (u64, u64), steps: &[Step]) -> (RecordMap, Ends, u64) {
        let mut map = RecordMap::new(PlainOffset::new(first.0), WireOffset::new(first.1));
        let mut ends = vec![(first.0, first.1, true)];
        let mut forgotten = 0;
        for step in steps {
            let (plain, wire, _) = *ends.last().unwrap();
            match step {
                Step::Seal { kind, content } => {
                    let data = if *kind == RecordKind::Data { *content } else { 0 };
                    map.sealed(*kind, *content, content + OVERHEAD);
                    ends.push((plain + data, wire + content + OVERHEAD, true));
                }
                Step::Kernel { contents } => {
                    let content: u64 = contents.iter().sum();
                    map.sealed_by_kernel(content, contents.len() as u64, OVERHEAD);
                    for (n, content) in contents.iter().enumerate() {
                        let (plain, wire, _) = *ends.last().unwrap();
                        let last = n + 1 == contents.len();
                        ends.push((plain + content, wire + content + OVERHEAD, last));
                    }
                }
                Step::Forget { share } => {
                    let acked = first.1 + (wire - first.1) * u64::from(*share) / 255;
                    map.forget(WireOffset::new(acked));
                    forgotten = acked.max(forgotten);
                }
                Step::ForgetPayload { share } => {
                    let to = first.0 + (plain - first.0) * u64::from(*share) / 255;
                    map.forget_payload(PlainOffset::new(to));
                    // To the end of the last record that is known and whole.
                    let whole = ends.iter().rfind(|end| end.2 && end.0 <= to);
                    forgotten = whole.map_or(0, |end| end.1).max(forgotten);
                }
            }
        }
        (map, ends, forgotten)
    }

    proptest! {
        /// Both directions agree with a list of all records, for every position.
        #[test]
        fn every_position_maps_as_record_by_record(
            first in (0_u64..50, 0_u64..5_000),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let (map, ends, forgotten) = play(first, &steps);
            let known: Vec<_> = ends.iter().filter(|end| end.2).collect();
            let start = known.iter().rfind(|end| end.1 <= forgotten.max(first.1)).unwrap();
            let end = ends.last().unwrap();
            prop_assert_eq!((map.plain_sealed().get(), map.wire_sealed().get()), (end.0, end.1));
            for plain in first.0..=end.0 + 1 {
                let expected = if plain <= start.0 {
                    Some(start.1)
                } else {
                    known.iter().find(|end| end.0 >= plain).map(|end| end.1)
                };
                prop_assert_eq!(wire_end(&map, plain), expected, "plain {}", plain);
            }
            for wire in first.1..=end.1 + 1 {
                let expected = known.iter().rfind(|end| end.1 <= wire).unwrap().0;
                prop_assert_eq!(plain_end(&map, wire), expected.max(start.0), "wire {}", wire);
            }
        }

        /// Nothing counts as delivered before the last byte of the record it
        /// really is in has arrived, known or not.
        #[test]
        fn nothing_is_delivered_early(
            first in (0_u64..50, 0_u64..5_000),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let (map, ends, forgotten) = play(first, &steps);
            for wire in forgotten.max(first.1)..=ends.last().unwrap().1 {
                let plain = plain_end(&map, wire);
                let really = ends.iter().rfind(|end| end.1 <= wire).unwrap().0;
                prop_assert!(plain <= really, "{} of {} at {}", plain, really, wire);
                prop_assert!(wire_end(&map, plain).unwrap() <= wire, "there and back");
            }
        }

        /// Entries are bounded by the records in flight.
        #[test]
        fn acknowledged_records_are_forgotten(steps in prop::collection::vec(step(), 0..60)) {
            let (mut map, ends, forgotten) = play((0, 0), &steps);
            let in_flight = ends.iter().filter(|end| end.2 && end.1 > forgotten).count();
            prop_assert!(map.entries() <= in_flight);
            map.forget(map.wire_sealed());
            prop_assert_eq!(map.entries(), 0);
            prop_assert_eq!(map.wire_end(map.plain_sealed()), Some(map.wire_sealed()));
        }
    }

    #[test]
    fn a_gibibyte_takes_one_entry() {
        let mut map = map();
        let records = (1 << 30) / FULL;
        for _ in 0..records {
            map.sealed(RecordKind::Data, FULL, FULL + OVERHEAD);
        }
        assert_eq!(map.entries(), 1);
        assert_eq!(wire_end(&map, 1 << 30), Some((1 << 30) + records * OVERHEAD));
        assert_eq!(wire_end(&map, FULL + 1), Some(2 * (FULL + OVERHEAD)));
        map.forget(WireOffset::new((FULL + OVERHEAD) * 1_000 + 1));
        assert_eq!(map.entries(), 1);
        assert_eq!(plain_end(&map, (FULL + OVERHEAD) * 1_001), 1_001 * FULL);
    }

    /// As measured: 20 000 bytes and a full record make 3 records, and 100 000
    /// bytes of a file make 7.
    #[test]
    fn kernel_records_end_where_they_were_measured_to() {
        let overhead = TlsCipher::Aes128Gcm.record_overhead(TlsVersion::Tls12);
        let mut map = map();
        map.sealed_by_kernel(20_000 + FULL, 3, overhead);
        assert_eq!(wire_end(&map, 20_000 + FULL), Some(36_384 + 87));
        map.sealed_by_kernel(100_000, 7, overhead);
        assert_eq!(wire_end(&map, 136_384), Some(136_384 + 10 * overhead));
        map.sealed_by_kernel(0, 0, overhead);
        assert_eq!(map.entries(), 2);
    }

    #[test]
    fn control_records_move_only_the_wire() {
        let mut map = map();
        map.sealed(RecordKind::Data, 10, 10 + OVERHEAD);
        map.sealed(RecordKind::Control, 2, 2 + OVERHEAD);
        assert_eq!(wire_end(&map, 10), Some(10 + OVERHEAD), "an alert is not waited for");
        map.sealed(RecordKind::Data, 1, 1 + OVERHEAD);
        assert_eq!(wire_end(&map, 11), Some(13 + 3 * OVERHEAD));
        assert_eq!(wire_end(&map, 12), None, "not sealed yet");
    }
}
