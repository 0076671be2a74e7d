//! Where payload lies on the wire when the kernel seals it.

use crate::{MAX_RECORD_CONTENT, PlainOffset, RecordKind, RecordMap, WireOffset};

/// Up to where the kernel began to seal, payload and wire offsets are the same.
#[derive(Debug)]
pub(super) struct Framing {
    map: RecordMap,
    /// Where that was.
    base: u64,
    /// Bytes that a record is longer than its content.
    overhead: u64,
    /// Closed records behind the map's end, while one is open behind them.
    unplaced: Option<u64>,
}

impl Framing {
    pub(super) fn new(base: u64, overhead: u64) -> Self {
        let map = RecordMap::new(PlainOffset::new(base), WireOffset::new(base));
        Self { map, base, overhead, unplaced: None }
    }

    /// Payload up to `to` is in closed records, `records` more of them.
    pub(super) fn sealed(&mut self, to: u64, records: u64) {
        self.unplaced = None;
        let content = to.saturating_sub(self.map.plain_sealed().get());
        self.map.sealed_by_kernel(content, records, self.overhead);
    }

    /// Behind the payload that is in closed records, `records` more of them were
    /// closed, and another one is open.
    pub(super) fn left_open(&mut self, records: u64) {
        self.unplaced = Some(records);
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
        if let Some(records) = self.unplaced
            && wire > self.wire_to()
        {
            // Each of them may end before, and the last may have come in part.
            let framing = (records + 1) * self.overhead + MAX_RECORD_CONTENT as u64;
            let beyond = (wire - self.wire_to()).saturating_sub(framing);
            return (self.map.plain_sealed().get() + beyond, false);
        }
        let plain = self.map.plain_end(WireOffset::new(wire));
        let ends = self.map.wire_end(plain).is_some_and(|end| end.get() == wire);
        (plain.get(), ends)
    }

    /// Nothing is asked any more of payload before `plain`.
    pub(super) fn forget_payload(&mut self, plain: u64) {
        self.map.forget_payload(PlainOffset::new(plain));
    }

    /// The peer has everything before `wire`.
    pub(super) fn forget(&mut self, wire: u64) {
        self.map.forget(WireOffset::new(wire));
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Call, ConnectionId, Ledger, LedgerLimits, Look, Method, Moment, Outbox, Payload,
        StageEvidence, StageSupport, Time, Watch, WireOffset,
    };

    fn sealed_by_kernel(evidence: StageEvidence) -> (Ledger, Outbox) {
        let stages = StageSupport { transmitted: evidence, acked: evidence };
        let limits = LedgerLimits { memory: u64::MAX, transfers: 10 };
        let mut ledger = Ledger::new(ConnectionId::new(0, 0), stages, limits);
        ledger.kernel_seals(22);
        (ledger, Outbox::default())
    }

    /// One transfer, in a record of its own.
    fn send_unwatched(ledger: &mut Ledger, len: u64, out: &mut Outbox) {
        let call = Call { method: Method::Copy, began: Time::default(), stamped: false };
        let payload = Payload::from(vec![0; usize::try_from(len).unwrap()]);
        ledger.submit(payload, Watch::NONE, out).unwrap();
        ledger.accepted(len, call, Moment::default(), out);
        ledger.sealed(1);
    }

    /// Without a watch nobody asks what was acknowledged, and the records of what
    /// was sent are not kept all the same.
    #[test]
    fn records_of_what_nobody_watches_are_forgotten() {
        let (mut ledger, mut out) = sealed_by_kernel(StageEvidence::Unavailable);
        for len in 1..500 {
            send_unwatched(&mut ledger, len, &mut out);
            ledger.control_sealed(len);
        }
        let framing = ledger.framing.as_ref().unwrap();
        assert!(framing.map.entries() <= 2, "{} entries", framing.map.entries());
        assert_eq!(framing.wire_to(), 2 * (499 * 250 + 499 * 22));
    }

