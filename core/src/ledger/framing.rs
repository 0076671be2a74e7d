//! Where payload lies on the wire when the kernel seals it.

use crate::{PlainOffset, RecordKind, RecordMap, WireOffset};

/// Up to where the kernel began to seal, payload and wire offsets are the same.
#[derive(Debug)]
pub(super) struct Framing {
    map: RecordMap,
    /// Where that was.
    base: u64,
    /// Bytes that a record is longer than its content.
    overhead: u64,
}

impl Framing {
    pub(super) fn new(base: u64, overhead: u64) -> Self {
        let map = RecordMap::new(PlainOffset::new(base), WireOffset::new(base));
        Self { map, base, overhead }
    }

    /// Payload up to `to` is in closed records, `records` more of them.
    pub(super) fn sealed(&mut self, to: u64, records: u64) {
        let content = to.saturating_sub(self.map.plain_sealed().get());
        self.map.sealed_by_kernel(content, records, self.overhead);
    }

    pub(super) fn control_sealed(&mut self, content: u64) {
        self.map.sealed(RecordKind::Control, content, content + self.overhead);
    }

    pub(super) fn wire_to(&self) -> u64 {
        self.map.wire_sealed().get()
    }

    /// How much payload is whole before `wire`, and whether the last of it ends
    /// exactly there.
    pub(super) fn payload_before(&self, wire: u64) -> (u64, bool) {
        if wire <= self.base {
            return (wire, true);
        }
        let plain = self.map.plain_end(WireOffset::new(wire));
        let ends = self.map.wire_end(plain).is_some_and(|end| end.get() == wire);
        (plain.get(), ends)
    }

    /// The peer has everything before `wire`.
    pub(super) fn forget(&mut self, wire: u64) {
        self.map.forget(WireOffset::new(wire));
    }
}
