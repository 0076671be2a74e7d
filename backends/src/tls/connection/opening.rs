//! The handshake, and who has the record layer after it.

use super::{Connection, Phase};
use crate::tls::context::Context;
use crate::tls::handshake::{Established, Step};
use crate::tls::record::Violation;
use crate::tls::session::{Session, SessionTerms};
use lastbyte::{
    Driver, Event, Limit, OffloadError, OffloadOptions, OffloadWish, Offloaded, Payload,
    RefuseReason, Refused, TlsAlert, TlsEstablished, TlsFailure, TlsPeer, TlsSession, TrafficKeys,
    Transport, Watch,
};

impl Connection {
    pub(super) fn shake_hands(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
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
    pub(super) fn step(&mut self, records: &mut [u8], inner: &mut dyn Driver, cx: &mut Context) {
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

    pub(super) fn establish(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
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
    pub(super) fn settle(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        if !matches!(self.phase, Phase::Settling(_)) {
            return;
        }
        let Phase::Settling(established) = std::mem::replace(&mut self.phase, Phase::Ending) else {
            return;
        };
        let Established { version, cipher, transmit, receive, record_limit, peer, schedule } =
            *established;
        // A key that is due before it has sealed anything would never be used.
        let record_limit = record_limit.min(cx.rekey_after).max(2);
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
                    peer,
                    schedule,
                }));
            }
            Settled::Yes { transmit, receive, declined } => {
                let terms = SessionTerms { version, cipher, record_limit, schedule };
                let session = Session::new(terms, transmit.as_ref(), receive.as_ref());
                self.open(session, declined, peer, inner, cx);
            }
            Settled::Broken { doing, errno } => {
                cx.outbox.counters.handshakes_failed += 1;
                self.fail(TlsFailure::OffloadBroken { doing, errno }.into(), None, inner, cx);
            }
        }
    }

    /// The handshake is over, and this came of it.
    pub(super) fn open(
        &mut self,
        session: Result<Session, TlsFailure>,
        declined: Option<RefuseReason>,
        peer: Option<Box<TlsPeer>>,
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
            peer,
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
        // Input that came along is seen after this.
        cx.heard = at;
        cx.outbox.push(Event::TlsEstablished { connection: self.id, tls, at });
    }

    /// Gives the keys to the inner driver, if that is wished for.
    pub(super) fn offload(
        &mut self,
        keys: TlsSession,
        inner: &mut dyn Driver,
        cx: &mut Context,
    ) -> Settled {
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
}

/// What became of the keys.
pub(super) enum Settled {
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
