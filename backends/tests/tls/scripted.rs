//! A backend without a kernel: what its connection's ledger is told, and when,
//! is the test's to say. It reads zero-copy memory as late as a kernel may.

use lastbyte::{
    AttachOptions, Attached, Backend, BackendKind, Call, ClockMap, CloseOutcome, CompletionSink,
    ConnectionId, ControlRecord, Counters, Driver, DriverConfig, DriverError, Event, FailReason,
    Ledger, LedgerLimits, Limit, ListenerId, Look, Method, Moment, OffloadError, OffloadOptions,
    Offloaded, Outbox, Part, Payload, Pool, Received, ReceivedRecord, RefuseReason, Refused,
    Report, Socket, StageEvidence, StageSupport, Support, Time, TlsSession, TrafficKeys,
    TransferId, Transport, Turn, UnixTime, Wake, Watch, WireOffset,
};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Memory that the kernel reads when it pleases.
#[derive(Debug)]
struct Lent(*const u8, usize);

// SAFETY: the ledger holds the payload that this points into until it is told
// that the call is done, and it is read before that.
unsafe impl Send for Lent {}

#[derive(Debug)]
struct ZeroCopyCall {
    memory: Vec<Lent>,
    at: usize,
    is_done: bool,
}

/// The kernel, its one connection, and the peer.
#[derive(Debug, Default)]
pub(crate) struct Line {
    ledger: Option<Ledger>,
    outbox: Outbox,
    now: u64,
    /// What the peer gets. Bytes of zero-copy calls are filled in late.
    wire: Vec<u8>,
    calls: Vec<ZeroCopyCall>,
    done: u32,
    pub(crate) acked: usize,
    /// What the peer sends, piece by piece; an empty one is the end.
    input: VecDeque<Vec<u8>>,
    wants_input: bool,
    /// Refuse this many submissions.
    pub(crate) refuse: u32,
    closing: bool,
    /// Nothing more may be submitted.
    is_finished: bool,
    /// Something was, all the same.
    pub(crate) too_late: bool,
    is_closed: bool,
    pub(crate) max_unreleased: u64,
    /// Take the record layer of both directions.
    pub(crate) takes_records: bool,
    /// What has come there that is no payload, and is still to be told.
    pub(crate) records: VecDeque<ControlRecord>,
    /// How often something was to be submitted.
    pub(crate) submissions: u32,
    /// Keys for what the peer sends that were given later.
    pub(crate) next_keys: u32,
    /// What it has to seal that is no payload.
    pub(crate) control: Vec<ControlRecord>,
}

impl Line {
    fn moment(&mut self) -> Moment {
        self.now += 1000;
        let monotonic = Time::from_nanos(self.now);
        ClockMap::new(monotonic, UnixTime::from_nanos(self.now + 5_000_000_000), monotonic)
            .moment(monotonic)
    }

    /// The kernel takes up to `bytes` bytes; says how many.
    pub(crate) fn accept(&mut self, bytes: usize, zero_copy: bool) -> usize {
        let now = self.moment();
        let Some(ledger) = &mut self.ledger else { return 0 };
        let Some(unsent) = ledger.unsent() else { return 0 };
        let mut left = bytes;
        let mut memory = Vec::new();
        let at = self.wire.len();
        for part in unsent.payload.remaining(unsent.offset) {
            let Part::Memory(part) = part else { panic!("a file reaches the inner driver") };
            let part = &part[..part.len().min(left)];
            left -= part.len();
            if zero_copy {
                memory.push(Lent(part.as_ptr(), part.len()));
                self.wire.resize(self.wire.len() + part.len(), 0xEE);
            } else {
                self.wire.extend_from_slice(part);
            }
        }
        let taken = bytes - left;
        if taken == 0 {
            return 0;
        }
        let method = if zero_copy { Method::ZeroCopy } else { Method::Copy };
        if zero_copy {
            self.calls.push(ZeroCopyCall { memory, at, is_done: false });
        }
        let began = Time::from_nanos(self.now - 500);
        let call = Call { method, began, stamped: false };
        ledger.accepted(taken as u64, call, now, &mut self.outbox);
        taken
    }

