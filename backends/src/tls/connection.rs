//! One TLS connection: its phases, and what follows from what happens.

use super::context::Context;
use super::handshake::{Handshake, Step};
use super::input::Input;
use super::record::{ContentType, Violation};
use super::sealing::{self, SEGMENT_RECORDS};
use super::session::{FATAL, Session, Stop, WARNING};
use super::transfers::Transfers;
use lastbyte::{
    AttachOptions, CloseOutcome, Completion, ConnectionId, Driver, Event, FailReason, Moment,
    Payload, PooledBuf, Received, RefuseReason, Refused, Time, TlsAlert, TlsFailure, TransferId,
    Watch,
};
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
    Open(Box<Session>),
    /// The inner driver was told to end it; nothing more is sent.
    Ending,
}

#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    phase: Phase,
    transfers: Transfers,
    input: Input,
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
        by: Time,
    ) -> Self {
        Self {
            id,
            phase: Phase::Handshaking(handshake),
            transfers: Transfers::new(id, options.max_memory, options.max_transfers),
            input: Input::default(),
            opened: None,
            wants_input: false,
            asked: false,
            answered_in: None,
            stream_ended: false,
            closing: None,
            said_goodbye: false,
            stuck: None,
            failure: None,
            deadline: Some(by),
            armed: None,
            is_touched: false,
        }
    }

    /// The first step of the handshake: a client's is to speak.
    pub(super) fn start(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
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
        if matches!(self.phase, Phase::Handshaking(_)) && self.transfers.is_all_sealed() {
            // Nothing was promised to the peer yet.
            return self.end(by, inner);
        }
        self.pump(inner, cx);
    }

    pub(super) fn abort(&mut self, inner: &mut dyn Driver) {
        self.phase = Phase::Ending;
        self.stuck = None;
        self.deadline = None;
        // Gone already if this fails.
        let _ = inner.abort(self.id);
    }

    /// The inner driver tells of one of its transfers.
    pub(super) fn completed(&mut self, completion: Completion, cx: &mut Context) {
        self.transfers.completed(completion, self.failure.as_ref(), cx);
    }

    /// The inner driver's answer to being asked for input.
    pub(super) fn received(&mut self, received: Received) {
        self.asked = false;
        match received {
            Received::Data(_) if matches!(self.phase, Phase::Ending) => {}
            Received::Data(buffer) => self.input.add(buffer),
            Received::End | Received::Truncated => self.stream_ended = true,
        }
    }

    /// The inner connection is gone; this is the last there is to say.
    pub(super) fn closed(mut self, outcome: CloseOutcome, at: Moment, cx: &mut Context) {
        let reason = match (self.failure.take(), &outcome) {
            (Some(reason), _) => Some(reason),
            (None, CloseOutcome::Failed(reason)) => Some(reason.clone()),
            (None, _) => None,
        };
        if matches!(self.phase, Phase::Handshaking(_)) {
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
        self.pump(inner, cx);
        self.read(inner, cx);
    }

    /// The deadline has passed.
    pub(super) fn expire(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        self.deadline = None;
        let is_closing = self.closing.is_some_and(|by| by <= inner.now());
        let reason = match self.phase {
            Phase::Ending => return,
            Phase::Handshaking(_) if !is_closing => TlsFailure::HandshakeTimeout.into(),
            _ => FailReason::Timeout,
        };
        self.fail(reason, None, inner, cx);
    }

    /// Whether it waits for the inner driver to have room.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
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
        let session = handshake
            .establish()
            .map_err(|reason| TlsFailure::Handshake { reason: reason.into_boxed_str() })
            .and_then(|established| Session::new(established, cx.rekey_after));
        match session {
            Ok(session) => {
                cx.outbox.counters.handshakes += 1;
                self.phase = Phase::Open(Box::new(session));
                self.deadline = self.closing;
            }
            Err(failure) => {
                cx.outbox.counters.handshakes_failed += 1;
                self.fail(failure.into(), None, inner, cx);
            }
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
        let sealed = sealing::seal(
            &mut session.sealer,
            unsealed.payload,
            unsealed.offset,
            room.min(SEGMENT_RECORDS).min(left),
            &cx.records,
        )?;
        let overhead = session.sealer.overhead() as u64;
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
        let mut out = cx.records.take();
        session.sealer.seal(kind, content, &mut out)?;
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
        if !self.asked && !self.stream_ended {
            // If this fails the connection is over, and that is about to be said.
            self.asked = inner.receive(self.id).is_ok();
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
        (self.wants_input, self.opened) = (false, None);
        self.input.clear();
        if matches!(self.phase, Phase::Handshaking(_)) {
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

    /// Has the inner driver send what it was given, and end the stream.
    fn end(&mut self, by: Time, inner: &mut dyn Driver) {
        self.phase = Phase::Ending;
        self.deadline = None;
        self.input.clear();
        // Gone already if this fails.
        let _ = inner.close(self.id, by.since(inner.now()));
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
        let room = session.opener.room(&header);
        if room > out.spare().len() {
            return Ok(());
        }
        let spare = &mut out.spare()[..room];
        let opener = &mut session.opener;
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
