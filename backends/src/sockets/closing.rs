//! The end of a connection, wanted or not.

use super::connection::Connection;
use super::context::Context;
use super::notice::blind;
use crate::sys::disconnect;
use lastbyte::{CloseOutcome, Event, FailReason, Time};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a connection that is done still reads and discards input, so that a
/// reset does not destroy what the peer has not read yet (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// Where a connection is in its life.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// In use.
    Open,
    /// To be closed when all is written.
    Draining { by: Time },
    /// The end of the stream was sent.
    Finishing {
        since: Time,
        by: Time,
        /// The peer has acknowledged it.
        acked: bool,
    },
    /// The user was told that it is closed; the peer's end is awaited.
    Lingering { by: Time },
    /// It has failed, but the kernel still references payload memory.
    Dying { reason: FailReason, by: Time },
    /// To be removed.
    Gone,
}

/// The end of what this side sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StreamEnd {
    Open,
    /// To be sent when all is written, while the connection stays in use.
    Due,
    Sent,
}

impl Phase {
    /// Whether it is in use. (Comparing whole phases costs a call each time.)
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether it is to be removed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    /// Whether what still comes is read and thrown away.
    pub(super) fn discards_input(&self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Finishing { .. } | Self::Lingering { .. })
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Open | Self::Gone => None,
            Self::Draining { by }
            | Self::Finishing { by, .. }
            | Self::Lingering { by }
            | Self::Dying { by, .. } => Some(*by),
        }
    }

    /// Whether the user still knows the connection.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Lingering { .. } | Self::Gone)
    }
}

impl Connection {
    /// Whether more may be given to it to be sent.
    pub(super) fn takes_output(&self) -> bool {
        self.phase.is_open() && self.end == StreamEnd::Open && !self.is_doomed()
    }

    /// Whether the stream is to end as soon as all is written.
    pub(super) fn end_is_due(&self) -> bool {
        let closes = matches!(self.phase, Phase::Draining { .. });
        closes || self.phase.is_open() && self.end == StreamEnd::Due
    }

    /// Ends this direction only.
    pub(super) fn finish_stream(&mut self, cx: &mut Context) {
        if self.takes_output() {
            self.end = StreamEnd::Due;
            self.moved_at = cx.time();
            self.progress_phase(cx);
            self.arm(cx);
        }
    }