    /// The device reads the memory of the `n`th zero-copy call and lets go of it.
    pub(crate) fn let_go(&mut self, n: usize) {
        let now = self.moment();
        let Some(call) = self.calls.get_mut(n).filter(|call| !call.is_done) else { return };
        call.is_done = true;
        let mut at = call.at;
        for Lent(start, len) in call.memory.drain(..) {
            // SAFETY: see `Lent`.
            let bytes = unsafe { std::slice::from_raw_parts(start, len) };
            self.wire[at..at + len].copy_from_slice(bytes);
            at += len;
        }
        let id = u32::try_from(n).expect("few calls");
        if let Some(ledger) = &mut self.ledger {
            ledger.zero_copy_done(id, id, false, now, &mut self.outbox);
        }
        self.done += 1;
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The peer acknowledges everything before `to`, as far as it has it.
    pub(crate) fn acknowledge(&mut self, to: usize) {
        let sure = self.calls.iter().find(|call| !call.is_done).map_or(self.wire.len(), |c| c.at);
        self.acked = self.acked.max(to.min(sure));
        let began = Time::from_nanos(self.now);
        let at = self.moment();
        let to = Some(WireOffset::new(self.acked as u64));
        if let Some(ledger) = &mut self.ledger {
            let look = Look { acked: to, transmitted: to, began, at };
            ledger.looked(look, &mut self.outbox);
        }
    }

    /// What the peer has for sure.
    pub(crate) fn received(&self) -> &[u8] {
        let sure = self.calls.iter().find(|call| !call.is_done).map_or(self.wire.len(), |c| c.at);
        &self.wire[..sure]
    }

    pub(crate) fn peer_sends(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.input.push_back(bytes);
        }
    }

    pub(crate) fn peer_ends(&mut self) {
        self.input.push_back(Vec::new());
    }

    pub(crate) fn is_all_read(&self) -> bool {
        self.input.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn is_all_accepted(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_all_accepted)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    pub(crate) fn reset(&mut self) {
        self.end(CloseOutcome::Failed(FailReason::Reset));
    }

    /// If it was told to close and all is acknowledged, it is closed.
    fn progress(&mut self) {
        let finished = self.ledger.as_ref().is_some_and(|ledger| {
            ledger.is_empty() && ledger.is_all_accepted() && self.acked == self.wire.len()
        });
        if self.closing && finished {
            self.end(CloseOutcome::Graceful);
        }
    }

    fn end(&mut self, outcome: CloseOutcome) {
        if self.is_closed {
            return;
        }
        for n in 0..self.calls.len() {
            self.let_go(n);
        }
        let at = self.moment();
        if let (Some(ledger), CloseOutcome::Failed(reason)) = (&mut self.ledger, &outcome) {
            ledger.fail(reason, None, at, &mut self.outbox);
        }
        self.is_closed = true;
        self.outbox.push(Event::Closed { connection: ID, outcome, at });
    }
}

pub(crate) const ID: ConnectionId = ConnectionId::new(0, 7);

#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Arc<Mutex<Line>>);

impl Scripted {
    pub(crate) fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The backend of a script.
#[derive(Debug)]
pub(crate) struct ScriptedBackend(pub(crate) Scripted, Report);

impl ScriptedBackend {
    pub(crate) fn new(script: &Scripted) -> Self {
        Self(script.clone(), Report::new("a script".to_owned(), |_| Support::Disabled))
    }
}

impl Backend for ScriptedBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Fallback
    }

    fn report(&self) -> &Report {
        &self.1
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        let buffers = Pool::new(config.receive_buffer, 4);
        Ok(Box::new(ScriptedDriver { script: self.0.clone(), sink, buffers }))
    }

    fn movable_driver(
        &self,
        _: &DriverConfig,
        _: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        Err(DriverError { doing: "moving a script", errno: 0 })
    }
}

struct ScriptedDriver {
    script: Scripted,
    sink: Box<dyn CompletionSink>,
    buffers: Pool,
}

