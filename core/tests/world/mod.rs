//! A ledger between a simulated kernel, which is the truth, and an auditor,
//! which compares what is reported with the truth after every fact.
//!
//! The world plays the backend: it tells the ledger only true facts, but late,
//! twice, merged, or never. What the ledger then has to report follows from
//! what it was *told*; whether that was right, from what really *happened*.

#![allow(dead_code, reason = "each test uses its own part of the world")]
#![allow(unreachable_pub, reason = "a test has no public interface")]

mod audit;
pub mod kernel;
pub mod memory;

use audit::Seen;
use kernel::{Kernel, Notice};
use lastbyte::{
    Call, ClockMap, ConnectionId, Event, FailReason, Ledger, LedgerLimits, Limit, Look, Method,
    Moment, Outbox, RefuseReason, SinkFn, StageEvidence, StageSupport, Stamp, StampKeys, StampOf,
    Time, UnixTime, Watch,
};
use memory::{Shape, Witness};
use std::time::Duration;

/// What broke the contract.
pub type Verdict = Result<(), String>;

/// Fails the scenario if `$holds` does not.
macro_rules! ensure {
    ($holds:expr, $($says:tt)+) => {
        if !$holds {
            return Err(format!($($says)+));
        }
    };
}
use ensure;

/// How a world starts.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub support: StageSupport,
    pub limits: LedgerLimits,
    pub key_base: u32,
    pub next_id: u32,
    /// Unreleased bytes of other connections of the same driver.
    pub others: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            support: StageSupport {
                transmitted: StageEvidence::Kernel,
                acked: StageEvidence::Kernel,
            },
            limits: LedgerLimits { memory: u64::MAX, transfers: usize::MAX },
            key_base: 0,
            next_id: 0,
            others: 0,
        }
    }
}

/// A transfer that was accepted, and what was heard of it.
#[derive(Debug)]
struct Sent {
    start: u64,
    end: u64,
    shape: Shape,
    watch: Watch,
    witness: Witness,
    submitted: u64,
    /// A stamp on its last byte was asked for.
    stamped: bool,
    /// Its acknowledgement was first told by a look.
    acked_by_look: bool,
    /// When the kernel had taken its last byte, at the latest.
    taken: Option<u64>,
    seen: Seen,
}

/// A call whose outcome the backend has not read yet.
#[derive(Debug)]
struct InFlight {
    began: u64,
    bytes: u64,
    method: Method,
    stamped: bool,
}

/// What the ledger was told so far.
#[derive(Debug, Default)]
struct Told {
    accepted: u64,
    transmitted: u64,
    acked: u64,
    /// By position in `Kernel::calls`: done, and copied or not.
    released: Vec<Option<bool>>,
    /// `acked` when the connection ended.
    ended: Option<u64>,
    /// `transmitted` when the connection ended.
    ended_transmitted: Option<u64>,
    abandoned: bool,
    clock_stepped: bool,
}

#[derive(Debug)]
pub struct World {
    setup: Setup,
    ledger: Option<Ledger>,
    out: Outbox,
    clock: ClockMap,
    pub kernel: Kernel,
    in_flight: Option<InFlight>,
    sent: Vec<Sent>,
    told: Told,
    /// Notices that were read once; they may be read again.
    stale: Vec<Notice>,
    /// Number of the next transfer to be acked.
    last_acked: Option<(usize, Time)>,
    /// Bounds of the number of stamps that looks had to make up for.
    recovered: (u64, u64),
    bytes: [u64; 4],
    /// Puts the audit off, where what comes is known to be right so far.
    pub unaudited: bool,
}

const REASON: FailReason = FailReason::Reset;

impl World {
    pub fn new(setup: Setup) -> Self {
        let kernel = Kernel::new(setup.key_base, setup.next_id);
        let now = Time::from_nanos(kernel.now);
        let mut out = Outbox::default();
        out.counters.unreleased_bytes = setup.others;
        let ledger = Ledger::new(ConnectionId::new(7, 3), setup.support, setup.limits)
            .with_kernel_counters(StampKeys::from_base(setup.key_base), setup.next_id);
        Self {
            setup,
            ledger: Some(ledger),
            out,
            clock: ClockMap::new(now, UnixTime::from_nanos(kernel.wall()), now),
            kernel,
            in_flight: None,
            sent: Vec::new(),
            told: Told::default(),
            stale: Vec::new(),
            last_acked: None,
            recovered: (0, 0),
            bytes: [0; 4],
            unaudited: false,
        }
    }

