//! One connection: from received bytes to submitted responses, and from
//! completions to counters and log lines.

use super::body::{MAX_BODY, Progress, Unread};
use super::log::{Details, Log, Story};
use super::metrics::{Outcome, ThreadCounters};
use super::request::{Body, Parsed, Request, method_of, parse};
use super::respond::{Persistence, Responder, Response};
use super::status::Status;
use lastbyte::{
    Completion, ConnectionId, Driver, Evidence, FailReason, Moment, Payload, Reached, RefuseReason,
    Time, TlsEstablished, Transport, Watch,
};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Responses of a connection that may be unfinished before its requests wait.
const MAX_UNFINISHED: usize = 64;
/// How long a connection that is being closed may take while its peer makes
/// progress. The driver watches over that, and a drain has a deadline of its own.
const CLOSE_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// How long the peer has to close its side when it has acknowledged everything.
const LINGER: Duration = Duration::from_secs(30);
/// Without a log, one in this many responses is watched for being queued.
const SAMPLED: u64 = 16;

/// What the connections of a thread share.
#[derive(Debug)]
pub struct Service {
    /// The engine.
    pub driver: Box<dyn Driver>,
    /// The answers.
    pub responder: Responder,
    /// The log.
    pub log: Log,
    /// The thread's numbers.
    pub counters: Arc<ThreadCounters>,
    /// Name of the backend.
    pub backend: &'static str,
    /// Whether acknowledgements are watched.
    pub stamps: bool,
    /// Set when the server is to end: no connection is kept after its response.
    pub is_draining: bool,
    /// A recent time.
    pub now: Moment,
    /// Time for a request to arrive in.
    pub request_timeout: Duration,
    /// Time without a request.
    pub idle_timeout: Duration,
    /// Responses submitted.
    pub submitted: u64,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    /// The driver's name for it.
    pub id: ConnectionId,
    number: u64,
    peer: Option<SocketAddr>,
    /// Responses whose transfers are unfinished, or follow one that is.
    records: SmallVec<[Record; 1]>,
    /// Number of the first of them.
    first: u64,
    /// Received bytes that could not be used yet: the start of a request, or
    /// requests that have to wait.
    input: Vec<u8>,
    /// When the first byte of the current request was read, or when the request
    /// was gone on with if it had to wait for others to be answered.
    began: Time,
    /// When the newest bytes were read.
    latest: Time,
    /// When something last happened.
    active: Time,
    held: Option<Box<Held>>,
    is_closing: bool,
    is_receiving: bool,
    /// The peer will send no more.
    has_ended: bool,
    /// What makes requests of the wire's bytes.
    receive_transport: Transport,
}

/// What cannot be answered yet, or whose answer cannot be sent.
#[derive(Debug)]
enum Held {
    /// A request, not before its body has been read. This is its head: what there is
    /// to say, and whether the connection goes on, is seen then.
    Unread(Unread, Box<[u8]>),
    /// The driver was full.
    Refused(Answer),
}

#[derive(Debug)]
struct Answer {
    payload: Payload,
    record: Record,
    close: bool,
}

/// A transfer in the making.
#[derive(Debug)]
struct Record {
    began: Time,
    bytes: u64,
    outcome: Option<Outcome>,
    transport: Transport,
    is_released: bool,
    is_told: bool,
    /// With a log only.
    details: Option<Box<Details>>,
}

impl Service {
    fn watch(&mut self) -> Watch {
        self.submitted += 1;
        if !self.stamps {
            // What is released has been sealed, under TLS: no more. A drain has to
            // wait until the kernel holds it.
            Watch::QUEUED
        } else if self.log.is_on() {
            Watch::ALL
        } else if self.submitted.is_multiple_of(SAMPLED) {
            Watch::ACKED | Watch::QUEUED
        } else {
            Watch::ACKED
        }
    }
}

impl Connection {
    /// The connection `id`, from which nothing has come yet.
    #[must_use]
    pub fn new(id: ConnectionId, number: u64, peer: Option<SocketAddr>, now: Time) -> Self {
        Self {
            id,
            number,
            peer,
            records: SmallVec::new(),
            first: 0,
            input: Vec::new(),
            began: now,
            latest: now,
            active: now,
            held: None,
            is_closing: false,
            is_receiving: false,
            has_ended: false,
            receive_transport: Transport::Plain,
        }
    }