impl std::fmt::Debug for ScriptedDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScriptedDriver")
    }
}

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl Driver for ScriptedDriver {
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        Err(Refused::new(listener, RefuseReason::Closing))
    }

    fn unlisten(&mut self, _: ListenerId) -> Option<TcpListener> {
        None
    }

    fn attach(&mut self, _: Socket, options: &AttachOptions) -> Result<Attached, Refused<Socket>> {
        let evidence = StageEvidence::Bracketed;
        let stages = StageSupport { transmitted: evidence, acked: evidence };
        let limits = LedgerLimits { memory: options.max_memory, transfers: options.max_transfers };
        self.script.line().ledger = Some(Ledger::new(ID, stages, limits));
        Ok(Attached { connection: ID, stages })
    }

    fn submit(
        &mut self,
        _: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        let mut line = self.script.line();
        line.submissions += 1;
        if line.is_closed {
            return Err(Refused::new(payload, RefuseReason::UnknownConnection));
        }
        line.too_late |= line.is_finished;
        if line.closing || line.is_finished {
            return Err(Refused::new(payload, RefuseReason::Closing));
        }
        if line.refuse > 0 {
            line.refuse -= 1;
            let limit = Limit::DriverMemory;
            let reason = RefuseReason::BackPressure { limit, outstanding: 1, allowed: 1 };
            return Err(Refused::new(payload, reason));
        }
        let Line { ledger, outbox, .. } = &mut *line;
        let result = ledger.as_mut().expect("attached").submit(payload, watch, outbox);
        line.max_unreleased = line.max_unreleased.max(line.outbox.counters.unreleased_bytes);
        result
    }

    fn receive(&mut self, _: ConnectionId) -> Result<(), RefuseReason> {
        let mut line = self.script.line();
        if line.is_closed {
            return Err(RefuseReason::UnknownConnection);
        }
        line.wants_input = !line.closing;
        Ok(())
    }

    fn finish(&mut self, _: ConnectionId) -> Result<(), RefuseReason> {
        let mut line = self.script.line();
        if line.is_closed {
            return Err(RefuseReason::UnknownConnection);
        }
        line.is_finished = true;
        Ok(())
    }

    fn close(&mut self, _: ConnectionId, _: Duration) -> Result<(), RefuseReason> {
        self.script.line().closing = true;
        Ok(())
    }

    fn abort(&mut self, _: ConnectionId) -> Result<(), RefuseReason> {
        self.script.line().end(CloseOutcome::Failed(FailReason::Cancelled));
        Ok(())
    }

    fn offload_tls(
        &mut self,
        _: ConnectionId,
        session: TlsSession,
        _: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        if !self.script.line().takes_records {
            let reason = RefuseReason::Unsupported { what: "it is not in the script" };
            return Err(OffloadError::Refused(Refused::new(session, reason)));
        }
        let (transmit, receive) = (Transport::KernelTls, Transport::KernelTls);
        Ok(Offloaded { transmit, receive, left: None })
    }

    fn submit_record(
        &mut self,
        _: ConnectionId,
        record: ControlRecord,
    ) -> Result<(), Refused<ControlRecord>> {
        self.script.line().control.push(record);
        Ok(())
    }

    fn update_transmit_key(
        &mut self,
        _: ConnectionId,
        message: ControlRecord,
        _: TrafficKeys,
    ) -> Result<(), Refused<TrafficKeys>> {
        self.script.line().control.push(message);
        Ok(())
    }

    fn update_receive_key(&mut self, _: ConnectionId, _: TrafficKeys) -> Result<(), RefuseReason> {
        self.script.line().next_keys += 1;
        Ok(())
    }

    fn turn(&mut self, _: Option<Duration>) -> Result<Turn, DriverError> {
        let mut line = self.script.line();
        while let Some(record) = line.records.pop_front() {
            let (record, at) = (ReceivedRecord::Control(record), line.moment());
            line.outbox.push(Event::ReceivedRecord { connection: ID, record, at });
        }
        if line.wants_input
            && !line.is_closed
            && let Some(piece) = line.input.pop_front()
        {
            line.wants_input = false;
            let at = line.moment();
            let mut buffer = self.buffers.take();
            let used = buffer.fill_from(&piece);
            if used < piece.len() {
                line.input.push_front(piece[used..].to_vec());
            }
            let received = if piece.is_empty() {
                // There is nothing behind the end but the end.
                line.input.push_front(Vec::new());
                Received::End
            } else {
                Received::Data(buffer)
            };
            line.outbox.push(Event::Received { connection: ID, received, at });
        }
        line.progress();
        let delivered = line.outbox.deliver(&mut *self.sink);
        Ok(Turn { delivered, more: false })
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn next_turn_by(&self) -> Option<Time> {
        None
    }

    fn now(&self) -> Time {
        let mut line = self.script.line();
        line.now += 10;
        Time::from_nanos(line.now)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NoWake)
    }

    fn counters(&self) -> Counters {
        self.script.line().outbox.counters
    }
}

impl Drop for ScriptedDriver {
    fn drop(&mut self) {
        let mut line = self.script.line();
        line.end(CloseOutcome::Failed(FailReason::Closed));
        line.outbox.deliver(&mut *self.sink);
    }
}
