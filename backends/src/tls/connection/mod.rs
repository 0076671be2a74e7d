//! One TLS connection: its phases, and what follows from what happens.

mod ending;
mod opening;
mod output;
mod receiving;

use super::context::Context;
use super::forwarding::Forwarding;
use super::handshake::{Established, Handshake};
use super::input::Input;
use super::session::Session;
use super::transfers::Transfers;
use lastbyte::{
    AttachOptions, CloseOutcome, Completion, ConnectionId, Driver, Event, FailReason, Moment,
    OffloadWish, Payload, PooledBuf, Received, ReceivedRecord, RefuseReason, Refused, Time,
    TlsFailure, TransferId, Watch,
};
use std::collections::VecDeque;
use std::time::Duration;

/// Buffers of sealed records that the inner driver may have of one connection:
/// half a mebibyte, which keeps a fast link busy from one turn to the next.
/// Beyond that nothing is sealed.
pub(super) const IN_FLIGHT: usize = 32;

/// How long a connection that has failed may take to send its last alert.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Phase {
    Handshaking(Box<dyn Handshake>),
    /// The handshake is done, and its last bytes are being written: with the
    /// next one the record layer may be the kernel's.
    Settling(Box<Established>),
    Open(Box<Session>),
    /// The inner driver was told to end it; nothing more is sent.
    Ending,
}

#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    phase: Phase,
    transfers: Transfers,
    /// Those that the kernel seals.
    forwarding: Forwarding,
    /// Whether the kernel is to have the record layer.
    wish: OffloadWish,
    input: Input,
    /// Payload that the kernel has opened and the session has not heard of.
    opened_by_kernel: usize,
    /// What came where the kernel opens records, and is no payload.
    records: VecDeque<ReceivedRecord>,
    /// Nothing must be read ahead of the records of the handshake.
    reads_exactly: bool,
    /// Keys still have to be changed while the inner driver ends a connection
    /// whose record layer the kernel has.
    ending: Option<Box<Session>>,
    /// Opened, but more than one receive may yield: how much of it is gone.
    opened: Option<(PooledBuf, usize)>,
    /// The user has asked for input; the inner driver was.
    wants_input: bool,
    asked: bool,
    /// The delivery that takes the last input to the user.
    answered_in: Option<u64>,
    /// The inner stream has ended.
    stream_ended: bool,
    /// The user sends nothing more.
    finishing: bool,
    /// The user wants it closed, by then.
    closing: Option<Time>,
    /// The peer was told that nothing more comes.
    said_goodbye: bool,
    /// Sealed, but the inner driver has no room: before anything else.
    stuck: Option<(Payload, Watch)>,
    /// A payload waits for room: the kernel is to seal it, or others wait longer.
    is_held_up: bool,
    /// What it was refused last was memory of the inner driver's, which it shares
    /// with all others.
    pub(super) lacks_shared_memory: bool,
    /// What it waits for is room of its own: that comes with a completion of its own.
    lacks_own_room: bool,
    /// The inner driver took something of it.
    has_handed_over: bool,
    /// Why it ends, where that was found out here.
    failure: Option<FailReason>,
    /// When something has to have happened.
    pub(super) deadline: Option<Time>,
    /// The deadline that an alarm is set for.
    pub(super) armed: Option<Time>,
    /// It waits to be looked after in this turn.
    pub(super) is_touched: bool,
    /// It is looked after in each turn, for room.
    pub(super) is_waiting: bool,
}

impl Connection {
    /// A connection whose handshake has to be done `by` then, if that is known: not
    /// before it is [`connected`](Self::connected).
    pub(super) fn new(
        id: ConnectionId,
        handshake: Box<dyn Handshake>,
        options: &AttachOptions,
        wish: OffloadWish,
        by: Option<Time>,
    ) -> Self {
        Self {
            id,
            phase: Phase::Handshaking(handshake),
            transfers: Transfers::new(id, options.max_memory, options.max_transfers),
            forwarding: Forwarding::default(),
            wish,
            input: Input::default(),
            opened_by_kernel: 0,
            records: VecDeque::new(),
            reads_exactly: false,
            ending: None,
            opened: None,
            wants_input: false,
            asked: false,
            answered_in: None,
            stream_ended: false,
            finishing: false,
            closing: None,
            said_goodbye: false,
            stuck: None,
            is_held_up: false,
            lacks_shared_memory: false,
            lacks_own_room: false,
            has_handed_over: false,
            failure: None,
            deadline: by,
            armed: None,
            is_touched: false,
            is_waiting: false,
        }
    }

    /// The first step of the handshake: a client's is to speak.
    pub(super) fn start(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        self.reads_exactly = self.wish != OffloadWish::Never && cx.offload.receives;
        self.step(&mut [], inner, cx);
        self.go_on(inner, cx);
    }

