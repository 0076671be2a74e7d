//! Learning what became of sent bytes: from the error queue, which is quick and
//! may lose things, and from the socket's own account, which is always right.

use super::closing::{Phase, StreamEnd};
use super::connection::Connection;
use super::context::Context;
use crate::sys::error_queue::{self, Entry};
use crate::sys::{out_queue, tcp_info};
use lastbyte::{Look, Moment, Time, WireOffset};
use std::os::fd::AsFd;

/// Entries that one drain takes at the most. The queue holds fewer with any
/// ordinary receive buffer, and signals again for what is left.
const DRAIN: usize = 1024;

/// How often two readings are repeated that have to be of one moment.
const TRIES: usize = 8;

impl Connection {
    /// Reads the error queue until it is empty or nothing in it can be news.
    /// Taking an entry out signals again for the next one, so none is missed.
    /// Says when the last entry was read, if there was one.
    pub(super) fn drain_error_queue(&mut self, cx: &mut Context) -> Option<Moment> {
        let mut noticed = None;
        for _ in 0..DRAIN {
            // An error here is the socket's, which says it again when asked.
            let Ok(Some(entry)) = error_queue::read(self.stream.as_fd()) else { break };
            let (now, clock) = cx.now_with_clock();
            noticed = Some(now);
            self.last_notice = now.monotonic;
            match entry {
                Entry::Stamp(stamp) if self.stamps => {
                    self.ledger.stamped(stamp, &clock, now, &mut cx.outbox);
                }
                Entry::ZeroCopyDone { first, last, copied } if self.lends_by_call() => {
                    self.let_go(first, last, copied, now, cx);
                }
                // Nobody's, or a former owner's.
                Entry::Stamp(_) | Entry::ZeroCopyDone { .. } | Entry::Other => continue,
            }
            if !self.ledger.is_pinned() && self.ledger.awaiting_ack_since().is_none() {
                break;
            }
        }
        noticed
    }

    /// Whether the error queue tells of this connection's own zero-copy calls. A
    /// ring's operations have names of their own, which a former owner's calls of
    /// the same numbers must not be taken for.
    fn lends_by_call(&self) -> bool {
        !self.native.as_ref().is_some_and(|native| native.completes.lends())
    }

    /// The kernel is done with the memory of one zero-copy call.
    pub(super) fn released(&mut self, call: u32, copied: bool, now: Moment, cx: &mut Context) {
        self.last_notice = now.monotonic;
        self.let_go(call, call, copied, now, cx);
    }

    fn let_go(&mut self, first: u32, last: u32, copied: bool, now: Moment, cx: &mut Context) {
        let news = self.ledger.zero_copy_done(first, last, copied, now, &mut cx.outbox);
        if let Some(route) = self.route.filter(|_| news > 0) {
            cx.policy.learn(route, news, copied, now.monotonic);
        }
    }

    /// Reads the socket's own account. `None` where the kernel has none.
    pub(super) fn look(&mut self, cx: &mut Context) -> Option<Look> {
        let began = cx.time();
        let acked = self.account(cx)?;
        self.note_end_acked(acked);
        let at = cx.now();
        // What TCP has sent may still wait in a queue of the device's
        // (net/ipv4/tcp.c, `tcp_get_info`, counts it as sent): only its
        // acknowledgement shows that it was transmitted.
        Some(Look { acked: Some(WireOffset::new(acked)), transmitted: None, began, at })
    }

    /// Bytes acknowledged since the connection was attached; an acknowledged FIN
    /// counts as one.
    fn account(&mut self, cx: &Context) -> Option<u64> {
        let fd = self.stream.as_fd();
        if cx.facilities.tcp_info {
            let info = tcp_info::read(fd).ok()?;
            self.rtt = info.rtt;
            return Some(info.bytes_acked.saturating_sub(self.acked_base));
        }
        // Of half a handshake the out-queue says nothing.
        if cx.facilities.out_queue && !tcp_info::is_half_open(fd) {
            let queued = out_queue::unacknowledged(fd).ok()?;
            let fin = u64::from(self.end == StreamEnd::Sent);
            return Some((self.ledger.accepted_to().get() + fin).saturating_sub(queued));
        }
        None
    }

    /// What TCP has: bytes acknowledged, and bytes that are not, since the
    /// connection was attached; an end of the stream counts as one. `None` if
    /// the peer's acknowledgements keep coming between the readings, and where
    /// there are none or no out-queue to go with them yet.
    pub(super) fn written(&self) -> Option<(u64, u64)> {
        let fd = self.stream.as_fd();
        let info = tcp_info::read(fd).ok().filter(|info| !info.half_open)?;
        let mut before = info.bytes_acked;
        for _ in 0..TRIES {
            let queued = out_queue::unacknowledged(fd).ok()?;
            let after = tcp_info::read(fd).ok()?.bytes_acked;
            if before == after {
                return Some((after.saturating_sub(self.acked_base), queued));
            }
            before = after;
        }
        None
    }

    fn note_end_acked(&mut self, acked: u64) {
        let accepted = self.ledger.wire_to().get();
        if let Phase::Finishing { acked: end_acked, .. } = &mut self.phase {
            *end_acked |= acked > accepted;
        }
    }
}

/// A look that shows nothing, for failing without one.
pub(super) fn blind(at: Moment, began: Time) -> Look {
    Look { acked: None, transmitted: None, began, at }
}
