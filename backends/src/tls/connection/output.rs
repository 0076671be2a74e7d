//! Sealing and handing over what is to be sent.

use super::{Connection, IN_FLIGHT, Phase};
use crate::tls::context::Context;
use crate::tls::record::ContentType;
use crate::tls::sealing::{self, SEGMENT_RECORDS};
use crate::tls::session::{Control, Session, WARNING};
use lastbyte::{
    ConnectionId, ControlRecord, Driver, FailReason, Limit, Payload, RefuseReason, Refused,
    TlsAlert, TlsFailure, TlsVersion, TransferId, Watch,
};

impl Connection {
    /// Seals and hands over as much as may be in flight, and ends the stream, or the
    /// connection, after the last of it if that is wanted.
    pub(super) fn pump(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        loop {
            // Who waits longer goes first.
            if cx.room_is_claimed && self.stuck.is_some() {
                self.lacks_own_room = false;
                return;
            }
            if !self.unstick(inner) {
                return;
            }
            self.is_held_up = false;
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
            if cx.room_is_claimed {
                (self.is_held_up, self.lacks_own_room) = (true, false);
                return;
            }
            if let Err(reason) = self.seal_some(room, inner, cx) {
                return self.fail(reason, Some(TlsAlert::INTERNAL_ERROR), inner, cx);
            }
        }
        if !self.finishing && self.closing.is_none() {
            return;
        }
        let alert = [WARNING, TlsAlert::CLOSE_NOTIFY.code()];
        if !std::mem::replace(&mut self.said_goodbye, true)
            && let Err(failure) = self.send_control(ContentType::Alert, &alert, inner, cx)
        {
            return self.fail(failure.into(), None, inner, cx);
        }
        match self.closing {
            _ if self.stuck.is_some() => {}
            Some(by) => self.end(by, inner),
            // If this fails the connection is over, and that is about to be said.
            None => drop(inner.finish(self.id)),
        }
    }

    /// The same where the kernel seals. Says whether all was handed over.
    pub(super) fn pump_kernel(
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
            self.is_held_up = cx.room_is_claimed && !self.transfers.is_all_sealed();
            if self.is_held_up {
                self.lacks_own_room = false;
                return Ok(false);
            }
            let Some((payload, watch)) = self.transfers.hand_on(cx) else { return Ok(true) };
            match inner.submit(self.id, payload, watch) {
                Ok(number) => {
                    self.has_handed_over = true;
                    let own = self.transfers.handed_on();
                    self.forwarding.entered(own, number, watch);
                }
                Err(Refused { value, reason }) => {
                    self.transfers.take_back(value, cx);
                    self.is_held_up = self.waits_because_of(&reason);
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
    pub(super) fn forward(
        &mut self,
        payload: Payload,
        watch: Watch,
        inner: &mut dyn Driver,
    ) -> Result<TransferId, Refused<Payload>> {
        if let Err(reason) = self.transfers.has_place(self.forwarding.len()) {
            return Err(Refused::new(payload, reason));
        }
        let number = inner.submit(self.id, payload, watch)?;
        let own = self.transfers.skip();
        self.forwarding.entered(own, number, watch);
        Ok(own)
    }

    /// Seals the next segment and hands it over.
    pub(super) fn seal_some(
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
        let at = cx.now(inner);
        let watch = self.transfers.sealed(sealed.contents.into_iter(), overhead, began, at, cx);
        self.hand_over(sealed.payload, watch, inner);
        Ok(())
    }

    /// Seals and hands over something that is no payload.
    pub(super) fn send_control(
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
    pub(super) fn hand_over(&mut self, payload: Payload, watch: Watch, inner: &mut dyn Driver) {
        debug_assert!(self.stuck.is_none(), "something waits to be sent before this");
        match inner.submit(self.id, payload, watch) {
            Ok(_) => self.has_handed_over = true,
            Err(refused) if self.waits_because_of(&refused.reason) => {
                self.stuck = Some((refused.value, watch));
            }
            // The connection is over; the inner driver is about to say so.
            Err(_) => self.phase = Phase::Ending,
        }
    }

    /// Whether there will be room later, for what was refused because of `reason`.
    fn waits_because_of(&mut self, reason: &RefuseReason) -> bool {
        let RefuseReason::BackPressure { limit, .. } = reason else { return false };
        self.lacks_shared_memory = *limit == Limit::DriverMemory;
        self.lacks_own_room = matches!(limit, Limit::ConnectionMemory | Limit::ConnectionTransfers);
        true
    }

    /// Hands over what had to wait, and says whether nothing waits any more.
    pub(super) fn unstick(&mut self, inner: &mut dyn Driver) -> bool {
        if let Some((payload, watch)) = self.stuck.take() {
            self.hand_over(payload, watch, inner);
        }
        self.stuck.is_none()
    }
}

/// Has the kernel change the key that it seals with.
pub(super) fn change_key(
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

pub(super) fn record(kind: ContentType, content: &[u8]) -> ControlRecord {
    ControlRecord { content_type: kind.code(), content: content.to_vec() }
}
