//! Compares what a ledger reports with what it was told and what happened.

use super::{REASON, Sent, Verdict, World, close, ensure};
use lastbyte::{
    Completion, ConnectionId, Evidence, Memory, Method, Moment, Reached, Stage, StageEvidence,
    Time, Transport, Watch,
};
use std::fmt;

/// What was heard of one transfer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub queued: Option<Moment>,
    pub transmitted: Option<Moment>,
    pub acked: Option<Moment>,
    pub failed: bool,
    pub released: bool,
}

/// Names a completion where it is found wrong.
struct What {
    n: usize,
    stage: Stage,
    at: Moment,
    evidence: Evidence,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, stage, at, evidence } = self;
        write!(f, "transfer {n} {stage} at {at:?} ({evidence:?})")
    }
}

impl World {
    /// Judges one completion as it is delivered.
    pub(super) fn judge(&mut self, completion: Completion) -> Verdict {
        let stage = completion.stage();
        let Completion { connection, transfer, reached, at, evidence, method, transport } =
            completion;
        let n = usize::try_from(transfer.number()).unwrap_or(usize::MAX);
        ensure!(n < self.sent.len(), "no transfer {n} was submitted: {reached:?}");
        ensure!(connection == ConnectionId::new(7, 3), "of another connection");
        ensure!(transport == Transport::Plain, "another transport");
        let now = self.kernel.now;
        let what = What { n, stage, at, evidence };
        let sent = &self.sent[n];
        let time = at.monotonic.as_nanos();
        ensure!(sent.submitted <= time && time <= now, "C6: not within its life: {what}");
        if let Evidence::Bracketed { after } = evidence {
            ensure!(after <= at.monotonic, "C3: an empty bracket: {what}");
        }
        if !matches!(reached, Reached::Released(_)) {
            ensure!(!sent.seen.failed, "C1: after Failed: {what}");
            ensure!(!sent.concluded(), "C1: after the last watched stage: {what}");
        }
        match reached {
            Reached::Queued => {
                ensure!(sent.watch.contains(Watch::QUEUED), "C1: not watched: {what}");
                ensure!(sent.seen.queued.is_none(), "C1: twice: {what}");
                self.judge_time(sent.taken, at, evidence, StageEvidence::Bracketed, &what)?;
                self.sent[n].seen.queued = Some(at);
            }
            Reached::Transmitted => {
                ensure!(sent.watch.contains(Watch::TRANSMITTED), "C1: not watched: {what}");
                ensure!(sent.seen.transmitted.is_none(), "C1: twice: {what}");
                self.judge_order(n, at, &what)?;
                let truth = self.kernel.transmitted.passed(sent.end);
                self.judge_time(truth, at, evidence, self.setup.support.acked, &what)?;
                self.sent[n].seen.transmitted = Some(at);
            }
            Reached::Acked => {
                ensure!(sent.watch.contains(Watch::ACKED), "C1: not watched: {what}");
                ensure!(sent.seen.acked.is_none(), "C1: twice: {what}");
                self.judge_order(n, at, &what)?;
                ensure!(
                    !sent.watch.contains(Watch::TRANSMITTED) || sent.seen.transmitted.is_some(),
                    "C2: before Transmitted: {what}"
                );
                if let Some((last, time)) = self.last_acked {
                    ensure!(last < n, "C2: overtook a transfer: {what}");
                    ensure!(time <= at.monotonic, "C2: before transfer {last}: {what}");
                }
                let truth = self.kernel.acked.passed(sent.end);
                self.judge_time(truth, at, evidence, self.setup.support.acked, &what)?;
                self.last_acked = Some((n, at.monotonic));
                self.sent[n].seen.acked = Some(at);
            }
            Reached::Failed(failure) => {
                ensure!(failure.reason == REASON, "another reason: {what}");
                let acked = self.told.ended.unwrap_or(0).clamp(sent.start, sent.end) - sent.start;
                ensure!(self.told.ended.is_some(), "C1: failed for nothing: {what}");
                ensure!(failure.acked_bytes == acked, "C3: {acked} bytes were acked: {what}");
                self.judge_order_of_time(n, at, &what)?;
                self.sent[n].seen.failed = true;
            }
            Reached::Released(memory) => {
                ensure!(!sent.seen.released, "C1: twice: {what}");
                self.judge_method(n, method, &what)?;
                self.judge_memory(n, memory, &what)?;
                self.sent[n].seen.released = true;
            }
        }
        Ok(())
    }

