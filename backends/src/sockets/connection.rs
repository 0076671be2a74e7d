//! One connection's state, and when to look after it.

use super::closing::{Phase, StreamEnd};
use super::context::Context;
use super::kernel_tls::KernelTls;
use super::native::Native;
use super::selector::Ready;
use super::standing::Standing;
use lastbyte::{
    ConnectionId, FailReason, Ledger, Moment, Payload, RefuseReason, Refused, StageEvidence,
    StageSupport, Time, TransferId, Watch,
};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// A lost stamp is looked for after this, or after four round trips if that is
/// longer: a peer may delay its acknowledgement by up to 200 ms
/// (`include/net/tcp.h`, `TCP_DELACK_MAX`).
const STAMP_PATIENCE: Duration = Duration::from_millis(200);

/// The longest pause between two looks for a stamp that does not come.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where there are no stamps, looks are this far apart, or an eighth of the
/// round trip if that is longer: with the selector's millisecond that keeps
/// brackets within 5 ms.
const POLL_PAUSE: Duration = Duration::from_micros(3_500);

/// Of a peer that does not move, for longer than a stamp would be waited for, looks
/// are further and further apart: by this share of the time that it has stood still,
/// which is a round trip too, and up to so long. A thousand of them must not keep a
/// core busy.
const SHARE_OF_STILLNESS: u32 = 8;
const LONGEST_STILL_PAUSE: Duration = Duration::from_secs(1);

/// A stall is noticed within this share of its time.
const SHARE_OF_STALL: u32 = 8;

/// Where acknowledgements are learnt by looking, every so many unfinished
/// transfers are worth a look of their own: a fast exchange would pile up
/// transfers for as long as the pause between looks.
const LOOK_EVERY: usize = 16;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) id: ConnectionId,
    pub(super) token: usize,
    pub(super) ledger: Ledger,
    pub(super) phase: Phase,
    pub(super) end: StreamEnd,
    pub(super) stages: StageSupport,
    pub(super) stall_timeout: Option<Duration>,
    pub(super) release_timeout: Duration,

    /// The socket may have input, room for output.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer's end was signalled: reading goes on until it is found.
    pub(super) read_closed: bool,
    /// There was urgent data: a short read does not mean that there is no more
    /// (`net/ipv4/tcp.c`, `tcp_recvmsg_locked`).
    pub(super) had_urgent: bool,
    pub(super) input_ended: bool,
    /// The user has asked for input.
    pub(super) wants_input: bool,
    /// It is not connected yet.
    pub(super) connecting: bool,
    /// It waits in the driver's `again` list.
    pub(super) in_again: bool,

    /// Sends may ask for stamps.
    pub(super) stamps: bool,
    pub(super) zero_copy: ZeroCopy,
    /// The local address, once zero copy was considered.
    pub(super) route: Option<IpAddr>,
    /// `tcpi_bytes_acked` as it will be when everything written before the
    /// connection was attached is acknowledged.
    pub(super) acked_base: u64,

    pub(super) rtt: Duration,
    last_look: Time,
    /// When the socket last took something.
    pub(super) last_write: Time,
    /// When the error queue was last read.
    pub(super) last_notice: Time,
    pub(super) look_pause: Duration,
    /// When a look last showed that the peer has acknowledged more, or the end was
    /// asked for, which is waited for anew.
    pub(super) moved_at: Time,
    /// How far the peer had acknowledged the wire, and since when it is no further.
    pub(super) progress: (u64, Time),
    /// The alarm that counts; others are stale.
    pub(super) armed: Option<Time>,
    /// Where the selector completes operations by itself.
    pub(super) native: Option<Box<Native>>,
    /// Input is read by calls, none of it ahead; and how much by each.
    pub(super) by_call: bool,
    pub(super) read_limit: Option<usize>,
    pub(super) standing: Standing,
    pub(super) kernel_tls: Option<Box<KernelTls>>,
}