    /// Sends 2 GiB, less a little, and has them acknowledged.
    pub fn lap(&mut self) -> Verdict {
        self.submit(Shape { memory: 0, file: (1 << 31) - 7 }, Watch::ACKED)?;
        self.write(u64::MAX, Method::Copy, false)?;
        self.look(LookAt { acked: true, transmitted: true }, u64::MAX, 0)
    }

    /// Time passes.
    pub fn tick(&mut self, nanos: u64) {
        self.kernel.now += nanos;
    }

    /// Someone sets the wall clock. Settings that cancel each other out between
    /// two samples leave no trace, so there is a sample between any two.
    pub fn step_clock(&mut self, forward: bool, nanos: u64) {
        self.sample_clock();
        let ahead = &mut self.kernel.wall_ahead;
        *ahead = if forward { *ahead + nanos } else { *ahead - nanos };
        self.told.clock_stepped = true;
    }

    /// Submits a payload and checks the answer against the limits.
    pub fn submit(&mut self, shape: Shape, watch: Watch) -> Verdict {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let (payload, witness) = shape.make();
        let (len, memory) = (payload.len(), payload.memory_len());
        let refusal = ledger.submit(payload, watch, &mut self.out);
        let unfinished = self.sent.iter().filter(|t| !self.is_finished(t)).count();
        let oldest = self.sent.iter().position(|t| !self.is_finished(t));
        let span = oldest.map_or(0, |n| self.sent.len() - n);
        let held: u64 = self.sent.iter().filter(|t| !t.seen.released).map(Sent::memory).sum();
        let limits = self.setup.limits;
        let full = held > 0 && held + memory > limits.memory;
        match refusal {
            Ok(id) => {
                ensure!(id.number() == self.sent.len() as u64, "transfer {id} is out of order");
                ensure!(len > 0, "an empty payload was taken");
                ensure!(self.told.ended.is_none(), "a payload was taken after the end");
                ensure!(unfinished < limits.transfers, "C7: one transfer too many was taken");
                ensure!(!full, "C7: {memory} bytes were taken beside {held}: {limits:?}");
                let start = self.sent.last().map_or(0, |t| t.end);
                self.sent.push(Sent {
                    start,
                    end: start + len,
                    shape,
                    watch,
                    witness,
                    submitted: self.kernel.now,
                    stamped: false,
                    acked_by_look: false,
                    taken: None,
                    seen: Seen::default(),
                });
            }
            Err(refused) => {
                let right = match refused.reason {
                    RefuseReason::Empty => len == 0,
                    RefuseReason::Closing => self.told.ended.is_some(),
                    RefuseReason::BackPressure { limit, outstanding, allowed } => match limit {
                        Limit::ConnectionTransfers => {
                            span >= limits.transfers
                                && outstanding == span as u64
                                && allowed == limits.transfers as u64
                        }
                        _ => full && outstanding == held && allowed == limits.memory,
                    },
                    _ => false,
                };
                ensure!(right, "refused without cause: {:?}", refused.reason);
                ensure!(refused.value.len() == len, "C7: another payload was given back");
                ensure!(len == 0 || !witness.freed(), "C7: the refused payload was freed");
                drop(refused);
                ensure!(witness.freed(), "C7: the refused payload was kept");
            }
        }
        self.audit()
    }

    /// The kernel takes `bytes` of what is next; the backend reads the outcome
    /// later.
    pub fn begin_write(&mut self, bytes: u64, method: Method, stamped: bool) -> Verdict {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        if self.in_flight.is_some() || self.told.ended.is_some() {
            return Ok(());
        }
        let bytes = bytes.min(self.submitted_to() - self.kernel.taken).min(self.kernel.room());
        if bytes == 0 {
            return Ok(());
        }
        let (start, end) = (self.kernel.taken, self.kernel.taken + bytes);
        let mut all = self.sent.iter().filter(|t| t.start < end && start < t.end);
        let files = all.clone().all(|t| t.shape.memory == 0);
        let file = matches!(method, Method::Sendfile | Method::Splice);
        // No system call takes memory from a file.
        let method = if file && !files { Method::Copy } else { method };
        let last = all.next_back().expect("there are bytes to write");
        let transmit = last.watch.contains(Watch::TRANSMITTED);
        let acked = transmit || last.watch.contains(Watch::ACKED);
        let kernel = self.setup.support.acked == StageEvidence::Kernel;
        let unsent = ledger.unsent().expect("not all is written");
        if last.start <= start {
            ensure!(unsent.wants_stamp == (kernel && acked), "{unsent:?} of {last:?}");
            ensure!(unsent.wants_transmit_stamp == (kernel && transmit), "{unsent:?} of {last:?}");
        }
        let stamped = stamped && kernel && acked;
        let stamps: &[StampOf] = match (stamped, transmit) {
            (false, _) => &[],
            (true, false) => &[StampOf::Acked],
            (true, true) => &[StampOf::Transmitted, StampOf::Acked],
        };
        let began = self.kernel.now;
        self.kernel.now += 1_000;
        self.kernel.take(bytes, method, stamps);
        self.in_flight = Some(InFlight { began, bytes, method, stamped });
        self.audit()
    }

