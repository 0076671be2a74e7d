//! The state machine of one connection: facts in, completions out.

mod fact;
mod framing;
mod queue;
mod stages;
mod transfer;

use crate::payload::Place;
use crate::{
    ClockMap, Completion, ConnectionId, Evidence, FailReason, Failure, Limit, Memory, Method,
    Moment, Outbox, Part, Payload, Reached, RefuseReason, Refused, StageEvidence, StageSupport,
    StampKeys, Time, TransferId, Transport, Watch, WireOffset,
};
pub use fact::{Call, Look, Stamp, StampOf};
use framing::Framing;
use queue::Queue;
use std::collections::VecDeque;
use transfer::Transfer;

/// How much a ledger may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerLimits {
    /// Unreleased bytes of payload memory; one payload is always taken.
    pub memory: u64,
    /// Unfinished transfers.
    pub transfers: usize,
}

/// The rest of the transfer that is next to be written.
#[derive(Debug)]
pub struct Unsent<'a> {
    /// The transfer.
    pub transfer: TransferId,
    /// Its whole payload.
    pub payload: &'a Payload,
    /// Bytes of it that the kernel has already.
    pub offset: u64,
    /// Bytes of it that remain.
    pub len: u64,
    /// Whether a stamp on its last byte is of use.
    pub wants_stamp: bool,
    /// Whether a stamp of its transmission is of use.
    pub wants_transmit_stamp: bool,
    place: Place,
}

impl<'a> Unsent<'a> {
    /// What remains of the payload. As [`Payload::remaining`], but takes no longer
    /// however many segments are written already.
    pub fn remaining(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        self.payload.remaining_from(self.place, self.offset)
    }
}

/// Turns facts into completions (contract C1 to C5, C7).
///
/// A fact may come late, twice, or not at all; the ledger only ever moves
/// forward. Whoever feeds it is bound to three things: facts are true, bytes
/// are given to the kernel in the order of [`Ledger::unsent`], and
/// [`Ledger::fail`] is called when the connection is over. A call that is still
/// in flight then (on a ring) has to be reaped first: the kernel reads its
/// memory, and the ledger does not know of it yet.
///
/// Dropping a ledger leaks the memory that the kernel still references, because
/// freeing it would put other data on the wire.
#[derive(Debug)]
pub struct Ledger {
    connection: ConnectionId,
    transport: Transport,
    /// Where the kernel seals what it accepts: offsets here are then payload's,
    /// and facts speak of the wire.
    framing: Option<Box<Framing>>,
    support: StageSupport,
    limits: LedgerLimits,
    keys: StampKeys,
    /// Unfinished transfers, in submission order.
    transfers: Queue<Transfer>,
    /// Number of the first of them.
    first: u64,
    /// Numbers of the first transfer that is not queued, transmitted, acked.
    queued: u64,
    transmitted: u64,
    acked: u64,
    /// Wire offsets: of all that was submitted, that the kernel accepted, that
    /// it is known to have transmitted, that the peer is known to have.
    submitted_to: u64,
    accepted_to: u64,
    transmitted_to: u64,
    acked_to: u64,
    /// The same in bytes of the wire.
    wire_acked_to: u64,
    /// The segment that is to be written next, of the transfer whose turn it is.
    place: Place,
    /// When the newest acknowledged transfer was.
    acked_at: Time,
    /// Zero-copy calls from the oldest that is not done, and its kernel id.
    calls: VecDeque<ZeroCopyCall>,
    first_call: u32,
    /// When a look last began that told of acknowledgement, of transmission.
    looked_for_ack: Time,
    looked_for_transmit: Time,
    ended: bool,
}

#[derive(Debug)]
struct ZeroCopyCall {
    start: u64,
    end: u64,
    done: bool,
}

impl Ledger {
    /// The ledger of a connection that was just attached.
    #[must_use]
    pub fn new(connection: ConnectionId, support: StageSupport, limits: LedgerLimits) -> Self {
        Self {
            connection,
            transport: Transport::Plain,
            framing: None,
            support,
            limits,
            keys: StampKeys::from_base(0),
            transfers: Queue::new(),
            first: 0,
            queued: 0,
            transmitted: 0,
            acked: 0,
            submitted_to: 0,
            accepted_to: 0,
            transmitted_to: 0,
            acked_to: 0,
            place: Place::default(),
            wire_acked_to: 0,
            acked_at: Time::default(),
            calls: VecDeque::new(),
            first_call: 0,
            looked_for_ack: Time::default(),
            looked_for_transmit: Time::default(),
            ended: false,
        }
    }