    /// Asks for the first request.
    pub fn start(&mut self, service: &mut Service) {
        self.go_on(service);
    }

    /// The TLS handshake is done.
    pub fn established(&mut self, tls: &TlsEstablished) {
        self.receive_transport = tls.receive;
    }

    /// Takes what the peer has sent.
    pub fn received(&mut self, bytes: &[u8], at: Moment, service: &mut Service) {
        self.is_receiving = false;
        self.latest = at.monotonic;
        // Empty lines ask for nothing, however many there are.
        let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if self.is_in_body() || !self.input.iter().chain(bytes).all(is_blank) {
            self.active = at.monotonic;
        }
        if self.input.is_empty() {
            if !self.is_in_body() {
                self.began = at.monotonic;
            }
            let used = self.consume(bytes, service);
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.consume(&input, service);
            input.drain(..used);
            self.input = input;
        }
        self.go_on(service);
    }

    /// The peer will send no more. What it asked for is still sent.
    pub fn ended(&mut self, service: &mut Service) {
        self.is_receiving = false;
        self.has_ended = true;
        // The rest of this body will not come.
        if self.is_in_body() {
            self.held = None;
        }
        self.go_on(service);
    }

    /// Takes the news of one transfer.
    pub fn completed(&mut self, completion: Completion, service: &mut Service) {
        let Completion { transfer, reached, at, evidence, method, transport, .. } = completion;
        let index = transfer.number().wrapping_sub(self.first);
        let Some(record) = usize::try_from(index).ok().and_then(|n| self.records.get_mut(n)) else {
            return;
        };
        let time = at.monotonic;
        let elapsed = time.since(record.began);
        record.transport = transport;
        if let Some(details) = &mut record.details {
            (details.send, details.transport) = (method, transport);
            match &reached {
                Reached::Queued => details.queued = Some(time),
                Reached::Transmitted if evidence == Evidence::Unavailable => {}
                Reached::Transmitted => details.transmitted = Some(time),
                Reached::Acked => details.acked = Some((time, evidence)),
                Reached::Released(_) => details.released = Some(time),
                Reached::Failed(failure) => details.failure = Some(failure.clone()),
            }
        }
        match reached {
            Reached::Queued => {
                service.counters.queued.observe(elapsed);
                if !service.stamps {
                    record.outcome = Some(Outcome::Unconfirmed);
                }
            }
            Reached::Transmitted => {}
            Reached::Acked if evidence == Evidence::Unavailable => {
                record.outcome = Some(Outcome::Unconfirmed);
            }
            Reached::Acked => {
                service.counters.acked.observe(elapsed);
                record.outcome = Some(Outcome::Acked);
            }
            Reached::Released(memory) => {
                drop(memory);
                record.is_released = true;
            }
            Reached::Failed(failure) => record.outcome = Some(outcome_of(&failure.reason)),
        }
        if let (Some(outcome), true, false) = (record.outcome, record.is_released, record.is_told) {
            record.is_told = true;
            service.counters.ended(outcome, record.transport);
            if let Some(details) = record.details.take() {
                service.log.add(&Story {
                    conn: self.number,
                    transfer: transfer.number(),
                    peer: self.peer,
                    backend: service.backend,
                    receive_transport: self.receive_transport,
                    began: record.began,
                    bytes: record.bytes,
                    outcome,
                    details: &details,
                });
            }
            self.forget_told(service);
        }
    }

    /// Looks whether anything has taken too long.
    pub fn sweep(&mut self, service: &mut Service) {
        let now = service.now.monotonic;
        if matches!(self.held.as_deref(), Some(Held::Refused(_))) {
            self.resume(service);
        }
        if self.is_closing {
            if self.records.is_empty() && now.since(self.active) > LINGER {
                // Gone already if this fails.
                let _ = service.driver.abort(self.id);
            }
        } else if self.is_blocked() {
            // The driver watches over the peer's progress.
        } else if !self.input.is_empty() || self.is_in_body() {
            if now.since(self.began) > service.request_timeout {
                let begun = std::mem::take(&mut self.input);
                self.refuse(Status::REQUEST_TIMEOUT, &begun, service);
            }
        } else if self.records.is_empty() && now.since(self.active) > service.idle_timeout {
            self.close(service);
        }
    }

    /// Closes, unless a request is on its way: that one is answered first.
    pub fn drain(&mut self, service: &mut Service) {
        if !self.is_closing && !self.has_more() {
            self.close(service);
        }
    }

