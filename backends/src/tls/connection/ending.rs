//! How a connection ends, and what it says last.

use super::output::change_key;
use super::{Connection, LAST_WORDS, Phase};
use crate::tls::context::Context;
use crate::tls::record::{ContentType, Violation};
use crate::tls::session::{FATAL, Stop};
use lastbyte::{Driver, FailReason, Time, TlsAlert, TlsFailure, TlsVersion};

impl Connection {
    /// The session cannot go on because of what was received.
    pub(super) fn stop(&mut self, stop: Stop, inner: &mut dyn Driver, cx: &mut Context) {
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
    pub(super) fn fail(
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
        let is_told = matches!(reason, FailReason::Tls(_)) || alert.is_some();
        if let (true, Some(alert)) = (is_in_order && !self.said_goodbye, alert) {
            // If it cannot be sealed, the peer learns of the end all the same.
            let _ = self.send_control(ContentType::Alert, &[FATAL, alert.code()], inner, cx);
        }
        // What cannot be finished is reset, so that the peer can tell, unless an alert
        // tells it: a reset would overtake that.
        match reason {
            FailReason::Tls(TlsFailure::HandshakeTimeout) => self.abort(inner),
            _ if is_told && self.stuck.is_none() => {
                self.end(inner.now().after(LAST_WORDS), inner);
            }
            _ => self.abort(inner),
        }
    }

    /// What the inner driver still has to send takes another key, though all was
    /// handed over.
    pub(super) fn end_with_keys(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let session = match (&mut self.phase, &mut self.ending) {
            (Phase::Open(session), _) if self.said_goodbye => session,
            (_, Some(session)) => session,
            _ => return,
        };
        if !session.is_used_up {
            return;
        }
        if session.version == TlsVersion::Tls12 {
            // The rest may still fit. If not, the inner driver says so.
            session.is_used_up = false;
            return;
        }
        if let Err(failure) = change_key(session, self.id, inner) {
            self.fail(failure.into(), None, inner, cx);
        }
    }

    /// Has the inner driver send what it was given, and end the stream.
    pub(super) fn end(&mut self, by: Time, inner: &mut dyn Driver) {
        if let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Ending)
            && (session.opener.is_none() || session.sealer.is_none())
        {
            self.ending = Some(session);
        }
        // Nobody is to wait behind what will not be taken any more.
        (self.stuck, self.is_held_up) = (None, false);
        self.deadline = None;
        self.input.clear();
        // Gone already if this fails.
        let _ = inner.close(self.id, by.since(inner.now()));
    }
}
