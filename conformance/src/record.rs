//! Everything that a driver told, checked against the contract as it comes.
//!
//! Whatever a case is about, each event it causes is held against C1 (exactly
//! once), C2 (order), C6 (plausible times) and C8 (evidence as announced).

use crate::canary::Canary;
use crate::sessions::{Sessions, TurnedDown};
use crate::subject::{Directions, Subject};
use lastbyte::{
    CloseOutcome, Completion, ConnectionId, Event, Evidence, Failure as Cause, ListenerId, Memory,
    Method, Moment, Payload, Reached, Received, ReceivedRecord, Socket, Stage, StageEvidence,
    StageSupport, Time, TlsEstablished, TransferId, Transport, Watch,
};
use std::collections::{HashMap, VecDeque};

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    connections: HashMap<ConnectionId, Line>,
    pub(crate) accepted: VecDeque<(ListenerId, Socket)>,
    /// The errno of each [`Event::AcceptPaused`].
    pub(crate) accept_pauses: Vec<i32>,
    /// Transfers in the order in which they were acknowledged.
    pub(crate) acked_order: Vec<(ConnectionId, TransferId)>,
    /// Keep payloads that come back, instead of dropping them.
    pub(crate) keep_payloads: bool,
    /// What has to be spoken.
    spoken: Directions,
    /// Where sessions are counted, and as what.
    sessions: Sessions,
    turned_down: Option<TurnedDown>,
    /// Whoever drops an event on purpose says so, and gaps are no longer wrong.
    pub(crate) events_may_be_missing: bool,
    violations: Vec<String>,
}

/// What was told of one connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) support: StageSupport,
    pub(crate) transfers: Vec<Told>,
    pub(crate) closed: Option<CloseOutcome>,
    /// It was attached while it connected, and has.
    pub(crate) connected: bool,
    pub(crate) input: Vec<u8>,
    pub(crate) inputs: usize,
    pub(crate) ended: bool,
    /// What seals what is sent, since the handshake.
    spoken: Option<Transport>,
    /// What came under kernel TLS that is no payload: told to whoever has handed
    /// the keys over.
    pub(crate) records: Vec<ReceivedRecord>,
    /// It ended without the `close_notify` that TLS ends with.
    pub(crate) truncated: bool,
    last_acked: Time,
}

/// What was told of one transfer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) watch: Watch,
    /// Bytes of the connection up to its end.
    pub(crate) end: u64,
    pub(crate) submitted: Time,
    pub(crate) queued: Option<Happened>,
    pub(crate) transmitted: Option<Happened>,
    pub(crate) acked: Option<Happened>,
    pub(crate) released: Option<Happened>,
    pub(crate) failed: Option<Cause>,
    pub(crate) leaked: bool,
    pub(crate) payload: Option<Payload>,
    pub(crate) canary: Option<Canary>,
}

/// When a stage was reached, how that is known, and what was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    pub(crate) at: Moment,
    pub(crate) evidence: Evidence,
    pub(crate) method: Method,
}

impl Told {
    /// Whether its last watched stage was reached, or it failed.
    pub(crate) fn is_concluded(&self) -> bool {
        let reached = if self.watch.contains(Watch::ACKED) {
            self.acked.is_some()
        } else if self.watch.contains(Watch::TRANSMITTED) {
            self.transmitted.is_some()
        } else if self.watch.contains(Watch::QUEUED) {
            self.queued.is_some()
        } else {
            self.released.is_some()
        };
        reached || self.failed.is_some()
    }

    /// Whether nothing more will be told of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_concluded() && self.released.is_some()
    }
}

impl Record {
    pub(crate) fn of(subject: &Subject) -> Self {
        Self {
            spoken: subject.directions(),
            sessions: subject.sessions().clone(),
            turned_down: subject.why_turned_down().cloned(),
            ..Self::default()
        }
    }