    /// Earlier stages that are watched come earlier, and lie earlier.
    fn judge_order(&self, n: usize, at: Moment, what: &What) -> Verdict {
        let sent = &self.sent[n];
        let queued = !sent.watch.contains(Watch::QUEUED) || sent.seen.queued.is_some();
        ensure!(queued, "C2: before Queued: {what}");
        self.judge_order_of_time(n, at, what)
    }

    fn judge_order_of_time(&self, n: usize, at: Moment, what: &What) -> Verdict {
        let seen = &self.sent[n].seen;
        let before = [seen.queued, seen.transmitted, seen.acked];
        let late = before.iter().flatten().find(|moment| moment.monotonic > at.monotonic);
        ensure!(late.is_none(), "C2: lies before {late:?}: {what}");
        Ok(())
    }

    /// What is said of the time is true.
    fn judge_time(
        &self,
        truth: Option<u64>,
        at: Moment,
        evidence: Evidence,
        support: StageEvidence,
        what: &What,
    ) -> Verdict {
        if evidence == Evidence::Unavailable {
            ensure!(support == StageEvidence::Unavailable, "C8: it can be known: {what}");
            return Ok(());
        }
        ensure!(support != StageEvidence::Unavailable, "C3: it cannot be known: {what}");
        let Some(truth) = truth else {
            return Err(format!("C3: it has not happened: {what}"));
        };
        match evidence {
            Evidence::Kernel => {
                ensure!(support == StageEvidence::Kernel, "C3: nothing was stamped: {what}");
                ensure!(close(at, truth, at.error), "C3: it was at {truth}: {what}");
            }
            Evidence::Bracketed { after } => {
                let latest = at.monotonic.after(at.error);
                let inside = after <= Time::from_nanos(truth) && Time::from_nanos(truth) <= latest;
                ensure!(inside, "C3: it was at {truth}: {what}");
            }
            other => return Err(format!("{other:?} is no evidence: {what}")),
        }
        Ok(())
    }

    /// The last word on what moved a transfer, where it went one way only.
    fn judge_method(&self, n: usize, method: Method, what: &What) -> Verdict {
        let sent = &self.sent[n];
        let mut ways = Vec::new();
        for (call, copied) in self.kernel.calls.iter().zip(&self.told.released) {
            if call.overlaps(sent.start, sent.end) {
                ways.push(match (call.method, copied) {
                    (Method::ZeroCopy, Some(true)) => Method::ZeroCopyRefused,
                    (method, _) => method,
                });
            }
        }
        let only = ways.first().filter(|first| ways.iter().all(|way| way == *first));
        let expected = if ways.is_empty() { Some(&Method::Copy) } else { only };
        let right = expected.is_none_or(|expected| *expected == method);
        ensure!(right, "C8: {ways:?} is not {method:?}: {what}");
        Ok(())
    }

