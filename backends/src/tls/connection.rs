//! One TLS connection: its phases, and what follows from what happens.

use super::context::Context;
use super::forwarding::Forwarding;
use super::handshake::{Established, Handshake, Step};
use super::input::Input;
use super::record::{ContentType, Violation};
use super::sealing::{self, SEGMENT_RECORDS};
use super::session::{Control, FATAL, Session, SessionTerms, Stop, WARNING};
use super::transfers::Transfers;
use crate::sys::tls_ulp;
use lastbyte::{
    AttachOptions, CloseOutcome, Completion, ConnectionId, ControlRecord, Driver, Event,
    FailReason, Limit, Moment, OffloadError, OffloadOptions, OffloadWish, Offloaded, Payload,
    PooledBuf, Received, ReceivedRecord, RefuseReason, Refused, Time, TlsAlert, TlsEstablished,
    TlsFailure, TlsSession, TlsVersion, TrafficKeys, TransferId, Transport, Watch,
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
    /// The user wants it closed, by then.
    closing: Option<Time>,
    /// The peer was told that nothing more comes.
    said_goodbye: bool,
    /// Sealed, but the inner driver has no room: before anything else.
    stuck: Option<(Payload, Watch)>,
    /// A payload that the kernel is to seal waits for room.
    is_held_up: bool,
    /// Why it ends, where that was found out here.
    failure: Option<FailReason>,
    /// When something has to have happened.
    pub(super) deadline: Option<Time>,
    /// The deadline that an alarm is set for.
    pub(super) armed: Option<Time>,
    /// It waits to be looked after in this turn.
    pub(super) is_touched: bool,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        handshake: Box<dyn Handshake>,
        options: &AttachOptions,
        wish: OffloadWish,
        by: Time,
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
            closing: None,
            said_goodbye: false,
            stuck: None,
            is_held_up: false,
            failure: None,
            deadline: Some(by),
            armed: None,
            is_touched: false,
        }
    }

    /// The first step of the handshake: a client's is to speak.
    pub(super) fn start(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        self.reads_exactly = self.wish != OffloadWish::Never && cx.offload.receives;
        self.step(&mut [], inner, cx);
        self.go_on(inner, cx);
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
        if self.closing.is_some() || matches!(self.phase, Phase::Ending) {
            return Err(Refused::new(payload, RefuseReason::Closing));
        }
        if self.is_sealed_by_kernel() && self.transfers.is_all_sealed() && self.stuck.is_none() {
            return self.forward(payload, watch, inner);
        }
        let transfer = self.transfers.submit(payload, watch, cx)?;
        self.pump(inner, cx);
        Ok(transfer)
    }

    pub(super) fn receive(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        if self.closing.is_some() || matches!(self.phase, Phase::Ending) {
            return;
        }
        // Until the user has it, asking again is asking for the same.
        if self.answered_in == Some(cx.deliveries) {
            return;
        }
        self.wants_input = true;
        self.read(inner, cx);
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

    fn is_shaking_hands(&self) -> bool {
        matches!(self.phase, Phase::Handshaking(_) | Phase::Settling(_))
    }

    fn is_sealed_by_kernel(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.sealer.is_none())
    }

    fn is_opened_by_kernel(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.opener.is_none())
    }

    // ---- the handshake ----

    fn shake_hands(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        while matches!(self.phase, Phase::Handshaking(_)) {
            if !self.unstick(inner) {
                return;
            }
            let mut violation = None;
            let mut records = match self.input.peek() {
                Ok(Some(header)) => self.input.take(&header, <[u8]>::to_vec),
                Ok(None) if self.stream_ended => {
                    let reason = TlsFailure::HandshakeTruncated.into();
                    return self.fail(reason, None, inner, cx);
                }
                Ok(None) => return self.ask(inner),
                // The library refuses it with an alert that the peer understands.
                Err(bad) => {
                    violation = Some(bad);
                    self.input.take_all()
                }
            };
            self.step(&mut records, inner, cx);
            if let (Some(Violation { what, alert }), Phase::Handshaking(_)) =
                (violation, &self.phase)
            {
                self.fail(TlsFailure::PeerViolation { what, alert }.into(), None, inner, cx);
            }
        }
    }

    /// Lets the library take `records` and sends what it has to say.
    fn step(&mut self, records: &mut [u8], inner: &mut dyn Driver, cx: &mut Context) {
        let Phase::Handshaking(handshake) = &mut self.phase else { return };
        let mut out = Vec::new();
        let result = handshake.advance(records, &mut out);
        if !out.is_empty() {
            self.transfers.control(out.len() as u64, 0, cx);
            self.hand_over(Payload::from(out), Watch::NONE, inner);
        }
        match result {
            Ok(Step::Blocked) => {}
            Ok(Step::Done) => self.establish(inner, cx),
            Err(reason) => {
                let reason = reason.into_boxed_str();
                self.fail(TlsFailure::Handshake { reason }.into(), None, inner, cx);
            }
        }
    }

    fn establish(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let Phase::Handshaking(handshake) = std::mem::replace(&mut self.phase, Phase::Ending)
        else {
            return;
        };
        match handshake.establish() {
            Ok(established) => {
                self.phase = Phase::Settling(Box::new(established));
                self.settle(inner, cx);
            }
            Err(reason) => {
                cx.outbox.counters.handshakes_failed += 1;
                let reason = reason.into_boxed_str();
                self.fail(TlsFailure::Handshake { reason }.into(), None, inner, cx);
            }
        }
    }

    /// Decides who has the record layer from now on: the kernel gets it if that
    /// is wished for and can be had, and is given the keys when the handshake's
    /// last bytes are written.
    fn settle(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        if !matches!(self.phase, Phase::Settling(_)) {
            return;
        }
        let Phase::Settling(established) = std::mem::replace(&mut self.phase, Phase::Ending) else {
            return;
        };
        let Established { version, cipher, transmit, receive, record_limit, schedule } =
            *established;
        let record_limit = record_limit.min(cx.rekey_after.max(1));
        let keys =
            TlsSession { version, cipher, transmit, receive, early_data: Vec::new(), record_limit };
        match self.offload(keys, inner, cx) {
            Settled::NotYet(keys) => {
                let TlsSession { transmit, receive, .. } = *keys;
                self.phase = Phase::Settling(Box::new(Established {
                    version,
                    cipher,
                    transmit,
                    receive,
                    record_limit,
                    schedule,
                }));
            }
            Settled::Yes { transmit, receive, declined } => {
                let terms = SessionTerms { version, cipher, record_limit, schedule };
                let session = Session::new(terms, transmit.as_ref(), receive.as_ref());
                self.open(session, declined, inner, cx);
            }
            Settled::Broken { doing, errno } => {
                cx.outbox.counters.handshakes_failed += 1;
                self.fail(TlsFailure::OffloadBroken { doing, errno }.into(), None, inner, cx);
            }
        }
    }

    /// The handshake is over, and this came of it.
    fn open(
        &mut self,
        session: Result<Session, TlsFailure>,
        declined: Option<RefuseReason>,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) {
        let session = match session {
            Ok(session) => session,
            Err(failure) => {
                cx.outbox.counters.handshakes_failed += 1;
                return self.fail(failure.into(), None, inner, cx);
            }
        };
        let transport =
            |in_user_space| if in_user_space { Transport::UserTls } else { Transport::KernelTls };
        let tls = TlsEstablished {
            version: session.version,
            cipher: session.cipher(),
            transmit: transport(session.sealer.is_some()),
            receive: transport(session.opener.is_some()),
            declined,
        };
        self.phase = Phase::Open(Box::new(session));
        self.deadline = self.closing;
        self.reads_exactly = false;
        if let (OffloadWish::Require, Some(why)) = (self.wish, &tls.declined) {
            cx.outbox.counters.handshakes_failed += 1;
            let why = why.clone();
            let alert = Some(TlsAlert::INTERNAL_ERROR);
            return self.fail(TlsFailure::NotOffloaded { why }.into(), alert, inner, cx);
        }
        let counters = &mut cx.outbox.counters;
        counters.handshakes += 1;
        counters.offloaded_transmit += u64::from(tls.transmit == Transport::KernelTls);
        counters.offloaded_receive += u64::from(tls.receive == Transport::KernelTls);
        let at = cx.now(inner);
        cx.outbox.push(Event::TlsEstablished { connection: self.id, tls, at });
    }

    /// Gives the keys to the inner driver, if that is wished for.
    fn offload(&mut self, keys: TlsSession, inner: &mut dyn Driver, cx: &mut Context) -> Settled {
        if self.wish == OffloadWish::Never {
            return Settled::Yes {
                transmit: Some(keys.transmit),
                receive: Some(keys.receive),
                declined: None,
            };
        }
        if !self.unstick(inner) {
            return Settled::NotYet(Box::new(keys));
        }
        let mut options = OffloadOptions::from(self.wish);
        options.unchanging_files = cx.offload.unchanging_files;
        if !self.input.is_empty() {
            // A record that was begun here has to be finished here.
            if self.wish == OffloadWish::Require {
                let what = "input was read ahead of the end of the handshake";
                let declined = Some(RefuseReason::Unsupported { what });
                let TlsSession { transmit, receive, .. } = keys;
                return Settled::Yes { transmit: Some(transmit), receive: Some(receive), declined };
            }
            options.receive = OffloadWish::Never;
        }
        match inner.offload_tls(self.id, keys, options) {
            Ok(Offloaded { transmit, receive, left }) => {
                let is_sealed = transmit == Transport::KernelTls;
                let is_opened = receive == Transport::KernelTls;
                let (transmit, receive) = if is_sealed { (None, left) } else { (left, None) };
                let what = "one direction stays in user space";
                let declined =
                    (!is_sealed || !is_opened).then_some(RefuseReason::Unsupported { what });
                Settled::Yes { transmit, receive, declined }
            }
            Err(OffloadError::Refused(Refused { value, reason })) => {
                if matches!(reason, RefuseReason::BackPressure { limit: Limit::Unwritten, .. }) {
                    return Settled::NotYet(Box::new(value));
                }
                let TlsSession { transmit, receive, .. } = value;
                let declined = Some(reason);
                Settled::Yes { transmit: Some(transmit), receive: Some(receive), declined }
            }
            Err(OffloadError::Broken { doing, errno }) => Settled::Broken { doing, errno },
            Err(_) => Settled::Broken { doing: "handing TLS to the kernel", errno: 0 },
        }
    }

    // ---- output ----

    /// Seals and hands over as much as may be in flight, and ends the connection
    /// after the last of it if that is wanted.
    fn pump(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        loop {
            if !self.unstick(inner) {
                return;
            }
            if self.is_sealed_by_kernel() {
                match self.pump_kernel(inner, cx) {
                    Ok(true) => break,
                    Ok(false) => return,
                    Err(reason) => {
                        let alert = Some(TlsAlert::INTERNAL_ERROR);
                        return self.fail(reason, alert, inner, cx);
                    }
                }
            }
            let Phase::Open(session) = &mut self.phase else { return };
            if self.said_goodbye {
                break;
            }
            let room = IN_FLIGHT.saturating_sub(self.transfers.in_flight());
            if room == 0 {
                return;
            }
            if let Some(control) = session.control_due() {
                match self.send_control(control.kind(), control.content(), inner, cx) {
                    Ok(()) => {}
                    Err(failure) => return self.fail(failure.into(), None, inner, cx),
                }
                if let Phase::Open(session) = &mut self.phase
                    && let Err(failure) = session.control_sealed(control)
                {
                    return self.fail(failure.into(), None, inner, cx);
                }
                continue;
            }
            if self.transfers.is_all_sealed() {
                break;
            }
            if let Err(reason) = self.seal_some(room, inner, cx) {
                return self.fail(reason, Some(TlsAlert::INTERNAL_ERROR), inner, cx);
            }
        }
        if let Some(by) = self.closing {
            let alert = [WARNING, TlsAlert::CLOSE_NOTIFY.code()];
            if !std::mem::replace(&mut self.said_goodbye, true)
                && let Err(failure) = self.send_control(ContentType::Alert, &alert, inner, cx)
            {
                return self.fail(failure.into(), None, inner, cx);
            }
            if self.stuck.is_none() {
                self.end(by, inner);
            }
        }
    }

    /// The same where the kernel seals. Says whether all was handed over.
    fn pump_kernel(
        &mut self,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Result<bool, FailReason> {
        while !self.said_goodbye {
            let Phase::Open(session) = &mut self.phase else { return Ok(false) };
            if session.is_used_up && session.version == TlsVersion::Tls12 {
                return Err(TlsFailure::KeyExhausted.into());
            }
            match session.control_due() {
                Some(Control::KeyUpdate) => {
                    change_key(session, self.id, inner)?;
                    continue;
                }
                Some(control @ Control::RefuseRenegotiation) => {
                    let message = record(control.kind(), control.content());
                    // There is one of these at the most, so there is room.
                    drop(inner.submit_record(self.id, message));
                    session.refused();
                    continue;
                }
                None => {}
            }
            self.is_held_up = false;
            let Some((payload, watch)) = self.transfers.hand_on(cx) else { return Ok(true) };
            match inner.submit(self.id, payload, watch) {
                Ok(number) => {
                    let own = self.transfers.handed_on();
                    self.forwarding.entered(own, number, watch);
                }
                Err(Refused { value, reason }) => {
                    self.transfers.take_back(value, cx);
                    self.is_held_up = matches!(reason, RefuseReason::BackPressure { .. });
                    if !self.is_held_up {
                        // The connection is over; the inner driver is about to
                        // say so.
                        self.phase = Phase::Ending;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Has the kernel seal a payload as the next.
    fn forward(
        &mut self,
        payload: Payload,
        watch: Watch,
        inner: &mut dyn Driver,
    ) -> Result<TransferId, Refused<Payload>> {
        let (outstanding, allowed) = (self.forwarding.len(), self.transfers.max_transfers());
        if outstanding >= allowed {
            let reason = RefuseReason::BackPressure {
                limit: Limit::ConnectionTransfers,
                outstanding: outstanding as u64,
                allowed: allowed as u64,
            };
            return Err(Refused::new(payload, reason));
        }
        let number = inner.submit(self.id, payload, watch)?;
        let own = self.transfers.skip();
        self.forwarding.entered(own, number, watch);
        Ok(own)
    }

    /// Seals the next segment and hands it over.
    fn seal_some(
        &mut self,
        room: usize,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Result<(), FailReason> {
        let (Phase::Open(session), Some(unsealed)) = (&mut self.phase, self.transfers.unsealed())
        else {
            return Ok(());
        };
        let began = inner.now();
        let left = usize::try_from(session.records_left()).unwrap_or(usize::MAX);
        if left == 0 {
            return Err(TlsFailure::KeyExhausted.into());
        }
        let Some(sealer) = &mut session.sealer else { return Ok(()) };
        let sealed = sealing::seal(
            sealer,
            unsealed.payload,
            unsealed.offset,
            room.min(SEGMENT_RECORDS).min(left),
            &cx.records,
        )?;
        let overhead = sealer.overhead() as u64;
        cx.outbox.counters.copied_to_seal_bytes += sealed.copied;
        let watch = self.transfers.sealed(sealed.contents.into_iter(), overhead, began, cx);
        self.hand_over(sealed.payload, watch, inner);
        Ok(())
    }

    /// Seals and hands over something that is no payload.
    fn send_control(
        &mut self,
        kind: ContentType,
        content: &[u8],
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Result<(), TlsFailure> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        let Some(sealer) = &mut session.sealer else {
            // If it is refused the connection is over, or the peer does not read:
            // it learns of the end in another way.
            drop(inner.submit_record(self.id, record(kind, content)));
            return Ok(());
        };
        let mut out = cx.records.take();
        sealer.seal(kind, content, &mut out)?;
        self.transfers.control(out.len() as u64, 1, cx);
        self.hand_over(Payload::from(out), Watch::NONE, inner);
        Ok(())
    }

    /// Gives ciphertext to the inner driver; keeps it if that has no room.
    fn hand_over(&mut self, payload: Payload, watch: Watch, inner: &mut dyn Driver) {
        debug_assert!(self.stuck.is_none(), "something waits to be sent before this");
        match inner.submit(self.id, payload, watch) {
            Ok(_) => {}
            Err(refused) if matches!(refused.reason, RefuseReason::BackPressure { .. }) => {
                self.stuck = Some((refused.value, watch));
            }
            // The connection is over; the inner driver is about to say so.
            Err(_) => self.phase = Phase::Ending,
        }
    }

    /// Hands over what had to wait, and says whether nothing waits any more.
    fn unstick(&mut self, inner: &mut dyn Driver) -> bool {
        if let Some((payload, watch)) = self.stuck.take() {
            self.hand_over(payload, watch, inner);
        }
        self.stuck.is_none()
    }

    // ---- input ----

    /// Answers the user's wish for input, as far as there is some.
    fn read(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        while self.wants_input {
            if self.opened.is_some() {
                return self.answer(inner, cx);
            }
            let Phase::Open(session) = &mut self.phase else { return };
            if session.opener.is_none() {
                if session.has_ended {
                    self.tell(Received::End, inner, cx);
                } else if self.stream_ended {
                    self.tell(Received::Truncated, inner, cx);
                } else {
                    self.ask(inner);
                }
                break;
            }
            let mut out = cx.opened.take();
            let stop = if session.has_ended {
                None
            } else {
                open_some(session, &mut self.input, &mut out, cx.receive_buffer).err()
            };
            let has_ended = session.has_ended;
            if !out.is_empty() {
                self.opened = Some((out, 0));
                self.answer(inner, cx);
            }
            if let Some(stop) = stop {
                return self.stop(stop, inner, cx);
            }
            if self.wants_input {
                if has_ended {
                    self.input.clear();
                    self.tell(Received::End, inner, cx);
                } else if self.stream_ended {
                    self.tell(Received::Truncated, inner, cx);
                } else {
                    self.ask(inner);
                    break;
                }
            }
        }
        // An answer may be due to what came.
        if let Phase::Open(session) = &self.phase
            && session.control_due().is_some()
        {
            self.pump(inner, cx);
        }
    }

    /// Yields what was opened, or as much of it as one receive may.
    fn answer(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let Some((opened, used)) = self.opened.take() else { return };
        let rest = &opened[used..];
        if used == 0 && rest.len() <= cx.receive_buffer {
            return self.tell(Received::Data(opened), inner, cx);
        }
        let mut piece = cx.opened.take();
        let len = rest.len().min(cx.receive_buffer.max(1));
        piece.append(&rest[..len]);
        if len < rest.len() {
            self.opened = Some((opened, used + len));
        }
        self.tell(Received::Data(piece), inner, cx);
    }

    fn tell(&mut self, received: Received, inner: &mut dyn Driver, cx: &mut Context) {
        self.wants_input = false;
        self.answered_in = Some(cx.deliveries);
        let at = cx.now(inner);
        cx.outbox.push(Event::Received { connection: self.id, received, at });
    }

    fn ask(&mut self, inner: &mut dyn Driver) {
        if self.asked || self.stream_ended {
            return;
        }
        if self.reads_exactly {
            match inner.receive_at_most(self.id, self.input.missing()) {
                Ok(()) => self.asked = true,
                // Then it is read ahead, and stays here.
                Err(RefuseReason::Unsupported { .. }) => self.reads_exactly = false,
                Err(_) => return,
            }
        }
        if !self.asked {
            // If this fails the connection is over, and that is about to be said.
            self.asked = inner.receive(self.id).is_ok();
        }
    }

    /// Acts on what came where the kernel opens records.
    fn heed_records(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let payload = std::mem::take(&mut self.opened_by_kernel);
        if let (Phase::Open(session), true) = (&mut self.phase, payload > 0)
            && let Err(stop) = session.data(payload)
        {
            return self.stop(stop, inner, cx);
        }
        while let Some(record) = self.records.pop_front() {
            let session = match &mut self.phase {
                Phase::Open(session) => session,
                _ => match &mut self.ending {
                    Some(session) => session,
                    None => return self.records.clear(),
                },
            };
            let heeded = heed(session, &record);
            if let Some(keys) = session.take_next_receive() {
                // If this fails the connection is over, and that is about to be
                // said.
                drop(inner.update_receive_key(self.id, keys));
            }
            if let (Err(stop), Phase::Open(_)) = (heeded, &self.phase) {
                self.records.clear();
                return self.stop(stop, inner, cx);
            }
        }
    }

    // ---- the end ----

    /// The session cannot go on because of what was received.
    fn stop(&mut self, stop: Stop, inner: &mut dyn Driver, cx: &mut Context) {
        let (failure, alert) = match stop {
            Stop::Violation(Violation { what, alert }) => {
                (TlsFailure::PeerViolation { what, alert }, Some(alert))
            }
            Stop::Alert(alert) => (TlsFailure::PeerAlert(alert), None),
            Stop::Failed(failure) => (failure, Some(TlsAlert::INTERNAL_ERROR)),
        };
        self.fail(failure.into(), alert, inner, cx);
    }

    /// Ends the connection because of something that was found out here. What
    /// was sealed goes on until the inner driver knows what becomes of it.
    fn fail(
        &mut self,
        reason: FailReason,
        alert: Option<TlsAlert>,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(reason.clone());
        let at = cx.now(inner);
        self.transfers.fail_unsealed(&reason, at, cx);
        self.is_held_up = false;
        (self.wants_input, self.opened) = (false, None);
        self.input.clear();
        if self.is_shaking_hands() {
            cx.outbox.counters.handshakes_failed += 1;
        }
        let is_in_order = self.unstick(inner);
        if let (true, Some(alert)) = (is_in_order && !self.said_goodbye, alert) {
            // If it cannot be sealed, the peer learns of the end all the same.
            let _ = self.send_control(ContentType::Alert, &[FATAL, alert.code()], inner, cx);
        }
        // What cannot be finished is reset, so that the peer can tell.
        match reason {
            FailReason::Tls(TlsFailure::HandshakeTimeout) => self.abort(inner),
            FailReason::Tls(_) if self.stuck.is_none() => {
                self.end(inner.now().after(LAST_WORDS), inner);
            }
            _ => self.abort(inner),
        }
    }

    /// What the inner driver still has to send takes another key.
    fn end_with_keys(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let Some(session) = self.ending.as_mut().filter(|session| session.is_used_up) else {
            return;
        };
        if session.version == TlsVersion::Tls12 {
            session.is_used_up = false;
            return self.fail(TlsFailure::KeyExhausted.into(), None, inner, cx);
        }
        if let Err(failure) = change_key(session, self.id, inner) {
            self.fail(failure.into(), None, inner, cx);
        }
    }

    /// Has the inner driver send what it was given, and end the stream.
    fn end(&mut self, by: Time, inner: &mut dyn Driver) {
        if let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Ending)
            && (session.opener.is_none() || session.sealer.is_none())
        {
            self.ending = Some(session);
        }
        self.is_held_up = false;
        self.deadline = None;
        self.input.clear();
        // Gone already if this fails.
        let _ = inner.close(self.id, by.since(inner.now()));
    }
}

/// What became of the keys.
enum Settled {
    /// They cannot be handed over before more is written.
    NotYet(Box<TlsSession>),
    /// Those of the directions that stay here, and why that is not what was
    /// wished for.
    Yes {
        transmit: Option<TrafficKeys>,
        receive: Option<TrafficKeys>,
        declined: Option<RefuseReason>,
    },
    /// The inner driver has lost them.
    Broken { doing: &'static str, errno: i32 },
}

/// Has the kernel change the key that it seals with.
fn change_key(
    session: &mut Session,
    id: ConnectionId,
    inner: &mut dyn Driver,
) -> Result<(), TlsFailure> {
    let keys = session.next_transmit()?;
    let message = record(Control::KeyUpdate.kind(), Control::KeyUpdate.content());
    let taken = inner.update_transmit_key(id, message, keys);
    // It is refused if an earlier one waits, which is an answer to whatever the
    // peer has asked for; or at the end.
    session.key_update_sent(taken.err().map(|refused| refused.value));
    Ok(())
}

fn record(kind: ContentType, content: &[u8]) -> ControlRecord {
    ControlRecord { content_type: kind.code(), content: content.to_vec() }
}

/// What a record means that the kernel has opened, or has not.
fn heed(session: &mut Session, record: &ReceivedRecord) -> Result<(), Stop> {
    match record {
        ReceivedRecord::Control(ControlRecord { content_type, content }) => {
            match ContentType::from_code(*content_type) {
                Some(ContentType::Alert) => session.alert(content),
                Some(ContentType::Handshake) => session.handshake(content),
                _ => {
                    let what = "a record comes after its time, or is of no known type";
                    Err(Violation::unexpected(what).into())
                }
            }
        }
        ReceivedRecord::Unopened { errno } => {
            let (what, alert) = match *errno {
                libc::EBADMSG => ("a record is not authentic", TlsAlert::BAD_RECORD_MAC),
                libc::EMSGSIZE => ("a record is too long", TlsAlert::RECORD_OVERFLOW),
                tls_ulp::NEEDS_KEY => ("a KeyUpdate is cut", TlsAlert::DECODE_ERROR),
                _ => ("what it sent is no TLS record", TlsAlert::UNEXPECTED_MESSAGE),
            };
            Err(Violation::new(what, alert).into())
        }
    }
}

/// Opens records into `out` until it is as full as a receive may be, or there
/// are no more. What was opened before an error is in `out`.
fn open_some(
    session: &mut Session,
    input: &mut Input,
    out: &mut PooledBuf,
    enough: usize,
) -> Result<(), Stop> {
    while out.len() < enough && !session.has_ended {
        let Some(header) = input.peek()? else { return Ok(()) };
        let Some(opener) = &mut session.opener else { return Ok(()) };
        let room = opener.room(&header);
        if room > out.spare().len() {
            return Ok(());
        }
        let spare = &mut out.spare()[..room];
        let opened = input.take(&header, |record| {
            opener.open(&header, &record[super::record::HEADER..], spare)
        })?;
        let content = &spare[..opened.len];
        match opened.kind {
            ContentType::ApplicationData => {
                session.data(opened.len)?;
                out.advance(opened.len);
            }
            ContentType::Alert => session.alert(content)?,
            ContentType::Handshake => session.handshake(content)?,
            ContentType::ChangeCipherSpec => {
                let what = "a change_cipher_spec comes after its time";
                return Err(Violation::unexpected(what).into());
            }
        }
    }
    Ok(())
}