    /// The same, with the kernel's counters where they really stand.
    #[must_use]
    pub fn with_kernel_counters(mut self, keys: StampKeys, next_zero_copy: u32) -> Self {
        self.kernel_counts_from(keys, next_zero_copy);
        self
    }

    /// The same for a ledger that nothing was accepted of, because its connection was
    /// still to be made.
    pub fn kernel_counts_from(&mut self, keys: StampKeys, next_zero_copy: u32) {
        debug_assert_eq!(self.accepted_to, 0, "the kernel has begun to count");
        (self.keys, self.first_call) = (keys, next_zero_copy);
    }

    /// Later stages rest on this, and not on what was announced: for a connection that
    /// has only now been made.
    pub fn rests_on(&mut self, support: StageSupport) {
        debug_assert_eq!(self.accepted_to, 0, "stages were told already");
        self.support = support;
    }

    /// Enters a transfer behind all others.
    ///
    /// # Errors
    /// Gives the payload back if it is empty, the connection is over, or a
    /// limit is reached.
    pub fn submit(
        &mut self,
        payload: Payload,
        watch: Watch,
        out: &mut Outbox,
    ) -> Result<TransferId, Refused<Payload>> {
        if let Err(reason) = self.admit(&payload, out) {
            return Err(Refused::new(payload, reason));
        }
        out.counters.unreleased_bytes += payload.memory_len();
        let transfer = Transfer::new(self.submitted_to, payload, watch);
        self.submitted_to = transfer.end;
        let number = self.first + self.transfers.len() as u64;
        self.transfers.push_back(transfer);
        Ok(TransferId::new(number))
    }