    pub(super) fn close(&mut self, within: Duration, cx: &mut Context) {
        let now = cx.time();
        let by = now.after(within);
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Draining { by };
                self.wants_input = false;
                self.moved_at = now;
            }
            Phase::Draining { by: old } | Phase::Finishing { by: old, .. } => *old = by.min(*old),
            Phase::Lingering { .. } | Phase::Dying { .. } | Phase::Gone => return,
        }
        self.go_on(None, cx);
    }

    /// Takes the next step of closing if its condition is met.
    pub(super) fn progress_phase(&mut self, cx: &mut Context) {
        if self.phase.is_open() && self.end != StreamEnd::Due {
            return;
        }
        if self.end_is_due() && !self.connecting && !self.has_output() && self.is_written() {
            // A socket whose both ends were sent refuses to end again.
            if self.end != StreamEnd::Sent && self.stream.shutdown(Shutdown::Write).is_err() {
                // The peer has torn the connection down meanwhile.
                return self.die(&FailReason::Reset, cx);
            }
            self.end = StreamEnd::Sent;
            if let Phase::Draining { by } = self.phase {
                self.phase = Phase::Finishing { since: cx.time(), by, acked: false };
                self.look_pause = Duration::ZERO;
            }
        }
        if let Phase::Finishing { by, acked, .. } = self.phase {
            self.finish(by, acked, cx);
        }
        if matches!(self.phase, Phase::Lingering { .. }) && self.input_ended {
            self.phase = Phase::Gone;
        }
        if let Phase::Dying { reason, .. } = &self.phase
            && !self.ledger.is_pinned()
        {
            let reason = reason.clone();
            self.gone(CloseOutcome::Failed(reason), cx);
        }
    }

    /// A deadline may have passed.
    pub(super) fn enforce_deadline(&mut self, now: Time, cx: &mut Context) {
        if self.phase.deadline().is_none_or(|by| by > now) {
            return;
        }
        match self.phase {
            Phase::Draining { .. } | Phase::Finishing { .. } => self.die(&FailReason::Timeout, cx),
            Phase::Lingering { .. } => self.phase = Phase::Gone,
            Phase::Dying { .. } => {
                self.drain_error_queue(cx);
                if self.ledger.is_pinned() {
                    let now = cx.now();
                    self.ledger.abandon(now, &mut cx.outbox);
                }
            }
            Phase::Open | Phase::Gone => {}
        }
    }

    /// The connection is over. Tells what can still be learnt, and makes the
    /// kernel let go of the memory it references.
    pub(super) fn die(&mut self, reason: &FailReason, cx: &mut Context) {
        match self.phase {
            Phase::Dying { .. } | Phase::Gone => return,
            Phase::Lingering { .. } => {
                self.phase = Phase::Gone;
                return;
            }
            _ => {}
        }
        if self.is_put_off(reason) {
            return;
        }
        // Stamps of what was acknowledged may still be waiting, and are exact.
        self.drain_error_queue(cx);
        let look = self.look(cx);
        let now = cx.now();
        self.ledger.fail(
            reason,
            Some(look.unwrap_or(blind(now, now.monotonic))),
            now,
            &mut cx.outbox,
        );
        if matches!(self.phase, Phase::Finishing { acked: true, .. }) && self.ledger.is_empty() {
            // Everything was done; only the news had not come yet.
            return self.gone(CloseOutcome::Graceful, cx);
        }
        if *reason != FailReason::Reset || self.ledger.is_pinned() {
            self.reset(cx);
        }
        let by = now.monotonic.after(self.release_timeout);
        self.phase = Phase::Dying { reason: reason.clone(), by };
        self.wants_input = false;
        self.progress_phase(cx);
        self.arm(cx);
    }

    /// Resets the connection, and throws away what is unsent. Closing would do so for
    /// the last descriptor of the socket only, and silence the error queue.
    fn reset(&mut self, cx: &mut Context) {
        if disconnect::disconnect(self.stream.as_fd()).is_err() {
            // Kernel TLS does not allow it, nor do some systems: then closing has to do.
            let linger = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
            debug_assert!(linger.is_ok(), "SO_LINGER can be set on any TCP socket");
        }
        if self.ledger.is_pinned() {
            self.drain_error_queue(cx);
        }
    }

    /// The stream's end was sent: is it acknowledged, and is all the rest done?
    fn finish(&mut self, by: Time, acked: bool, cx: &mut Context) {
        if (acked || self.input_ended) && (!acked || !self.ledger.is_empty()) {
            // The look also reads the stamps of what it shows, and what there is
            // of notifications of memory.
            self.look_now(cx);
            self.drain_error_queue(cx);
        }
        if !self.ledger.is_empty() {
            return;
        }
        let acked = matches!(self.phase, Phase::Finishing { acked: true, .. });
        let outcome = if acked {
            CloseOutcome::Graceful
        } else if self.input_ended && !cx.facilities.can_look() {
            CloseOutcome::Unconfirmed
        } else {
            return;
        };
        if self.input_ended {
            self.gone(outcome, cx);
        } else {
            self.tell_closed(outcome, cx);
            self.phase = Phase::Lingering { by: by.min(cx.time().after(LINGER)) };
        }
    }

    fn gone(&mut self, outcome: CloseOutcome, cx: &mut Context) {
        self.tell_closed(outcome, cx);
        self.phase = Phase::Gone;
    }

    fn tell_closed(&mut self, outcome: CloseOutcome, cx: &mut Context) {
        let event = Event::Closed { connection: self.id, outcome, at: cx.now() };
        cx.outbox.push(event);
    }
}