    /// The backend reads the outcome of the call in flight.
    pub fn finish_write(&mut self) -> Verdict {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let Some(InFlight { began, bytes, method, stamped }) = self.in_flight.take() else {
            return Ok(());
        };
        let now = self.kernel.now;
        self.told.accepted += bytes;
        self.told.released.push(None);
        self.bytes[method_slot(method)] += bytes;
        for transfer in self.sent.iter_mut().filter(|t| t.taken.is_none()) {
            if transfer.end <= self.told.accepted {
                transfer.taken = Some(now);
                transfer.stamped = stamped && transfer.end == self.told.accepted;
            }
        }
        let call = Call { method, began: Time::from_nanos(began), stamped };
        ledger.accepted(bytes, call, self.clock.moment(Time::from_nanos(now)), &mut self.out);
        self.audit()
    }

    /// A whole call.
    pub fn write(&mut self, bytes: u64, method: Method, stamped: bool) -> Verdict {
        self.begin_write(bytes, method, stamped)?;
        self.finish_write()
    }

    /// The peer acknowledges up to `to`.
    pub fn acknowledge(&mut self, to: u64, merged: bool) -> Verdict {
        if self.kernel.dead {
            return Ok(());
        }
        self.kernel.acknowledge(to, merged);
        self.audit()
    }

    /// Bytes go to the device up to `to`.
    pub fn transmit(&mut self, to: u64) -> Verdict {
        if self.kernel.dead {
            return Ok(());
        }
        self.kernel.transmit(to);
        self.audit()
    }

    /// The kernel lets go of zero-copy calls whose outcome the backend knows.
    pub fn release(&mut self, from: usize, count: usize, copied: bool, merge: bool) -> Verdict {
        self.kernel.release(from, count, self.told.released.len(), copied, merge);
        self.audit()
    }

    /// The kernel lets go of its `n`th call, and the backend is told at once.
    pub fn release_call(&mut self, n: usize, copied: bool) -> Verdict {
        let call = &mut self.kernel.calls[n];
        call.released = true;
        let id = call.id.expect("a zero-copy call");
        self.hear(Notice::Released { first: id, last: id, copied })
    }

    /// The backend reads the stamp of the byte before `end`, and those of
    /// `Transmitted` before it.
    pub fn deliver_stamps(&mut self, end: u64) -> Verdict {
        let is = |notice: &Notice| matches!(notice, Notice::Stamp { end: e, .. } if *e == end);
        while let Some(n) = self.kernel.notices.iter().position(is) {
            self.deliver(n)?;
        }
        Ok(())
    }

    /// The backend reads the `n`th notice that waits.
    pub fn deliver(&mut self, n: usize) -> Verdict {
        if n >= self.kernel.notices.len() {
            return Ok(());
        }
        let notice = self.kernel.notices.remove(n);
        self.stale.push(notice);
        self.hear(notice)
    }

    /// The backend reads a notice that it has read before.
    pub fn deliver_again(&mut self, n: usize) -> Verdict {
        match self.stale.get(n).copied() {
            Some(notice) => self.hear(notice),
            None => Ok(()),
        }
    }

    /// The kernel has no room for the `n`th notice.
    pub fn lose(&mut self, n: usize) {
        if n < self.kernel.notices.len() {
            self.kernel.notices.remove(n);
        }
    }