    /// It was attached while it was connecting, and is connected now.
    pub(super) fn connected(&mut self, by: Time) {
        if self.is_shaking_hands() {
            self.deadline = Some(self.deadline.map_or(by, |old| old.min(by)));
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(super) fn submit(
        &mut self,
        payload: Payload,
        watch: Watch,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Result<TransferId, Refused<Payload>> {
        let ends = self.finishing || self.closing.is_some();
        if ends || matches!(self.phase, Phase::Ending) {
            return Err(Refused::new(payload, RefuseReason::Closing));
        }
        if self.is_sealed_by_kernel() && self.transfers.is_all_sealed() && self.stuck.is_none() {
            return self.forward(payload, watch, inner);
        }
        let transfer = self.transfers.submit(payload, watch, self.forwarding.len(), cx)?;
        self.pump(inner, cx);
        Ok(transfer)
    }

    pub(super) fn receive(
        &mut self,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Result<(), RefuseReason> {
        if self.closing.is_some() {
            return Err(RefuseReason::Closing);
        }
        // Until the user has it, asking again is asking for the same.
        let is_answered = self.answered_in == Some(cx.deliveries);
        if !is_answered && !matches!(self.phase, Phase::Ending) {
            self.wants_input = true;
            self.read(inner, cx);
        }
        Ok(())
    }

    /// Says to the peer that nothing more comes, behind all that was submitted.
    pub(super) fn finish(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        self.finishing = true;
        self.pump(inner, cx);
    }

    pub(super) fn close(&mut self, within: Duration, inner: &mut dyn Driver, cx: &mut Context) {
        let by = inner.now().after(within);
        if matches!(self.phase, Phase::Ending) {
            if self.failure.is_none() {
                // May shorten the time.
                let _ = inner.close(self.id, within);
            }
            return;
        }
        self.wants_input = false;
        let by = self.closing.map_or(by, |old| old.min(by));
        self.closing = Some(by);
        self.deadline = Some(self.deadline.map_or(by, |old| old.min(by)));
        if self.is_shaking_hands() && self.transfers.is_all_sealed() {
            // Nothing was promised to the peer yet.
            return self.end(by, inner);
        }
        self.pump(inner, cx);
        self.discard(inner);
    }

    pub(super) fn abort(&mut self, inner: &mut dyn Driver) {
        self.phase = Phase::Ending;
        (self.stuck, self.is_held_up) = (None, false);
        self.deadline = None;
        // Gone already if this fails.
        let _ = inner.abort(self.id);
    }

    /// The inner driver tells of one of its transfers.
    pub(super) fn completed(&mut self, completion: Completion, cx: &mut Context) {
        if self.forwarding.has(completion.transfer) {
            let completion = self.forwarding.passed_on(completion, self.failure.as_ref());
            return cx.outbox.push(Event::Transfer(completion));
        }
        self.transfers.completed(completion, self.failure.as_ref(), cx);
    }

    /// The inner driver's answer to being asked for input.
    pub(super) fn received(&mut self, received: Received) {
        self.asked = false;
        match received {
            Received::Data(_) if matches!(self.phase, Phase::Ending) => {}
            Received::Data(buffer) if self.is_opened_by_kernel() => {
                self.opened_by_kernel = buffer.len();
                self.opened = Some((buffer, 0));
            }
            Received::Data(buffer) => self.input.add(buffer),
            Received::End | Received::Truncated => self.stream_ended = true,
        }
    }

    /// The same, of what is no payload.
    pub(super) fn received_record(&mut self, record: ReceivedRecord) {
        self.asked = false;
        self.records.push_back(record);
    }

    /// The inner driver has sealed nearly as much as one key may seal.
    pub(super) fn key_is_used_up(&mut self) {
        match (&mut self.phase, &mut self.ending) {
            (Phase::Open(session), _) | (_, Some(session)) => session.is_used_up = true,
            _ => {}
        }
    }

    /// The inner connection is gone; this is the last there is to say.
    pub(super) fn closed(mut self, outcome: CloseOutcome, at: Moment, cx: &mut Context) {
        let reason = match (self.failure.take(), &outcome) {
            (Some(reason), _) => Some(reason),
            (None, CloseOutcome::Failed(reason)) => Some(reason.clone()),
            (None, _) => None,
        };
        if self.is_shaking_hands() {
            cx.outbox.counters.handshakes_failed += 1;
        }
        self.transfers.fail_all(reason.as_ref().unwrap_or(&FailReason::Closed), at, cx);
        let outcome = reason.map_or(outcome, CloseOutcome::Failed);
        cx.outbox.push(Event::Closed { connection: self.id, outcome, at });
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        if matches!(self.phase, Phase::Handshaking(_)) {
            self.shake_hands(inner, cx);
        }
        self.settle(inner, cx);
        self.heed_records(inner, cx);
        self.end_with_keys(inner, cx);
        self.pump(inner, cx);
        self.read(inner, cx);
        self.discard(inner);
    }

    /// It is its turn to have room. Says whether it has to be first again, because all
    /// of the inner driver's memory is still in use.
    pub(super) fn try_again(&mut self, inner: &mut dyn Driver, cx: &mut Context) -> bool {
        self.has_handed_over = false;
        self.go_on(inner, cx);
        self.is_stuck() && self.lacks_shared_memory && !self.has_handed_over
    }

    /// The deadline has passed.
    pub(super) fn expire(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        self.deadline = None;
        let is_closing = self.closing.is_some_and(|by| by <= inner.now());
        let reason = match self.phase {
            Phase::Ending => return,
            Phase::Handshaking(_) | Phase::Settling(_) if !is_closing => {
                TlsFailure::HandshakeTimeout.into()
            }
            _ => FailReason::Timeout,
        };
        self.fail(reason, None, inner, cx);
    }

    /// Whether it waits for the inner driver to have room.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some() || self.is_held_up
    }

    /// Whether that may come with what happens to others, so that it has to be tried again
    /// though nothing is heard of this one.
    pub(super) fn waits_for_others(&self) -> bool {
        self.is_stuck() && !self.lacks_own_room
    }

    fn is_shaking_hands(&self) -> bool {
        matches!(self.phase, Phase::Handshaking(_) | Phase::Settling(_))
    }

    fn is_sealed_by_kernel(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.sealer.is_none())
    }

    fn is_opened_by_kernel(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.opener.is_none())
    }
}
