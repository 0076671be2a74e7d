//! Which ciphertext is whose: turns the inner driver's completions of what was
//! sealed into completions of what was submitted.
//!
//! A transfer is sealed in segments, each of which is one transfer of the inner
//! driver; no segment has bytes of two transfers. So the last byte of a
//! transfer's ciphertext is the last byte of its last segment, whose stages are
//! the transfer's own, with the same evidence. The exception is `Released`: a
//! payload is nobody's any more as soon as it is sealed.

use super::context::Context;
use lastbyte::{
    Completion, ConnectionId, Event, Evidence, FailReason, Failure, Limit, Memory, Method, Moment,
    Payload, PlainOffset, Reached, RecordKind, RecordMap, RefuseReason, Refused, Time, TransferId,
    Transport, Watch, WireOffset,
};
use std::collections::VecDeque;

/// The peer's acknowledgement is asked for at least this often within a
/// transfer, so that one that fails can say how much of it had arrived.
const ACK_EVERY: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Transfers {
    connection: ConnectionId,
    max_memory: u64,
    max_transfers: usize,
    /// Not finished, in the order of submission.
    transfers: VecDeque<Transfer>,
    /// Number of the first of them, and of the first that is not all sealed.
    first: u64,
    sealing: u64,
    /// Payload bytes submitted, and sealed.
    submitted_to: u64,
    sealed_to: u64,
    /// Payload memory not released.
    memory: u64,
    /// What the inner driver was given and is not done with, in order.
    segments: VecDeque<Segment>,
    first_segment: u64,
    /// Where payload bytes are on the wire, as far as that is unacknowledged.
    map: RecordMap,
    acked_wire: u64,
    /// Payload bytes since an acknowledgement was last asked for.
    since_ack: u64,
    /// Buffers with the inner driver.
    in_flight: usize,
}

#[derive(Debug)]
struct Transfer {
    /// Payload offsets.
    start: u64,
    end: u64,
    /// Where on the wire it begins; not known before it is sealed.
    wire_start: Option<u64>,
    watch: Watch,
    /// `None` once sealed.
    payload: Option<Payload>,
    /// When sealing it began.
    opened: Time,
    concluded: bool,
    /// What moved the largest segment that was heard of.
    method: Method,
    largest: u64,
}

/// A transfer of the inner driver.
#[derive(Debug)]
struct Segment {
    /// Number of the transfer it is a part of; none if it is no payload.
    of: Option<u64>,
    /// It has that transfer's last byte.
    is_last: bool,
    /// Wire offsets.
    start: u64,
    end: u64,
    buffers: usize,
    /// The inner driver will say no more of it than that it is released.
    is_concluded: bool,
    is_released: bool,
    watch: Watch,
}

/// The next piece of a transfer to be sealed.
#[derive(Debug)]
pub(super) struct Unsealed<'a> {
    pub(super) payload: &'a Payload,
    /// Bytes of it that are sealed already.
    pub(super) offset: u64,
}

impl Transfers {
    pub(super) fn new(connection: ConnectionId, max_memory: u64, max_transfers: usize) -> Self {
        Self {
            connection,
            max_memory,
            max_transfers,
            transfers: VecDeque::new(),
            first: 0,
            sealing: 0,
            submitted_to: 0,
            sealed_to: 0,
            memory: 0,
            segments: VecDeque::new(),
            first_segment: 0,
            map: RecordMap::new(PlainOffset::default(), WireOffset::default()),
            acked_wire: 0,
            since_ack: 0,
            in_flight: 0,
        }
    }

    /// Enters a transfer behind all others. `elsewhere` are those that were handed
    /// on and are not finished.
    pub(super) fn submit(
        &mut self,
        payload: Payload,
        watch: Watch,
        elsewhere: usize,
        cx: &mut Context,
    ) -> Result<TransferId, Refused<Payload>> {
        if let Err(reason) = self.admit(&payload, elsewhere) {
            return Err(Refused::new(payload, reason));
        }
        let memory = payload.memory_len();
        self.memory += memory;
        cx.outbox.counters.unreleased_bytes += memory;
        let start = self.submitted_to;
        self.submitted_to += payload.len();
        let number = self.first + self.transfers.len() as u64;
        self.transfers.push_back(Transfer {
            start,
            end: self.submitted_to,
            wire_start: None,
            watch,
            payload: Some(payload),
            opened: Time::default(),
            concluded: false,
            method: Method::Copy,
            largest: 0,
        });
        Ok(TransferId::new(number))
    }