    pub(crate) fn attached(&mut self, connection: ConnectionId, support: StageSupport) {
        let line = Line {
            support,
            transfers: Vec::new(),
            connected: false,
            closed: None,
            input: Vec::new(),
            inputs: 0,
            ended: false,
            truncated: false,
            spoken: None,
            records: Vec::new(),
            last_acked: Time::default(),
        };
        if self.connections.insert(connection, line).is_some() {
            self.violations.push(format!("connection id {connection} was given out twice"));
        }
    }

    /// Keys were handed to the kernel by the case itself.
    pub(crate) fn handed_over(&mut self, connection: ConnectionId) {
        if let Some(line) = self.connections.get_mut(&connection) {
            line.spoken = Some(Transport::KernelTls);
        }
    }

    pub(crate) fn submitted(&mut self, connection: ConnectionId, transfer: TransferId, told: Told) {
        let line = self.connections.entry(connection);
        let transfers = line.and_modify(|line| line.transfers.push(told));
        let transfers = transfers.or_insert_with(|| unreachable!("submitted before attached"));
        if transfer.number() + 1 != transfers.transfers.len() as u64 {
            self.violations.push(format!(
                "transfer id {transfer} for the {}th transfer of {connection}",
                transfers.transfers.len()
            ));
        }
    }