    /// A peer is slow, not stalled, while it acknowledges what nobody waits for:
    /// its records are forgotten long before, and progress is still seen.
    #[test]
    fn progress_is_seen_in_what_nobody_watches() {
        const IN_FLIGHT: u64 = 10;
        const LEN: u64 = 1000;
        let (mut ledger, mut out) = sealed_by_kernel(StageEvidence::Bracketed);
        let mut progress = 0;
        for n in 1..50 {
            send_unwatched(&mut ledger, LEN, &mut out);
            if n > IN_FLIGHT {
                let acked = Some(WireOffset::new((n - IN_FLIGHT) * (LEN + 22)));
                let (began, at) = (Time::default(), Moment::default());
                ledger.looked(Look { acked, transmitted: None, began, at }, &mut out);
                let before = std::mem::replace(&mut progress, ledger.acked_to().get());
                assert!(progress > before, "none after {n} transfers");
            }
        }
    }

    /// While every call leaves a record open nothing is known of where records end,
    /// and still how much of a transfer that fails the peer had, to a record or two
    /// and all the framing: never more than is true.
    #[test]
    fn what_the_peer_has_of_open_ends_is_counted() {
        const OVERHEAD: u64 = 22;
        const MAX: u64 = 1 << 14;
        let mut random = 1_u64;
        let mut below = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % most
        };
        for round in 0..2000 {
            let mut framing = super::Framing::new(0, OVERHEAD);
            // Ends of the closed records: payload, wire.
            let (mut ends, mut records) = (vec![(0, 0)], 0);
            for _ in 0..=below(60) {
                let content = if round % 2 == 0 { MAX } else { 1 + below(MAX) };
                let (plain, wire) = ends[ends.len() - 1];
                ends.push((plain + content, wire + content + OVERHEAD));
                records += 1;
                framing.left_open(records);
            }
            let (_, end) = ends[ends.len() - 1];
            let acked = below(end + 1);
            let whole = ends.iter().rev().find(|(_, wire)| *wire <= acked).unwrap().0;
            let (known, ends_there) = framing.payload_before(acked);
            assert!(known <= whole && !ends_there, "{known} of {whole}");
            let unknown = (records + 2) * OVERHEAD + 2 * MAX;
            assert!(known + unknown >= whole, "only {known} of {whole}");
            // Once the last is closed all is known.
            framing.sealed(ends[ends.len() - 1].0, records);
            assert_eq!(framing.payload_before(end), (ends[ends.len() - 1].0, true));
        }
    }

    /// Which records one call was sealed in is not known one by one, so none of it is
    /// delivered before all of it; that the peer goes on taking it is seen before.
    #[test]
    fn progress_is_seen_within_a_call() {
        const LEN: u64 = 1 << 20;
        const RECORDS: u64 = LEN >> 14;
        let evidence = StageEvidence::Bracketed;
        let stages = StageSupport { transmitted: evidence, acked: evidence };
        let limits = LedgerLimits { memory: u64::MAX, transfers: 10 };
        let mut ledger = Ledger::new(ConnectionId::new(0, 0), stages, limits);
        ledger.kernel_seals(22);
        let mut out = Outbox::default();
        ledger.submit(Payload::from(vec![0; 1 << 20]), Watch::ACKED, &mut out).unwrap();
        let call = Call { method: Method::Copy, began: Time::default(), stamped: false };
        ledger.accepted(LEN, call, Moment::default(), &mut out);
        ledger.sealed(RECORDS);
        let end = ledger.wire_to().get();
        assert_eq!(end, LEN + 22 * RECORDS);
        for acked in [1, 1000, end / 2, end - 1, end] {
            let (began, at) = (Time::default(), Moment::default());
            let acked = WireOffset::new(acked);
            ledger.looked(Look { acked: Some(acked), transmitted: None, began, at }, &mut out);
            assert_eq!(ledger.wire_acked_to(), acked);
            let whole = if acked.get() == end { LEN } else { 0 };
            assert_eq!(ledger.acked_to().get(), whole);
        }
        // What is known stays known.
        let (began, at) = (Time::default(), Moment::default());
        let late = Some(WireOffset::new(1));
        ledger.looked(Look { acked: late, transmitted: None, began, at }, &mut out);
        assert_eq!(ledger.wire_acked_to().get(), end);
    }
}