    /// The memory that comes back is the one that was handed over, and nobody
    /// reads it any more; memory that does not come back is never freed.
    fn judge_memory(&self, n: usize, memory: Memory, what: &What) -> Verdict {
        let sent = &self.sent[n];
        ensure!(!sent.witness.freed(), "C5: freed before it came back: {what}");
        match memory {
            Memory::Returned(payload) => {
                let used = self.kernel.references(sent.start, sent.end);
                ensure!(!used, "C5: the kernel still references it: {what}");
                let same =
                    payload.len() == sent.shape.len() && payload.memory_len() == sent.memory();
                ensure!(same, "C5: another payload came back: {what}");
                drop(payload);
                ensure!(sent.witness.freed(), "C5: another payload came back: {what}");
            }
            Memory::Leaked { bytes } => {
                ensure!(self.told.abandoned, "C5: leaked for nothing: {what}");
                ensure!(bytes == sent.memory(), "C5: not its size: {what}");
            }
        }
        Ok(())
    }

    /// Compares the state of everything with what the ledger was told.
    pub(super) fn compare(&self) -> Verdict {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let mut unreleased = self.setup.others;
        let mut pinned = 0;
        let mut leaked = 0;
        for (n, sent) in self.sent.iter().enumerate() {
            let due = self.due(sent);
            let Seen { queued, transmitted, acked, failed, released } = &sent.seen;
            let seen =
                [queued.is_some(), transmitted.is_some(), acked.is_some(), *failed, *released];
            ensure!(
                seen == due,
                "C1, C4: of [queued, transmitted, acked, failed, released] transfer {n} \
                 got {seen:?} instead of {due:?}: {sent:#?}, {:#?}",
                self.told
            );
            let alive = !released || self.leaks(sent);
            ensure!(sent.witness.freed() != alive, "C5: memory of transfer {n}: alive {alive}");
            if !released {
                unreleased += sent.memory();
                pinned += if self.pins(sent) { sent.memory() } else { 0 };
            } else if self.leaks(sent) {
                leaked += sent.memory();
            }
        }
        let counters = &self.out.counters;
        ensure!(counters.unreleased_bytes == unreleased, "C7: {unreleased}: {counters:?}");
        ensure!(counters.pinned_bytes == pinned, "C7: pinned {pinned}: {counters:?}");
        ensure!(counters.leaked_bytes == leaked, "C7: leaked {leaked}: {counters:?}");
        ensure!(counters.bytes == self.bytes, "C8: {:?}: {counters:?}", self.bytes);
        let (least, most) = self.recovered;
        let recovered = least <= counters.stamps_recovered && counters.stamps_recovered <= most;
        ensure!(recovered, "{least} to {most} stamps were made up for: {counters:?}");
        let undated = self.told.clock_stepped || counters.stamps_undated == 0;
        ensure!(undated, "C6: no clock was stepped: {counters:?}");

        ensure!(ledger.accepted_to().get() == self.told.accepted, "accepted_to");
        ensure!(ledger.acked_to().get() == self.told.acked, "C4: acked_to, {:?}", self.told);
        let all = self.told.accepted == self.submitted_to();
        ensure!(ledger.is_all_accepted() == all, "is_all_accepted");
        let empty = self.sent.iter().all(|t| self.is_finished(t));
        ensure!(ledger.is_empty() == empty, "is_empty");
        let open = self.kernel.calls.iter().zip(&self.told.released);
        let open = open.filter(|(call, told)| call.id.is_some() && told.is_none()).count();
        let is_pinned = open > 0 && !self.told.abandoned;
        ensure!(ledger.is_pinned() == is_pinned, "C5: is_pinned, not {is_pinned}");
        self.compare_unsent()
    }

    fn compare_unsent(&self) -> Verdict {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let at = self.told.accepted;
        let next = self.sent.iter().position(|t| t.end > at);
        let next = next.filter(|_| self.told.ended.is_none());
        match (ledger.unsent(), next) {
            (None, None) => {}
            (Some(unsent), Some(n)) => {
                let sent = &self.sent[n];
                let right = unsent.transfer.number() == n as u64
                    && unsent.offset == at - sent.start
                    && unsent.len == sent.end - at
                    && unsent.payload.len() == sent.shape.len();
                ensure!(right, "transfer {n} is next, not {unsent:?}");
            }
            (unsent, next) => return Err(format!("{next:?} is next, not {unsent:?}")),
        }
        let waiting = self.sent.iter().find(|t| t.end <= at && self.awaits_ack(t));
        let since = waiting.and_then(|t| t.taken).map(Time::from_nanos);
        let said = ledger.awaiting_ack_since();
        ensure!(said == since, "an ack is awaited since {since:?}, not {said:?}");
        Ok(())
    }