    /// What to seal next.
    pub(super) fn unsealed(&self) -> Option<Unsealed<'_>> {
        let transfer = self.transfers.get(self.index(self.sealing))?;
        let payload = transfer.payload.as_ref()?;
        Some(Unsealed { payload, offset: self.sealed_to - transfer.start })
    }

    /// Takes out the next transfer, of which nothing is sealed: somebody else
    /// makes it.
    pub(super) fn hand_on(&mut self, cx: &mut Context) -> Option<(Payload, Watch)> {
        let transfer = self.transfers.front_mut()?;
        let payload = transfer.payload.take()?;
        let watch = transfer.watch;
        self.memory -= payload.memory_len();
        cx.outbox.counters.unreleased_bytes -= payload.memory_len();
        Some((payload, watch))
    }

    /// It was not taken after all.
    pub(super) fn take_back(&mut self, payload: Payload, cx: &mut Context) {
        self.memory += payload.memory_len();
        cx.outbox.counters.unreleased_bytes += payload.memory_len();
        if let Some(transfer) = self.transfers.front_mut() {
            transfer.payload = Some(payload);
        }
    }

    /// The transfer that was taken out is somebody else's now. Says what it is
    /// called.
    pub(super) fn handed_on(&mut self) -> TransferId {
        let number = self.first;
        if let Some(transfer) = self.transfers.pop_front() {
            self.sealed_to = transfer.end;
        }
        self.first += 1;
        self.sealing = self.sealing.max(self.first);
        TransferId::new(number)
    }

    /// The next transfer is somebody else's from the start.
    pub(super) fn skip(&mut self) -> TransferId {
        debug_assert!(self.transfers.is_empty(), "others come first");
        self.handed_on()
    }

    /// Whether one more may be unfinished, with `elsewhere` of them handed on.
    pub(super) fn has_place(&self, elsewhere: usize) -> Result<(), RefuseReason> {
        // Cheap test first: some of them may be kept for the sake of their records alone.
        if self.transfers.len() + elsewhere < self.max_transfers {
            return Ok(());
        }
        let outstanding = self.transfers.iter().filter(|t| t.is_owed()).count() + elsewhere;
        if outstanding < self.max_transfers {
            return Ok(());
        }
        Err(RefuseReason::BackPressure {
            limit: Limit::ConnectionTransfers,
            outstanding: outstanding as u64,
            allowed: self.max_transfers as u64,
        })
    }

    /// Whether everything submitted is sealed.
    pub(super) fn is_all_sealed(&self) -> bool {
        self.unsealed().is_none()
    }

    /// The next payload bytes were sealed between `began` and `at`, into as many
    /// records as `records` has sizes, the content of each: one segment. Says what
    /// the inner driver has to be asked to watch.
    pub(super) fn sealed(
        &mut self,
        records: impl Iterator<Item = u64>,
        overhead: u64,
        began: Time,
        at: Moment,
        cx: &mut Context,
    ) -> Watch {
        let start = self.map.wire_sealed().get();
        let (mut content, mut buffers) = (0, 0);
        for record in records {
            self.map.sealed(RecordKind::Data, record, record + overhead);
            content += record;
            buffers += 1;
        }
        let number = self.sealing;
        let index = self.index(number);
        let transfer = &mut self.transfers[index];
        if self.sealed_to == transfer.start {
            (transfer.opened, transfer.wire_start) = (began, Some(start));
        }
        self.sealed_to += content;
        self.since_ack += content;
        cx.outbox.counters.sealed_bytes += content;
        let is_last = self.sealed_to == transfer.end;
        let mut watch = if is_last { transfer.watch } else { Watch::NONE };
        if transfer.watch.contains(Watch::ACKED) && self.since_ack >= ACK_EVERY {
            watch = watch | Watch::ACKED;
        }
        if watch.contains(Watch::ACKED) {
            self.since_ack = 0;
        }
        if is_last {
            self.sealing += 1;
            self.release(index, at, cx);
        }
        self.enter(Some(number), is_last, start, buffers, watch, cx);
        watch
    }

    /// `bytes` that are no payload go to the inner driver, in one buffer of the
    /// pool's or in none.
    pub(super) fn control(&mut self, bytes: u64, buffers: usize, cx: &mut Context) {
        let start = self.map.wire_sealed().get();
        self.map.sealed(RecordKind::Control, 0, bytes);
        self.enter(None, false, start, buffers, Watch::NONE, cx);
    }

    fn enter(
        &mut self,
        of: Option<u64>,
        is_last: bool,
        start: u64,
        buffers: usize,
        watch: Watch,
        cx: &mut Context,
    ) {
        let end = self.map.wire_sealed().get();
        self.in_flight += buffers;
        cx.outbox.counters.ciphertext_bytes += end - start;
        self.segments.push_back(Segment {
            of,
            is_last,
            start,
            end,
            buffers,
            is_concluded: false,
            is_released: false,
            watch,
        });
    }

    /// Buffers of sealed records that the inner driver has.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The inner driver tells of one of its transfers. `instead` is why the
    /// connection ends, where that is known better here.
    pub(super) fn completed(
        &mut self,
        completion: Completion,
        instead: Option<&FailReason>,
        cx: &mut Context,
    ) {
        let Completion { transfer, reached, at, evidence, method, .. } = completion;
        let index = transfer.number().wrapping_sub(self.first_segment);
        let Some(segment) = usize::try_from(index).ok().and_then(|n| self.segments.get_mut(n))
        else {
            return;
        };
        let (of, is_last, start, end) = (segment.of, segment.is_last, segment.start, segment.end);
        let last_watched = last_of(segment.watch);
        match &reached {
            Reached::Queued => segment.is_concluded |= last_watched == Watch::QUEUED,
            Reached::Transmitted => segment.is_concluded |= last_watched == Watch::TRANSMITTED,
            Reached::Acked | Reached::Failed(_) => segment.is_concluded = true,
            Reached::Released(_) => {
                segment.is_released = true;
                segment.is_concluded |= last_watched == Watch::NONE;
                self.in_flight -= segment.buffers;
                cx.outbox.counters.ciphertext_bytes -= end - start;
            }
        }
        if matches!(reached, Reached::Acked) {
            self.acknowledged(end);
        }
        // A transfer that has failed may be forgotten before its last segment.
        if let Some(n) = of.filter(|number| *number >= self.first).map(|n| self.index(n))
            && let Some(transfer) = self.transfers.get_mut(n)
        {
            if end - start >= transfer.largest {
                (transfer.largest, transfer.method) = (end - start, method);
            }
            match reached {
                Reached::Failed(failure) => {
                    // Without any of its own nothing is said of those before.
                    if failure.acked_bytes > 0 {
                        self.acknowledged(start + failure.acked_bytes);
                    }
                    let reason = instead.unwrap_or(&failure.reason).clone();
                    self.fail_one(n, reason, at, evidence, cx);
                }
                Reached::Released(_) => {
                    // All there is to be heard of one that is not watched.
                    transfer.concluded |= is_last && transfer.watch == Watch::NONE;
                }
                stage if is_last => self.reach(n, stage, at, evidence, cx),
                _ => {}
            }
        }
        self.forget_finished();
    }

    /// The connection is over: what has not ended fails, and what is not
    /// released is.
    pub(super) fn fail_all(&mut self, reason: &FailReason, at: Moment, cx: &mut Context) {
        self.fail_from(0, reason, at, cx);
        for segment in &mut self.segments {
            if !segment.is_released {
                cx.outbox.counters.ciphertext_bytes -= segment.end - segment.start;
            }
            (segment.is_concluded, segment.is_released) = (true, true);
        }
        self.in_flight = 0;
        self.forget_finished();
    }

    /// What is not all sealed fails and is released: it never will be.
    pub(super) fn fail_unsealed(&mut self, reason: &FailReason, at: Moment, cx: &mut Context) {
        let from = self.index(self.sealing);
        self.fail_from(from, reason, at, cx);
        self.sealing = self.first + self.transfers.len() as u64;
        self.sealed_to = self.submitted_to;
        self.forget_finished();
    }

    fn fail_from(&mut self, from: usize, reason: &FailReason, at: Moment, cx: &mut Context) {
        for n in from..self.transfers.len() {
            let evidence = Evidence::Bracketed { after: self.transfers[n].opened };
            self.fail_one(n, reason.clone(), at, evidence, cx);
            self.release(n, at, cx);
        }
    }

    fn admit(&self, payload: &Payload, elsewhere: usize) -> Result<(), RefuseReason> {
        if payload.is_empty() {
            return Err(RefuseReason::Empty);
        }
        // Records make it longer: by less than as much again and a record.
        if self.submitted_to.checked_add(payload.len()).is_none_or(|end| end > u64::MAX / 4) {
            return Err(RefuseReason::TooLong);
        }
        self.has_place(elsewhere)?;
        if self.memory > 0 && self.memory + payload.memory_len() > self.max_memory {
            return Err(RefuseReason::BackPressure {
                limit: Limit::ConnectionMemory,
                outstanding: self.memory,
                allowed: self.max_memory,
            });
        }
        Ok(())
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// The peer has the wire's bytes before `to`.
    fn acknowledged(&mut self, to: u64) {
        self.acked_wire = self.acked_wire.max(to);
    }

    fn reach(
        &mut self,
        n: usize,
        stage: Reached,
        at: Moment,
        evidence: Evidence,
        cx: &mut Context,
    ) {
        let transfer = &mut self.transfers[n];
        let which = match stage {
            Reached::Queued => Watch::QUEUED,
            Reached::Transmitted => Watch::TRANSMITTED,
            _ => Watch::ACKED,
        };
        if transfer.concluded || !transfer.watch.contains(which) {
            return;
        }
        transfer.concluded = last_of(transfer.watch) == which;
        self.report(n, stage, at, evidence, cx);
    }

    fn fail_one(
        &mut self,
        n: usize,
        reason: FailReason,
        at: Moment,
        evidence: Evidence,
        cx: &mut Context,
    ) {
        let acked = self.map.plain_end(WireOffset::new(self.acked_wire)).get();
        let transfer = &mut self.transfers[n];
        if transfer.concluded {
            return;
        }
        transfer.concluded = true;
        let acked_bytes = acked.min(transfer.end).saturating_sub(transfer.start);
        let failure = Failure { reason, acked_bytes };
        self.report(n, Reached::Failed(failure), at, evidence, cx);
    }

    fn release(&mut self, n: usize, at: Moment, cx: &mut Context) {
        let transfer = &mut self.transfers[n];
        let Some(payload) = transfer.payload.take() else { return };
        let evidence = Evidence::Bracketed { after: transfer.opened };
        self.memory -= payload.memory_len();
        cx.outbox.counters.unreleased_bytes -= payload.memory_len();
        self.report(n, Reached::Released(Memory::Returned(payload)), at, evidence, cx);
    }

    fn report(&self, n: usize, reached: Reached, at: Moment, evidence: Evidence, cx: &mut Context) {
        cx.outbox.push(Event::Transfer(Completion {
            connection: self.connection,
            transfer: TransferId::new(self.first + n as u64),
            reached,
            at,
            evidence,
            method: self.transfers[n].method,
            transport: Transport::UserTls,
        }));
    }

    fn forget_finished(&mut self) {
        while self.segments.front().is_some_and(|s| s.is_concluded && s.is_released) {
            self.segments.pop_front();
            self.first_segment += 1;
        }
        while self.transfers.front().is_some_and(|t| t.concluded && t.payload.is_none()) {
            self.transfers.pop_front();
            self.first += 1;
        }
        // What lies before the first transfer is of no interest any more, be it
        // acknowledged or not.
        let sealed = self.map.wire_sealed().get();
        let first = self.transfers.front().map_or(sealed, |t| t.wire_start.unwrap_or(sealed));
        self.map.forget(WireOffset::new(first.max(self.acked_wire)));
    }
}

impl Transfer {
    /// Whether something of it is still to be told. Of what nobody watches the release
    /// was the last: what comes of its records, of which there are few, nobody would
    /// hear.
    fn is_owed(&self) -> bool {
        self.payload.is_some() || !self.concluded && self.watch != Watch::NONE
    }
}

/// The last stage of `watch`.
pub(super) fn last_of(watch: Watch) -> Watch {
    [Watch::ACKED, Watch::TRANSMITTED, Watch::QUEUED]
        .into_iter()
        .find(|stage| watch.contains(*stage))
        .unwrap_or(Watch::NONE)
}