    /// Whether the server owes this peer nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.records.is_empty() && !self.has_more()
    }

    /// Transfers that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.records.iter().filter(|record| !record.is_told).count()
    }

    /// Responses that the server owes this peer: those that have not ended, and one
    /// for what has come of a request.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.unfinished() + usize::from(self.has_more())
    }

    /// Whether there is more to answer, or to go on with, than was submitted.
    fn has_more(&self) -> bool {
        self.held.is_some() || !self.input.is_empty()
    }

    /// Answers the requests in `bytes`, and says how many bytes are done with.
    fn consume(&mut self, bytes: &[u8], service: &mut Service) -> usize {
        let mut used = 0;
        loop {
            if self.is_closing {
                return bytes.len();
            }
            let rest = &bytes[used..];
            if rest.is_empty() || self.is_blocked() {
                return used;
            }
            if let Some(Held::Unread(unread, _)) = self.held.as_deref_mut() {
                match unread.feed(rest) {
                    Progress::More => return bytes.len(),
                    Progress::Ended(taken) => {
                        used += taken;
                        self.answer_held(service);
                        self.began = self.latest;
                    }
                    Progress::TooLong => self.refuse(Status::CONTENT_TOO_LARGE, &[], service),
                    Progress::Malformed => self.refuse(Status::BAD_REQUEST, &[], service),
                }
                continue;
            }
            // What clients of old send after a body (RFC 9112, section 2.2) begins no
            // request.
            if let [b'\n', ..] | [b'\r', b'\n', ..] = rest {
                used += if rest[0] == b'\n' { 1 } else { 2 };
                continue;
            }
            match parse(rest) {
                Parsed::Partial => return used,
                Parsed::Complete { request, len } => {
                    used += len;
                    self.take(&request, &rest[..len], service);
                    if !self.is_in_body() {
                        self.began = self.latest;
                    }
                }
                Parsed::Rejected(status) => self.refuse(status, rest, service),
            }
        }
    }

    /// Answers `request`, of which this is the `head`, now or when its body has
    /// been read.
    fn take(&mut self, request: &Request<'_>, head: &[u8], service: &mut Service) {
        let (method, path) = (request.method, request.target);
        if request.is_for_https && self.receive_transport == Transport::Plain {
            // RFC 9110, section 7.4.
            return self.refuse_as(Status::MISDIRECTED_REQUEST, method, path, service);
        }
        if matches!(request.body, Body::Length(length) if length > MAX_BODY) {
            return self.refuse_as(Status::CONTENT_TOO_LARGE, method, path, service);
        }
        match Unread::new(request.body) {
            None => self.answer(request, request.keep_alive, service),
            // No body here changes an answer, so none is asked for: a peer that
            // waits for permission gets its answer at once, and the connection
            // ends, because the body may come nevertheless (RFC 9110, section
            // 10.1.1).
            Some(_) if request.expects_continue => self.answer(request, false, service),
            Some(unread) => self.held = Some(Box::new(Held::Unread(unread, head.into()))),
        }
    }

    /// Answers the request whose body has been read. Only now is it known whether
    /// the answer is the last, which it has to say (RFC 9112, section 9.6).
    fn answer_held(&mut self, service: &mut Service) {
        let held = self.held.take().map(|held| *held);
        // It was read as a request before.
        if let Some(Held::Unread(_, head)) = held
            && let Parsed::Complete { request, .. } = parse(&head)
        {
            self.answer(&request, request.keep_alive, service);
        }
    }

    fn answer(&mut self, request: &Request<'_>, keep: bool, service: &mut Service) {
        let keep = keep && !service.is_draining;
        let persistence = match keep {
            true if request.is_old => Persistence::KeptAlive,
            true => Persistence::Open,
            false => Persistence::Close,
        };
        let response = service.responder.respond(request, service.now, persistence);
        let answer = self.record(response, request.method, request.target, !keep, service);
        self.send(answer, service);
    }

    /// Ends the connection with `status`, because of something that is not, or
    /// not yet, a request, and so far is what has `begun`.
    fn refuse(&mut self, status: Status, begun: &[u8], service: &mut Service) {
        // If it is a request's body, it is that request which is refused.
        let held = self.held.take().map(|held| *held);
        if let Some(Held::Unread(_, head)) = held
            && let Parsed::Complete { request, .. } = parse(&head)
        {
            self.refuse_as(status, request.method, request.target, service);
        } else {
            self.refuse_as(status, method_of(begun).unwrap_or("-"), "-", service);
        }
    }

    fn refuse_as(&mut self, status: Status, method: &str, path: &str, service: &mut Service) {
        self.held = None;
        let with_body = method != "HEAD";
        let close = Persistence::Close;
        let response = service.responder.refuse(status, service.now, close, with_body);
        let answer = self.record(response, method, path, true, service);
        self.send(answer, service);
    }

    fn record(
        &self,
        response: Response,
        method: &str,
        path: &str,
        close: bool,
        service: &Service,
    ) -> Answer {
        let Response { status, payload } = response;
        let details = service.log.is_on().then(|| Box::new(Details::new(method, path, status)));
        let record = Record {
            began: self.began,
            bytes: payload.len(),
            outcome: None,
            transport: Transport::Plain,
            is_released: false,
            is_told: false,
            details,
        };
        Answer { payload, record, close }
    }

    fn send(&mut self, answer: Answer, service: &mut Service) {
        let Answer { payload, record, close } = answer;
        let watch = service.watch();
        match service.driver.submit(self.id, payload, watch) {
            Ok(transfer) => {
                if self.records.is_empty() {
                    self.first = transfer.number();
                }
                self.records.push(record);
                if close {
                    self.close(service);
                }
            }
            Err(refused) if matches!(refused.reason, RefuseReason::BackPressure { .. }) => {
                let answer = Answer { payload: refused.value, record, close };
                self.held = Some(Box::new(Held::Refused(answer)));
            }
            // The connection is over; the driver is about to say so.
            Err(_) => self.is_closing = true,
        }
    }

    fn close(&mut self, service: &mut Service) {
        self.is_closing = true;
        self.active = service.now.monotonic;
        self.input = Vec::new();
        // Gone already if this fails.
        let _ = service.driver.close(self.id, CLOSE_WITHIN);
    }

    /// Forgets what is finished, and goes on if that is what was waited for.
    fn forget_told(&mut self, service: &mut Service) {
        let was_blocked = self.is_blocked();
        let told = self.records.iter().take_while(|record| record.is_told).count();
        self.records.drain(..told);
        self.first += told as u64;
        if self.records.is_empty() && self.records.spilled() {
            self.records = SmallVec::new();
        }
        self.active = self.active.max(service.now.monotonic);
        if was_blocked {
            self.resume(service);
        }
    }

    /// Takes up again what had to wait.
    fn resume(&mut self, service: &mut Service) {
        if let Some(held) = self.held.take_if(|held| matches!(**held, Held::Refused(_)))
            && let Held::Refused(mut answer) = *held
        {
            // It was made before, and does not say that it is the last.
            answer.close |= service.is_draining && self.input.is_empty();
            self.send(answer, service);
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.consume(&input, service);
        input.drain(..used);
        self.input = input;
        // What is left is a request's beginning, of whose rest nothing was read as
        // long as it had to wait: the peer's time for it starts now.
        if !self.is_blocked() {
            self.began = service.driver.now();
        }
        self.go_on(service);
    }

    /// Asks for more, unless there is enough.
    fn go_on(&mut self, service: &mut Service) {
        if self.is_closing || self.input.is_empty() {
            self.input = Vec::new();
        }
        if self.is_closing || self.is_blocked() {
            return;
        }
        if self.has_ended {
            self.close(service);
        } else if !self.is_receiving {
            self.is_receiving = service.driver.receive(self.id).is_ok();
        }
    }

    /// Whether no request can be answered now.
    fn is_blocked(&self) -> bool {
        self.records.len() >= MAX_UNFINISHED
            || matches!(self.held.as_deref(), Some(Held::Refused(_)))
    }

    fn is_in_body(&self) -> bool {
        matches!(self.held.as_deref(), Some(Held::Unread(..)))
    }
}

fn outcome_of(reason: &FailReason) -> Outcome {
    match reason {
        FailReason::Reset => Outcome::Reset,
        FailReason::Timeout => Outcome::Timeout,
        FailReason::System { errno: libc::ECONNRESET | libc::EPIPE, .. } => Outcome::Reset,
        FailReason::System { errno: libc::ETIMEDOUT, .. } => Outcome::Timeout,
        _ => Outcome::Closed,
    }
}