    /// What must have been heard of a transfer by now.
    fn due(&self, sent: &Sent) -> [bool; 5] {
        let watches = |stage| sent.watch.contains(stage);
        let acked_to = self.told.ended.unwrap_or(self.told.acked);
        let blind = self.setup.support.acked == StageEvidence::Unavailable;
        let queued = sent.end <= self.told.accepted;
        let acked = if blind { queued } else { sent.end <= acked_to };
        let transmitted =
            if blind { queued } else { sent.end <= acked_to || sent.transmitted_in_time(self) };
        let complete = queued
            && (transmitted || !watches(Watch::TRANSMITTED))
            && (acked || !watches(Watch::ACKED));
        [
            queued && watches(Watch::QUEUED),
            transmitted && watches(Watch::TRANSMITTED),
            acked && watches(Watch::ACKED),
            self.told.ended.is_some() && !complete,
            self.told.abandoned || self.comes_back(sent),
        ]
    }

    /// Whether the ledger knows that nobody references the memory any more.
    fn comes_back(&self, sent: &Sent) -> bool {
        let complete = sent.end <= self.told.accepted || self.told.ended.is_some();
        complete && !self.pins(sent) && !self.file_pinned(sent)
    }

    /// Whether memory was given up.
    fn leaks(&self, sent: &Sent) -> bool {
        self.told.abandoned && !self.comes_back(sent)
    }

    /// Whether a zero-copy call holds it, for all that the ledger knows.
    pub(super) fn pins(&self, sent: &Sent) -> bool {
        let mut calls = self.kernel.calls.iter().zip(&self.told.released);
        calls.any(|(call, told)| {
            call.id.is_some() && told.is_none() && call.overlaps(sent.start, sent.end)
        })
    }

    /// Whether a file's pages are held, for all that the ledger knows.
    pub(super) fn file_pinned(&self, sent: &Sent) -> bool {
        let calls = &self.kernel.calls[..self.told.released.len()];
        let moved = calls.iter().any(|c| c.moves_file() && c.overlaps(sent.start, sent.end));
        moved && sent.end > self.told.acked && self.told.ended.is_none()
    }

    fn awaits_ack(&self, sent: &Sent) -> bool {
        let watched = sent.watch.contains(Watch::ACKED) || sent.watch.contains(Watch::TRANSMITTED);
        let blind = self.setup.support.acked == StageEvidence::Unavailable;
        let open = watched && !blind && !sent.concluded() && !sent.seen.failed;
        sent.end > self.told.acked && (open || self.file_pinned(sent))
    }

    pub(super) fn is_finished(&self, sent: &Sent) -> bool {
        sent.seen.released
            && (sent.seen.failed || sent.end <= self.told.accepted && sent.concluded())
    }
}

impl Sent {
    /// Whether every watched stage was heard of.
    fn concluded(&self) -> bool {
        let stages = [
            (Watch::QUEUED, self.seen.queued),
            (Watch::TRANSMITTED, self.seen.transmitted),
            (Watch::ACKED, self.seen.acked),
        ];
        self.watch != Watch::NONE
            && stages.iter().all(|(stage, seen)| !self.watch.contains(*stage) || seen.is_some())
            || self.watch == Watch::NONE && self.taken.is_some()
    }

    /// Whether the ledger was told of its transmission while that was news.
    fn transmitted_in_time(&self, world: &World) -> bool {
        self.end <= world.told.ended_transmitted.unwrap_or(world.told.transmitted)
    }
}