    /// What to write next.
    #[must_use]
    pub fn unsent(&self) -> Option<Unsent<'_>> {
        if self.ended {
            return None;
        }
        let transfer = self.transfers.get(self.index(self.queued))?;
        let payload = transfer.payload.as_ref()?;
        let offset = self.accepted_to - transfer.start;
        let stamps = self.support.acked == StageEvidence::Kernel;
        Some(Unsent {
            transfer: TransferId::new(self.queued),
            payload,
            offset,
            len: transfer.end - self.accepted_to,
            wants_stamp: stamps
                && (transfer.watch.contains(Watch::ACKED)
                    || transfer.watch.contains(Watch::TRANSMITTED)),
            wants_transmit_stamp: stamps && transfer.watch.contains(Watch::TRANSMITTED),
            place: self.place,
        })
    }

    /// Fact: the kernel took the next `bytes` bytes in one call.
    pub fn accepted(&mut self, bytes: u64, call: Call, now: Moment, out: &mut Outbox) {
        let start = self.accepted_to;
        let end = (start + bytes).min(self.submitted_to);
        debug_assert_eq!(end, start + bytes, "the kernel took more than was submitted");
        self.accepted_to = end;
        out.counters.bytes[crate::Counters::slot(call.method)] += end - start;
        let from = self.index(self.queued);
        for transfer in self.transfers.iter_mut().skip(from).take_while(|t| t.start < end) {
            if start <= transfer.start {
                transfer.opened = call.began;
            }
            transfer.began = call.began;
            transfer.moved(transfer.share(start, end), call.method);
            transfer.stamped |= call.stamped && transfer.end == end;
            match call.method {
                Method::ZeroCopy => {
                    if transfer.pins == 0 {
                        out.counters.pinned_bytes += transfer.memory();
                    }
                    transfer.pins += 1;
                }
                Method::Sendfile | Method::Splice => transfer.file_pinned = true,
                _ => {}
            }
        }
        if call.method == Method::ZeroCopy {
            self.calls.push_back(ZeroCopyCall { start, end, done: false });
        }
        let writing = self.queued;
        self.advance_queued(now, out);
        if self.queued != writing {
            self.place = Place::default();
        }
        self.advance_place();
        self.forget_finished();
    }

    /// Notes the segment that is to be written next.
    fn advance_place(&mut self) {
        let writing = self.index(self.queued);
        if let Some(transfer) = self.transfers.get(writing)
            && let Some(payload) = &transfer.payload
        {
            self.place.advance(payload, self.accepted_to - transfer.start);
        }
    }

    /// Fact: what the kernel accepts from now on it seals, in TLS records that
    /// are `overhead` bytes longer than their content. Everything accepted before
    /// is on the wire as it was.
    ///
    /// Each [`Ledger::accepted`] is then to be followed by [`Ledger::sealed`] if no
    /// record is open, and else by [`Ledger::left_open`]; what facts say of the wire
    /// is brought to the payload's ends by the records' ends, and never to the early
    /// side.
    pub fn kernel_seals(&mut self, overhead: u64) {
        self.transport = Transport::KernelTls;
        self.framing = Some(Box::new(Framing::new(self.accepted_to, overhead)));
    }

    /// Fact: everything accepted is in closed records, `records` more of them
    /// than the last time.
    pub fn sealed(&mut self, records: u64) {
        if let Some(framing) = &mut self.framing {
            framing.sealed(self.accepted_to, records);
        }
        self.forget_finished();
    }

    /// Fact: of what was accepted since [`Ledger::sealed`] the end is in a record that
    /// is still open, the rest in `records` closed ones. Where those end is not
    /// known; how much of their payload the peer has at the least is.
    pub fn left_open(&mut self, records: u64) {
        if let Some(framing) = &mut self.framing {
            framing.left_open(records);
        }
    }

    /// Fact: behind everything accepted the kernel has sealed a record of
    /// `content` bytes that are no payload.
    pub fn control_sealed(&mut self, content: u64) {
        if let Some(framing) = &mut self.framing {
            framing.control_sealed(content);
        }
    }

    /// Where on the wire everything that was accepted ends, as far as it is in
    /// closed records.
    #[must_use]
    pub fn wire_to(&self) -> WireOffset {
        let framed = self.framing.as_ref().map(|framing| framing.wire_to());
        WireOffset::new(framed.unwrap_or(self.accepted_to))
    }

    /// Fact: the kernel is done with the memory of the zero-copy calls `first`
    /// to `last` (both included, and they wrap), and had `copied` it or not.
    /// Says how many calls that was news about.
    pub fn zero_copy_done(
        &mut self,
        first: u32,
        last: u32,
        copied: bool,
        now: Moment,
        out: &mut Outbox,
    ) -> u32 {
        // Distances from the oldest call, as serial numbers: negative means
        // that the kernel repeats itself.
        let from = i64::from(first.wrapping_sub(self.first_call).cast_signed());
        let to = from + i64::from(last.wrapping_sub(first));
        let mut news = 0;
        for n in from.max(0)..(to + 1).min(self.calls.len() as i64) {
            news += u32::from(self.call_done(usize::try_from(n).unwrap_or(0), copied, now, out));
        }
        while self.calls.front().is_some_and(|call| call.done) {
            self.calls.pop_front();
            self.first_call = self.first_call.wrapping_add(1);
        }
        self.forget_finished();
        news
    }

    /// Fact: the kernel stamped a byte. A stamp also stands for every byte
    /// before it.
    pub fn stamped(&mut self, stamp: Stamp, clock: &ClockMap, now: Moment, out: &mut Outbox) {
        let Some(end) = self.keys.end(stamp.key, self.wire_to()) else {
            return;
        };
        let wire = end.get();
        let (end, is_an_end) = self.payload_before(wire);
        let n = self.transfers.partition_point(|t| t.end < end);
        let began = self.transfers.get(n).map_or(Time::default(), |t| t.not_before(end));
        let dated = clock.monotonic(stamp.at, began, now.monotonic);
        out.counters.stamps_undated += u64::from(dated.is_none());
        let (at, exact) = match dated {
            Some(at) => (at, is_an_end.then_some(end)),
            None => (now, None),
        };
        match stamp.of {
            StampOf::Transmitted => self.advance_transmitted(end, at, exact, out),
            StampOf::Acked => {
                self.wire_acked_to = self.wire_acked_to.max(wire);
                self.advance_acked(end, at, exact, out);
                self.forget_records(wire);
            }
        }
        self.forget_finished();
    }

    /// Fact: what the socket's own account shows. Makes up for stamps that were
    /// lost, and stands in for them where the kernel has none.
    pub fn looked(&mut self, look: Look, out: &mut Outbox) {
        if let Some(to) = look.transmitted.map(WireOffset::get) {
            self.advance_transmitted(self.payload_before(to).0, look.at, None, out);
            // A look past what is known to be accepted has seen bytes whose
            // transfers are still to come: for them it is no lower bound.
            if to <= self.wire_to().get() {
                self.looked_for_transmit = look.began;
            }
        }
        if let Some(to) = look.acked.map(WireOffset::get) {
            let before = self.acked;
            self.wire_acked_to = self.wire_acked_to.max(to);
            self.advance_acked(self.payload_before(to).0, look.at, None, out);
            self.count_recovered(before, out);
            if to <= self.wire_to().get() {
                self.looked_for_ack = look.began;
            }
            self.forget_records(to);
        }
        self.forget_finished();
    }

    /// Fact: the connection is over. `last` is a final look, where there is
    /// one. What it shows as acknowledged is; everything else fails.
    pub fn fail(&mut self, reason: &FailReason, last: Option<Look>, now: Moment, out: &mut Outbox) {
        if self.ended {
            return;
        }
        if let Some(look) = last {
            self.looked(look, out);
        }
        self.ended = true;
        for n in 0..self.transfers.len() {
            let transfer = &mut self.transfers[n];
            transfer.file_pinned = false;
            if !transfer.concluded {
                transfer.concluded = true;
                let acked_bytes = transfer.share(0, self.acked_to);
                let failure = Failure { reason: reason.clone(), acked_bytes };
                let after = self.looked_for_ack.max(self.transfers[n].began);
                let evidence = Evidence::Bracketed { after };
                self.report(n, Reached::Failed(failure), now, evidence, out);
            }
            self.release_if_free(n, now, out);
        }
        self.forget_finished();
    }

    /// Fact: nothing more will be heard of memory that the kernel still has.
    /// It is leaked. For a connection that is over.
    pub fn abandon(&mut self, now: Moment, out: &mut Outbox) {
        debug_assert!(self.ended, "memory is only given up after the connection");
        for n in 0..self.transfers.len() {
            let Some(payload) = self.transfers[n].payload.take() else {
                continue;
            };
            let bytes = payload.memory_len();
            std::mem::forget(payload);
            self.transfers[n].pins = 0;
            out.counters.leaked_bytes += bytes;
            out.counters.pinned_bytes -= bytes;
            out.counters.unreleased_bytes -= bytes;
            let evidence = Evidence::Unavailable;
            self.report(n, Reached::Released(Memory::Leaked { bytes }), now, evidence, out);
        }
        self.calls.clear();
        self.forget_finished();
    }

    /// Bytes that the kernel has accepted.
    #[must_use]
    pub fn accepted_to(&self) -> WireOffset {
        WireOffset::new(self.accepted_to)
    }

    /// Bytes that were submitted.
    #[must_use]
    pub fn submitted_to(&self) -> WireOffset {
        WireOffset::new(self.submitted_to)
    }

    /// Bytes that the peer is known to have acknowledged. Where the kernel seals,
    /// transfers that are over count as a whole once anything was acknowledged:
    /// where their records end is forgotten with them.
    #[must_use]
    pub fn acked_to(&self) -> WireOffset {
        WireOffset::new(self.acked_to)
    }

    /// Up to where the peer is known to have acknowledged the wire, an end of the
    /// stream included. It moves with every byte that the peer takes, where
    /// [`Self::acked_to`] stands still until a record, or all that the kernel sealed
    /// in one call, is whole.
    #[must_use]
    pub fn wire_acked_to(&self) -> WireOffset {
        WireOffset::new(self.wire_acked_to)
    }

    /// Whether the kernel has accepted everything.
    #[must_use]
    pub fn is_all_accepted(&self) -> bool {
        self.accepted_to == self.submitted_to
    }

    /// Whether no transfer is unfinished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty()
    }

    /// Unfinished transfers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transfers.len()
    }

    /// Whether a transfer is fully accepted when the next `bytes` are.
    #[must_use]
    pub fn completes_with(&self, bytes: u64) -> bool {
        let next = self.transfers.get(self.index(self.queued));
        next.is_some_and(|transfer| self.accepted_to + bytes >= transfer.end)
    }

    /// Whether the kernel references memory of a zero-copy call.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Since when a fully queued transfer has been waiting to be acknowledged.
    #[must_use]
    pub fn awaiting_ack_since(&self) -> Option<Time> {
        let from = self.index(self.acked);
        let queued = self.index(self.queued);
        let mut waiting = self.transfers.iter().take(queued).skip(from);
        waiting.find(|t| t.awaits_ack()).map(|t| t.queued_at)
    }

    /// How much payload is whole before `wire`, and whether the last of it ends
    /// exactly there.
    fn payload_before(&self, wire: u64) -> (u64, bool) {
        self.framing.as_ref().map_or((wire, true), |framing| framing.payload_before(wire))
    }

    /// The peer has everything before `wire`.
    fn forget_records(&mut self, wire: u64) {
        if let Some(framing) = &mut self.framing {
            framing.forget(wire);
        }
    }

    /// Position in `transfers` of the transfer with this number.
    fn index(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    fn admit(&self, payload: &Payload, out: &Outbox) -> Result<(), RefuseReason> {
        if payload.is_empty() {
            return Err(RefuseReason::Empty);
        }
        if self.ended {
            return Err(RefuseReason::Closing);
        }
        // Room is left for the framing, where the kernel adds some.
        let end = self.submitted_to.checked_add(payload.len());
        if end.is_none_or(|end| end > u64::MAX / 4) {
            return Err(RefuseReason::TooLong);
        }
        if self.transfers.len() >= self.limits.transfers {
            return Err(RefuseReason::BackPressure {
                limit: Limit::ConnectionTransfers,
                outstanding: self.transfers.len() as u64,
                allowed: self.limits.transfers as u64,
            });
        }
        // Cheap test first: no connection can hold more than all of them.
        if out.counters.unreleased_bytes + payload.memory_len() > self.limits.memory {
            let outstanding: u64 = self.transfers.iter().map(Transfer::memory).sum();
            if outstanding > 0 && outstanding + payload.memory_len() > self.limits.memory {
                return Err(RefuseReason::BackPressure {
                    limit: Limit::ConnectionMemory,
                    outstanding,
                    allowed: self.limits.memory,
                });
            }
        }
        Ok(())
    }

    /// Counts the transfers from number `before` on that a look completed
    /// though a stamp had been asked for.
    fn count_recovered(&self, before: u64, out: &mut Outbox) {
        let range = self.index(before)..self.index(self.acked).min(self.transfers.len());
        let lost = self.transfers.iter().take(range.end).skip(range.start).filter(|t| t.stamped);
        out.counters.stamps_recovered += lost.count() as u64;
    }

    /// Says whether that was news.
    fn call_done(&mut self, n: usize, copied: bool, now: Moment, out: &mut Outbox) -> bool {
        let call = &mut self.calls[n];
        if std::mem::replace(&mut call.done, true) {
            return false;
        }
        let (start, end) = (call.start, call.end);
        let mut n = self.transfers.partition_point(|t| t.end <= start);
        while let Some(transfer) = self.transfers.get_mut(n).filter(|t| t.start < end) {
            if copied {
                transfer.refused(transfer.share(start, end));
            }
            transfer.pins -= 1;
            if transfer.pins == 0 {
                out.counters.pinned_bytes -= transfer.memory();
            }
            self.release_if_free(n, now, out);
            n += 1;
        }
        true
    }

    /// Gives the payload back if the kernel has no more use for it: it holds
    /// all bytes, or will never want the rest, and references none.
    fn release_if_free(&mut self, n: usize, now: Moment, out: &mut Outbox) {
        let complete = self.ended || self.first + (n as u64) < self.queued;
        let transfer = &mut self.transfers[n];
        if !complete || transfer.pins > 0 || transfer.file_pinned {
            return;
        }
        let after = transfer.began;
        let Some(payload) = transfer.payload.take() else {
            return;
        };
        out.counters.unreleased_bytes -= payload.memory_len();
        let released = Reached::Released(Memory::Returned(payload));
        self.report(n, released, now, Evidence::Bracketed { after }, out);
    }

    fn report(&self, n: usize, reached: Reached, at: Moment, evidence: Evidence, out: &mut Outbox) {
        out.complete(Completion {
            connection: self.connection,
            transfer: TransferId::new(self.first + n as u64),
            reached,
            at,
            evidence,
            method: self.transfers[n].method(),
            transport: self.transport,
        });
    }

    fn forget_finished(&mut self) {
        while self.transfers.first().is_some_and(Transfer::is_finished) {
            self.transfers.drop_first();
            self.first += 1;
        }
        if let Some(framing) = &mut self.framing {
            // Nothing is asked any more of what lies before, acknowledged or not.
            let wanted = self.transfers.first().map_or(self.accepted_to, |t| t.start);
            framing.forget_payload(wanted);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        for transfer in self.transfers.iter_mut() {
            if transfer.pins > 0 || transfer.file_pinned {
                std::mem::forget(transfer.payload.take());
            }
        }
    }
}