/// Whether a socket can send by zero copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ZeroCopy {
    /// Not enabled yet: most connections never need it.
    Untried,
    Enabled,
    Unusable,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        id: ConnectionId,
        token: usize,
        ledger: Ledger,
        stages: StageSupport,
    ) -> Self {
        Self {
            stream,
            id,
            token,
            ledger,
            phase: Phase::Open,
            end: StreamEnd::Open,
            stages,
            stall_timeout: None,
            release_timeout: Duration::ZERO,
            readable: false,
            writable: true,
            read_closed: false,
            had_urgent: false,
            input_ended: false,
            wants_input: false,
            connecting: false,
            in_again: false,
            stamps: false,
            zero_copy: ZeroCopy::Unusable,
            route: None,
            acked_base: 0,
            rtt: Duration::ZERO,
            last_look: Time::default(),
            last_write: Time::default(),
            last_notice: Time::default(),
            look_pause: Duration::ZERO,
            moved_at: Time::default(),
            progress: (0, Time::default()),
            armed: None,
            native: None,
            by_call: false,
            read_limit: None,
            standing: Standing::default(),
            kernel_tls: None,
        }
    }

    pub(super) fn submit(
        &mut self,
        payload: Payload,
        watch: Watch,
        cx: &mut Context,
    ) -> Result<TransferId, Refused<Payload>> {
        if !self.takes_output() {
            return Err(Refused::new(payload, RefuseReason::Closing));
        }
        let began = cx.time();
        if self.ledger.is_empty() && !self.connecting {
            self.progress = (self.ledger.wire_acked_to().get(), began);
        } else if self.ledger.len().is_multiple_of(LOOK_EVERY) {
            self.look_now(cx);
        }
        let transfer = self.ledger.submit(payload, watch, &mut cx.outbox)?;
        if self.writable {
            self.flush(began, cx);
        }
        self.arm(cx);
        Ok(transfer)
    }

    /// Something happened on the socket.
    pub(super) fn ready(&mut self, ready: Ready, cx: &mut Context) {
        if self.connecting && !self.connects(ready, cx) {
            return;
        }
        self.readable |= ready.readable || ready.read_closed;
        self.writable |= ready.writable;
        self.read_closed |= ready.read_closed;
        self.had_urgent |= ready.urgent;
        let noticed = if ready.error { self.drain_error_queue(cx) } else { None };
        if ready.read_closed || ready.error && noticed.is_none() {
            // An entry in the error queue is no error; without one, the socket
            // has the last word.
            if self.fail_on_error(cx) {
                return;
            }
        }
        // One go a turn: if it waits for one, that one comes.
        if !self.in_again {
            self.go_on(noticed, cx);
        }
    }

    /// Ends the connection if the socket has an error, and says whether it had.
    /// One that is dying already goes on with that.
    fn fail_on_error(&mut self, cx: &mut Context) -> bool {
        match self.stream.take_error() {
            Ok(Some(_)) | Err(_) if matches!(self.phase, Phase::Dying { .. }) => false,
            Ok(None) => false,
            Ok(Some(error)) if self.is_of_a_record(&error) => false,
            Ok(Some(error)) | Err(error) => {
                self.die(&reason("the connection", &error), cx);
                true
            }
        }
    }

    /// Does what the socket is ready for. `now` may say what the time is.
    pub(super) fn go_on(&mut self, now: Option<Moment>, cx: &mut Context) {
        let has_input = self.has_input();
        if self.may_answer() {
            self.read(now, cx);
        }
        if self.writable && self.has_output() {
            self.flush(cx.time(), cx);
        }
        if has_input && self.polls_for_ack() {
            // Input tends to come with an acknowledgement.
            self.look_now(cx);
        }
        self.progress_phase(cx);
        self.arm(cx);
    }

    /// An alarm for `at` went off.
    pub(super) fn alarm(&mut self, at: Time, cx: &mut Context) {
        if self.armed != Some(at) {
            return;
        }
        self.armed = None;
        if self.read_closed && self.fail_on_error(cx) {
            // A selector tells of a hang-up once, and a reset can follow it.
            return;
        }
        let now = cx.time();
        if self.look_due(cx).is_some_and(|due| due <= now) {
            self.look_now(cx);
        }
        if self.stall_due().is_some_and(|due| due <= now) {
            self.look_now(cx);
            if self.stall_due().is_some_and(|due| due <= now) {
                self.die(&FailReason::Timeout, cx);
            }
        }
        self.enforce_deadline(now, cx);
        self.progress_phase(cx);
        if self.written_due().is_some_and(|due| due <= now) {
            self.last_look = now;
        }
        self.arm(cx);
    }

    /// When to see whether TCP has everything that the stream's end waits for:
    /// what kernel TLS has put off is written by the kernel itself, and nothing
    /// tells of it.
    fn written_due(&self) -> Option<Time> {
        let waits = self.end_is_due() && !self.has_output();
        (waits && self.kernel_tls.is_some()).then(|| self.last_look.after(self.slowed(POLL_PAUSE)))
    }

    /// The pause between two looks, made longer if nothing has moved for long.
    fn slowed(&self, pause: Duration) -> Duration {
        let still = self.last_look.since(self.moved_at.max(self.last_write));
        let beyond = still.saturating_sub(self.stamp_patience());
        (pause + beyond / SHARE_OF_STILLNESS).min(LONGEST_STILL_PAUSE.max(pause))
    }

    /// How long a stamp may take.
    fn stamp_patience(&self) -> Duration {
        STAMP_PATIENCE.max(self.rtt * 4)
    }

    /// Sees to it that an alarm goes off when something is due.
    pub(super) fn arm(&mut self, cx: &mut Context) {
        if self.is_armed_in_time() {
            return;
        }
        let due = [self.look_due(cx), self.stall_due(), self.phase.deadline(), self.written_due()];
        let Some(due) = due.into_iter().flatten().min() else { return };
        if self.armed.is_none_or(|armed| due < armed) {
            self.armed = Some(due);
            cx.timers.arm(due, self.token);
        }
    }

    /// Whether the alarm that is set comes before anything can be due because
    /// of the last write. What was written before had its alarm then, and each
    /// alarm sets the next: a busy connection sets one a period.
    fn is_armed_in_time(&self) -> bool {
        let patience = if self.stamps { STAMP_PATIENCE } else { POLL_PAUSE };
        let soonest = self.stall_timeout.map_or(patience, |timeout| patience.min(timeout));
        self.phase.is_open()
            && self.end != StreamEnd::Due
            && self.armed.is_some_and(|armed| armed <= self.last_write.after(soonest))
    }

    /// Looks at the socket's own account and tells the ledger.
    pub(super) fn look_now(&mut self, cx: &mut Context) {
        let before = self.ledger.wire_acked_to();
        let now = cx.time();
        let waited = now.since(self.last_look) >= self.look_pause;
        self.last_look = now;
        let Some(mut look) = self.look(cx) else { return };
        if self.stamps {
            // Stamps of what the look shows are in the queue by now, and exact.
            // What they leave to the look is then dated after them.
            self.drain_error_queue(cx);
            look.at = cx.now();
        }
        self.ledger.looked(look, &mut cx.outbox);
        self.last_look = look.at.monotonic;
        let moved = self.ledger.wire_acked_to() > before;
        if moved {
            self.moved_at = self.last_look;
            self.look_pause = Duration::ZERO;
        } else if waited {
            // A look before its time, for a submission or for input, says nothing of
            // how long it will take.
            self.look_pause = self.look_pause.saturating_mul(2).clamp(POLL_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Whether acknowledgement is learnt by looking, and is waited for.
    fn polls_for_ack(&self) -> bool {
        !self.stamps && self.ledger.awaiting_ack_since().is_some()
    }

    fn look_due(&self, cx: &Context) -> Option<Time> {
        if !cx.facilities.can_look() {
            return None;
        }
        let awaiting = self.ledger.awaiting_ack_since();
        let since = match self.phase {
            Phase::Finishing { since, .. } => since,
            Phase::Dying { .. } | Phase::Lingering { .. } | Phase::Gone => return None,
            _ => match awaiting {
                Some(since) => since,
                None => return self.stall_look_due(),
            },
        };
        let finishing = matches!(self.phase, Phase::Finishing { .. });
        let patience = if self.stamps && !finishing {
            self.stamp_patience()
        } else {
            POLL_PAUSE.max(self.rtt / 8)
        };
        let pause = if !self.stamps && awaiting.is_some() {
            self.slowed(patience)
        } else if finishing && self.last_notice > self.last_look {
            // The end may have been acknowledged along with what a stamp told of.
            patience
        } else {
            self.look_pause.clamp(patience, LONGEST_PAUSE.max(patience))
        };
        Some(since.after(patience).max(self.last_look.after(pause)))
    }

    /// Of a transfer that the kernel has not all of nothing tells how far the peer is.
    /// When that has stopped has to be known, or it is taken to move for as long as
    /// nobody looks.
    fn stall_look_due(&self) -> Option<Time> {
        let timeout = self.stall_timeout?;
        let waits = !self.connecting && !self.ledger.is_empty();
        waits.then(|| self.progress.1.max(self.last_look).after(timeout / SHARE_OF_STALL))
    }

    fn stall_due(&mut self) -> Option<Time> {
        let timeout = self.stall_timeout?;
        let waits = self.connecting || !self.ledger.is_empty();
        if !waits || matches!(self.phase, Phase::Dying { .. } | Phase::Gone) {
            return None;
        }
        // Where nothing tells of acknowledgement, room in the send buffer does.
        // Else the wire counts: of a call that the kernel seals, no payload is
        // acknowledged before all of it is, and that may take a slow peer long.
        let unavailable = self.stages.acked == StageEvidence::Unavailable;
        let (gone_to, learnt_at) = if unavailable {
            (self.ledger.accepted_to(), self.last_write)
        } else {
            (self.ledger.wire_acked_to(), self.last_look.max(self.last_notice))
        };
        if gone_to.get() != self.progress.0 {
            self.progress = (gone_to.get(), learnt_at.max(self.progress.1));
        }
        Some(self.progress.1.after(timeout))
    }
}

/// What an error on a connection means for its transfers.
pub(super) fn reason(doing: &'static str, error: &io::Error) -> FailReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => FailReason::Reset,
        io::ErrorKind::TimedOut => FailReason::Timeout,
        _ => FailReason::System { doing, errno: error.raw_os_error().unwrap_or(0) },
    }
}