    fn hear(&mut self, notice: Notice) -> Verdict {
        self.sample_clock();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let now = self.clock.moment(Time::from_nanos(self.kernel.now));
        match notice {
            // 32 bits cannot name a byte that lies 4 GiB behind.
            Notice::Stamp { end, .. } if self.told.accepted >= end + (1 << 32) => {}
            Notice::Stamp { of, end, key, at } => {
                // One from before the call's outcome means an older byte.
                let end =
                    if end <= self.told.accepted { Some(end) } else { end.checked_sub(1 << 32) };
                let told = match of {
                    StampOf::Transmitted => &mut self.told.transmitted,
                    StampOf::Acked => &mut self.told.acked,
                };
                *told = end.unwrap_or(0).max(*told);
                ledger.stamped(Stamp { of, key, at }, &self.clock, now, &mut self.out);
            }
            Notice::Released { first, last, copied } => {
                let mut news = 0;
                let known = !self.told.abandoned;
                for (call, told) in self.kernel.calls.iter().zip(&mut self.told.released) {
                    let Some(id) = call.id else { continue };
                    let inside = id.wrapping_sub(first) <= last.wrapping_sub(first);
                    if inside && told.is_none() && known {
                        *told = Some(copied);
                        news += 1;
                    }
                }
                let said = ledger.zero_copy_done(first, last, copied, now, &mut self.out);
                ensure!(said == news, "{notice:?} was news of {news} calls, not of {said}");
            }
        }
        self.audit()
    }

    /// The backend looks at the socket, and the peer acknowledges `before` and
    /// `after` bytes while it does, before and after the numbers are read.
    pub fn look(&mut self, what: LookAt, before: u64, after: u64) -> Verdict {
        let look = self.look_at_socket(what, before, after);
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        ledger.looked(look, &mut self.out);
        self.audit()
    }

    fn look_at_socket(&mut self, what: LookAt, before: u64, after: u64) -> Look {
        let began = self.kernel.now;
        self.pass(before);
        let acked = self.kernel.acked.to();
        let transmitted = self.kernel.transmitted.to();
        self.pass(after);
        if what.acked {
            let to = acked.min(self.told.accepted);
            let told = self.told.acked;
            for transfer in self.sent.iter_mut().filter(|t| told < t.end && t.end <= to) {
                transfer.acked_by_look = true;
                let surely = transfer.watch.contains(Watch::ACKED) && self.told.ended.is_none();
                self.recovered.0 += u64::from(transfer.stamped && surely);
                self.recovered.1 += u64::from(transfer.stamped);
            }
            self.told.acked = told.max(to);
        }
        if what.transmitted {
            let to = transmitted.min(self.told.accepted);
            self.told.transmitted = self.told.transmitted.max(to);
        }
        Look {
            acked: what.acked.then(|| lastbyte::WireOffset::new(acked)),
            transmitted: what.transmitted.then(|| lastbyte::WireOffset::new(transmitted)),
            began: Time::from_nanos(began),
            at: self.clock.moment(Time::from_nanos(self.kernel.now)),
        }
    }

    /// A moment passes, in which the peer acknowledges `bytes` bytes.
    fn pass(&mut self, bytes: u64) {
        self.kernel.now += 700;
        if !self.kernel.dead && bytes > 0 {
            self.kernel.acknowledge(self.kernel.acked.to().saturating_add(bytes), false);
        }
        self.kernel.now += 700;
    }

    /// The connection is reset. The backend waits for the call in flight, and
    /// then tells the ledger.
    pub fn fail(&mut self, with_look: bool) -> Verdict {
        if self.ledger.is_none() || self.told.ended.is_some() {
            return Ok(());
        }
        self.finish_write()?;
        self.kernel.dead = true;
        let look = LookAt { acked: true, transmitted: true };
        let last = with_look.then(|| self.look_at_socket(look, 0, 0));
        self.told.ended = Some(self.told.acked);
        self.told.ended_transmitted = Some(self.told.transmitted);
        self.kernel.now += 500;
        let now = self.clock.moment(Time::from_nanos(self.kernel.now));
        let ledger = self.ledger.as_mut().expect("checked");
        ledger.fail(&REASON, last, now, &mut self.out);
        // A second end changes nothing.
        ledger.fail(&FailReason::Timeout, None, now, &mut self.out);
        self.audit()
    }

    /// The backend gives the kernel's memory up.
    pub fn abandon(&mut self) -> Verdict {
        let Some(ledger) = self.ledger.as_mut().filter(|_| self.told.ended.is_some()) else {
            return Ok(());
        };
        self.told.abandoned = true;
        let now = self.clock.moment(Time::from_nanos(self.kernel.now));
        ledger.abandon(now, &mut self.out);
        self.audit()
    }