    pub(crate) fn line(&self, connection: ConnectionId) -> &Line {
        &self.connections[&connection]
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (&ConnectionId, &Line)> {
        self.connections.iter()
    }

    pub(crate) fn transfers(&self) -> impl Iterator<Item = &Told> {
        self.connections.values().flat_map(|line| &line.transfers)
    }

    pub(crate) fn told(&self, connection: ConnectionId, transfer: TransferId) -> &Told {
        &self.line(connection).transfers[index(transfer)]
    }

    /// Whether every transfer of every connection is over.
    pub(crate) fn is_settled(&self) -> bool {
        self.transfers().all(Told::is_over)
    }

    pub(crate) fn is_closed(&self, connection: ConnectionId) -> bool {
        self.line(connection).closed.is_some()
    }

    /// What broke the contract so far, all at once.
    pub(crate) fn take_violations(&mut self) -> Option<String> {
        if self.violations.is_empty() {
            return None;
        }
        let all = std::mem::take(&mut self.violations);
        let more = all.len().saturating_sub(3);
        let mut text = all[..all.len().min(3)].join("; ");
        if more > 0 {
            text += &format!("; and {more} more");
        }
        Some(text)
    }

    /// Memory of transfers that were not released must exist.
    pub(crate) fn check_canaries(&mut self) {
        for (connection, line) in &self.connections {
            for (n, told) in line.transfers.iter().enumerate() {
                let dead = told.canary.as_ref().is_some_and(|canary| !canary.is_alive());
                if dead && (told.released.is_none() || told.leaked) && !self.events_may_be_missing {
                    self.violations.push(format!("{connection}/{n}: freed before released"));
                }
            }
        }
    }

    /// Whatever was submitted must have come to its end, with all it watched.
    pub(crate) fn check_complete(&mut self) {
        if self.events_may_be_missing {
            return;
        }
        for (connection, line) in &self.connections {
            for (n, told) in line.transfers.iter().enumerate() {
                let violation = if told.released.is_none() {
                    "was never released"
                } else if !told.is_concluded() {
                    "never ended"
                } else if told.failed.is_none() && misses_a_stage(told) {
                    "ended well, but a watched stage is missing"
                } else {
                    continue;
                };
                self.violations.push(format!("{connection}/{n} {violation}: {told:?}"));
            }
        }
    }

    /// Takes one event; `now` is read after the turn that delivered it.
    pub(crate) fn take(&mut self, event: Event, now: Time) {
        match event {
            Event::Transfer(completion) => self.complete(completion, now),
            Event::Accepted { listener, socket } => self.accepted.push_back((listener, socket)),
            Event::AcceptPaused { errno, .. } => self.accept_pauses.push(errno),
            Event::Connected { connection, at } => {
                self.check_moment(connection, at, now);
                let Some(line) = self.open_line(connection, "connected") else {
                    return;
                };
                let sent = line.transfers.iter().any(|told| told.queued.is_some());
                let late = line.connected || sent || line.inputs > 0;
                line.connected = true;
                if late {
                    self.violations.push(format!("{connection} connected late, or again"));
                }
            }
            Event::Received { connection, received, at } => {
                let Some(line) = self.open_line(connection, "received") else {
                    return;
                };
                line.inputs += 1;
                match received {
                    Received::Data(data) => line.input.extend_from_slice(&data),
                    Received::End => line.ended = true,
                    Received::Truncated => (line.ended, line.truncated) = (true, true),
                }
                self.check_moment(connection, at, now);
            }
            Event::ReceivedRecord { connection, record, at }
                if self.spoken.transmit == Transport::Plain =>
            {
                self.check_moment(connection, at, now);
                let Some(line) = self.open_line(connection, "received a record") else {
                    return;
                };
                line.records.push(record);
            }
            Event::TlsEstablished { connection, tls, at } => {
                self.check_moment(connection, at, now);
                self.established(connection, &tls);
            }
            Event::Closed { connection, outcome, at } => {
                self.check_moment(connection, at, now);
                let missing = self.events_may_be_missing;
                let Some(line) = self.open_line(connection, "closed") else {
                    return;
                };
                let open = line.transfers.iter().filter(|told| !told.is_over()).count();
                line.closed = Some(outcome);
                if open > 0 && !missing {
                    self.violations
                        .push(format!("{connection} closed before {open} transfers were over"));
                }
            }
            other => {
                self.violations.push(format!("an event that the suite does not know: {other:?}"))
            }
        }
    }

    /// What was agreed on has to be what the case wants, and is told once, before
    /// any input.
    fn established(&mut self, connection: ConnectionId, tls: &TlsEstablished) {
        let expected = self.spoken;
        self.sessions.count(self.turned_down.as_ref());
        let Some(line) = self.open_line(connection, "established") else {
            return;
        };
        let is_first = line.spoken.is_none() && line.inputs == 0;
        line.spoken = Some(tls.transmit);
        if !is_first {
            self.violations.push(format!("{connection}: a handshake done twice, or after input"));
        }
        if (tls.transmit, tls.receive) != (expected.transmit, expected.receive) {
            self.violations.push(format!("{connection}: {expected:?} was to come: {tls:?}"));
        }
    }

    fn open_line(&mut self, connection: ConnectionId, what: &str) -> Option<&mut Line> {
        match self.connections.get_mut(&connection) {
            Some(line) if line.closed.is_none() => Some(line),
            Some(_) => {
                self.violations.push(format!("{connection} {what} after it was closed"));
                None
            }
            None => {
                self.violations.push(format!("{what}: a connection nobody attached: {connection}"));
                None
            }
        }
    }

    fn check_moment(&mut self, connection: ConnectionId, at: Moment, now: Time) {
        if at.monotonic > now {
            self.violations.push(format!("{connection}: {at} lies in the future of {now:?}"));
        }
    }

    fn complete(&mut self, completion: Completion, now: Time) {
        let Completion { connection, transfer, reached, at, evidence, method, transport, .. } =
            completion;
        let is_tls = self.spoken.transmit != Transport::Plain;
        let missing = self.events_may_be_missing;
        let keep = self.keep_payloads;
        self.check_moment(connection, at, now);
        let Some(line) = self.open_line(connection, "a transfer") else {
            return;
        };
        let support = line.support;
        // What never left never had another transport.
        let usual = if is_tls { Transport::UserTls } else { Transport::Plain };
        let expected = line.spoken.unwrap_or(usual);
        let Some(told) = line.transfers.get_mut(index(transfer)) else {
            self.violations.push(format!("{connection}/{transfer}: nobody submitted that"));
            return;
        };
        let happened = Happened { at, evidence, method };
        let mut wrong = Vec::new();
        wrong.extend((transport != expected).then_some("over another transport"));
        let stage = stage_of(&reached);
        if stage != Stage::Released && told.is_concluded() && told.watch != Watch::NONE {
            wrong.push("after its end");
        }
        if at.monotonic.after(at.error) < told.submitted {
            wrong.push("dated before it was submitted");
        }
        if let Evidence::Bracketed { after } = evidence
            && after > at.monotonic
        {
            wrong.push("its bracket is inside out");
        }
        let mut acked = false;
        match reached {
            Reached::Queued => {
                wrong.extend((!told.watch.contains(Watch::QUEUED)).then_some("not watched"));
                wrong.extend(told.transmitted.or(told.acked).map(|_| "after a later stage"));
                wrong.extend(told.queued.replace(happened).map(|_| "twice"));
            }
            Reached::Transmitted => {
                wrong.extend((!told.watch.contains(Watch::TRANSMITTED)).then_some("not watched"));
                wrong.extend(told.acked.map(|_| "after a later stage"));
                wrong.extend(later(told.queued, at).then_some("dated before Queued"));
                wrong.extend(unlike(support.transmitted, evidence));
                wrong.extend(told.transmitted.replace(happened).map(|_| "twice"));
            }
            Reached::Acked => {
                wrong.extend((!told.watch.contains(Watch::ACKED)).then_some("not watched"));
                wrong.extend(later(told.queued, at).then_some("dated before Queued"));
                wrong.extend(later(told.transmitted, at).then_some("dated before Transmitted"));
                wrong.extend(unlike(support.acked, evidence));
                wrong.extend(told.acked.replace(happened).map(|_| "twice"));
                wrong.extend(
                    (at.monotonic < line.last_acked).then_some("dated before its predecessor"),
                );
                line.last_acked = at.monotonic;
                acked = true;
            }
            Reached::Released(memory) => {
                let dead = told.canary.as_ref().is_some_and(|canary| !canary.is_alive());
                wrong.extend(dead.then_some("freed before it was released"));
                wrong.extend(told.released.replace(happened).map(|_| "twice"));
                match memory {
                    Memory::Returned(payload) => told.payload = keep.then_some(payload),
                    Memory::Leaked { .. } => told.leaked = true,
                }
            }
            Reached::Failed(cause) => {
                wrong.extend(told.failed.replace(cause).map(|_| "twice"));
            }
        }
        let before = index(transfer);
        if acked && !missing {
            let skipped = line.transfers[..before].iter();
            let skipped = skipped
                .rev()
                .take(8)
                .any(|earlier| earlier.watch.contains(Watch::ACKED) && earlier.acked.is_none());
            wrong.extend(skipped.then_some("before a transfer submitted earlier"));
        }
        if acked {
            self.acked_order.push((connection, transfer));
        }
        for what in wrong {
            self.violations
                .push(format!("{connection}/{transfer} {stage} {what} (at {at} by {evidence:?})"));
        }
    }
}

fn stage_of(reached: &Reached) -> Stage {
    match reached {
        Reached::Queued => Stage::Queued,
        Reached::Transmitted => Stage::Transmitted,
        Reached::Acked => Stage::Acked,
        Reached::Released(_) => Stage::Released,
        Reached::Failed(_) => Stage::Failed,
    }
}

fn misses_a_stage(told: &Told) -> bool {
    let missing =
        |stage, happened: Option<Happened>| told.watch.contains(stage) && happened.is_none();
    missing(Watch::QUEUED, told.queued)
        || missing(Watch::TRANSMITTED, told.transmitted)
        || missing(Watch::ACKED, told.acked)
}

fn later(earlier: Option<Happened>, at: Moment) -> bool {
    earlier.is_some_and(|earlier| earlier.at.monotonic > at.monotonic)
}

/// Evidence must be what was announced when attaching, or a bracket where a
/// stamp was lost.
fn unlike(announced: StageEvidence, evidence: Evidence) -> Option<&'static str> {
    match (announced, evidence) {
        (StageEvidence::Kernel, Evidence::Kernel | Evidence::Bracketed { .. })
        | (StageEvidence::Bracketed, Evidence::Bracketed { .. })
        | (StageEvidence::Unavailable, Evidence::Unavailable) => None,
        _ => Some("by other evidence than was announced"),
    }
}

/// Transfer numbers count from 0 and were counted by the suite too.
fn index(transfer: TransferId) -> usize {
    usize::try_from(transfer.number()).unwrap_or(usize::MAX)
}