    /// The ledger is dropped as it stands, once the call in flight is over.
    pub fn drop_ledger(&mut self) -> Verdict {
        if self.ledger.is_none() {
            return Ok(());
        }
        self.finish_write()?;
        self.ledger = None;
        for (n, transfer) in self.sent.iter().enumerate().filter(|(_, t)| !t.seen.released) {
            let freed = transfer.witness.freed();
            let held = self.pins(transfer) || self.file_pinned(transfer);
            ensure!(freed != held, "C5: dropped with transfer {n} held: {held}, freed: {freed}");
            let used = self.kernel.references(transfer.start, transfer.end);
            ensure!(!(freed && used), "C5: transfer {n} was freed under the kernel's hands");
        }
        Ok(())
    }

    /// Brings everything to a good end, and checks that it is one.
    pub fn drain(&mut self) -> Verdict {
        if self.ledger.is_none() {
            return Ok(());
        }
        loop {
            self.finish_write()?;
            self.look(LookAt { acked: true, transmitted: true }, u64::MAX, 0)?;
            if self.told.ended.is_some() || self.kernel.taken == self.submitted_to() {
                break;
            }
            self.begin_write(u64::MAX, Method::Copy, true)?;
        }
        self.release_all()?;
        self.finished()
    }

    /// Resets the connection, and sees to it that all comes back.
    pub fn reset(&mut self, with_look: bool) -> Verdict {
        self.fail(with_look)?;
        self.release_all()?;
        self.finished()
    }

    /// Checks that nothing is left to be heard of.
    pub fn finished(&self) -> Verdict {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        ensure!(ledger.is_empty(), "C1: unfinished at the end: {:#?}", ledger);
        ensure!(!ledger.is_pinned(), "C5: calls at the end: {:#?}", ledger);
        let left = self.out.counters.unreleased_bytes - self.setup.others;
        ensure!(left == 0, "C7: {left} bytes unreleased at the end");
        ensure!(self.out.counters.pinned_bytes == 0, "C7: pinned bytes at the end");
        Ok(())
    }

    /// The kernel lets go of all it has, and says so again where that was lost.
    fn release_all(&mut self) -> Verdict {
        self.kernel.release(0, usize::MAX, self.told.released.len(), false, false);
        let ids: Vec<u32> = self.kernel.calls.iter().filter_map(|call| call.id).collect();
        for id in ids {
            // Lets go of one that an earlier gap kept out of the range above.
            self.kernel.release(0, usize::MAX, self.told.released.len(), false, false);
            self.hear(Notice::Released { first: id, last: id, copied: false })?;
        }
        Ok(())
    }

    /// The backend compares the clocks.
    fn sample_clock(&mut self) {
        let before = Time::from_nanos(self.kernel.now);
        let early = self.kernel.now % 7 < 3;
        self.kernel.now += if early { 10 } else { 111 };
        let wall = UnixTime::from_nanos(self.kernel.wall());
        self.kernel.now += if early { 110 } else { 9 };
        self.clock.sample(before, wall, Time::from_nanos(self.kernel.now));
    }

    pub fn submitted_to(&self) -> u64 {
        self.sent.last().map_or(0, |t| t.end)
    }

    /// Where the `n`th transfer from the one that is next to be written ends.
    pub fn end_of_next(&self, n: usize) -> u64 {
        let ahead = self.sent.iter().filter(|t| t.end > self.kernel.taken);
        ahead.take(n + 1).last().map_or(self.kernel.taken, |t| t.end)
    }

    /// Delivers what the ledger reports, and compares.
    fn audit(&mut self) -> Verdict {
        if self.unaudited {
            return Ok(());
        }
        let mut events = Vec::new();
        self.out.deliver(&mut SinkFn(|event| events.push(event)));
        for event in events {
            match event {
                Event::Transfer(completion) => self.judge(completion)?,
                other => return Err(format!("not a ledger's event: {other:?}")),
            }
        }
        self.compare()
    }
}

/// What a look reads.
#[derive(Clone, Copy, Debug)]
pub struct LookAt {
    pub acked: bool,
    pub transmitted: bool,
}

impl Sent {
    fn memory(&self) -> u64 {
        u64::from(self.shape.memory)
    }
}

fn method_slot(method: Method) -> usize {
    match method {
        Method::Copy => 0,
        Method::ZeroCopy | Method::ZeroCopyRefused => 1,
        Method::Sendfile => 2,
        _ => 3,
    }
}

/// Whether `at` can be `truth`, given its error.
fn close(at: Moment, truth: u64, error: Duration) -> bool {
    u128::from(at.monotonic.as_nanos().abs_diff(truth)) <= error.as_nanos()
}
