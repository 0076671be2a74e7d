//! What a connection keeps and does where the selector completes operations by
//! itself. At most one send of a stream is under way.

use super::ahead::Ahead;
use super::closing::Phase;
use super::connection::{Connection, ZeroCopy, reason};
use super::context::Context;
use super::selector::{Completes, Done};
use super::send::{has_no_room_to_pin, took};
use crate::sys::ring::SendMemory;
use crate::sys::timestamping::Wanted;
use lastbyte::{Call, FailReason, Method, Moment, Stamp, Time};
use smallvec::SmallVec;
use std::io;

#[derive(Debug, Default)]
pub(super) struct Native {
    pub(super) completes: Completes,
    /// Input that came and was not handed on yet: mostly one piece, which is
    /// best kept here, and never many.
    pub(super) input: SmallVec<[Ahead; 1]>,
    /// There will be no more of it.
    pub(super) input_ends: bool,
    /// Input was asked for in a way that lets the kernel receive ahead.
    pub(super) reads_ahead: bool,
    pub(super) sending: Option<Sending>,
    /// What is to be sent, on its way to the selector, and whether by zero copy.
    pub(super) prepared: Option<(SendMemory, bool)>,
    /// Why the connection ends as soon as no send is under way: until then it is
    /// not known what the kernel has taken, and the kernel reads the payload.
    pub(super) doomed: Option<FailReason>,
    /// The kernel would not lend itself to zero copy: the same bytes are copied.
    pub(super) copies_next: bool,
}

/// A send that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) bytes: u64,
    pub(super) method: Method,
    pub(super) stamps: Wanted,
    pub(super) began: Time,
}

impl Native {
    pub(super) fn new(completes: Completes) -> Self {
        Self { completes, ..Self::default() }
    }

    fn has_input(&self) -> bool {
        self.input_ends || !self.input.is_empty()
    }
}

impl Connection {
    /// Whether a send is under way, so that nothing else may be written.
    pub(super) fn is_sending(&self) -> bool {
        self.native.as_ref().is_some_and(|native| native.sending.is_some())
    }

    /// Whether it ends as soon as it can.
    pub(super) fn is_doomed(&self) -> bool {
        self.native.as_ref().is_some_and(|native| native.doomed.is_some())
    }

    /// Whether reading yields something, be it the end.
    pub(super) fn has_input(&self) -> bool {
        self.readable || self.native.as_ref().is_some_and(|native| native.has_input())
    }

    /// Puts the end off while a send is under way, and says whether it had to.
    pub(super) fn is_put_off(&mut self, why: &FailReason) -> bool {
        if !self.is_sending() {
            return false;
        }
        if let Some(native) = &mut self.native {
            native.doomed.get_or_insert_with(|| why.clone());
        }
        self.wants_input = false;
        true
    }

    /// The kernel has done something by itself.
    /// `now` is when that was learnt.
    pub(super) fn done(&mut self, done: Done, now: Moment, cx: &mut Context) {
        match done {
            Done::Received(buffer) => self.received(buffer, now, cx),
            Done::ReceiveEnded(Ok(())) => self.receive_ended(now, cx),
            Done::ReceiveEnded(Err(error)) => {
                if !matches!(self.phase, Phase::Dying { .. }) {
                    self.drain_error_queue(cx);
                    self.die(&reason("recv", &error), cx);
                }
            }
            Done::Stamped(stamp) => self.stamped(stamp, now, cx),
            Done::Sent { memory, result } => self.sent(memory, result, now, cx),
            Done::Released { call, copied } => {
                self.released(call, copied, now, cx);
                self.progress_phase(cx);
                self.arm(cx);
            }
            Done::Accepted(_) | Done::AcceptFailed(_) => {
                debug_assert!(false, "a connection does not accept");
            }
        }
    }

    /// What the kernel reads of a send that was prepared, and whether it goes by
    /// zero copy.
    pub(super) fn take_prepared(&mut self) -> Option<(SendMemory, bool)> {
        self.native.as_mut()?.prepared.take()
    }

    /// The selector is gone, and whether the kernel took what was being sent is
    /// not known: supposes that it did and still reads it.
    pub(super) fn suppose_sent(&mut self, cx: &mut Context) {
        let Some(native) = &mut self.native else { return };
        if let Some(Sending { bytes, began, .. }) = native.sending.take() {
            let call = Call { method: Method::ZeroCopy, began, stamped: false };
            let now = cx.now();
            self.ledger.accepted(bytes, call, now, &mut cx.outbox);
        }
        self.end_if_doomed(cx);
    }

    fn received(&mut self, buffer: Ahead, now: Moment, cx: &mut Context) {
        if matches!(self.phase, Phase::Dying { .. } | Phase::Gone) || self.is_doomed() {
            return;
        }
        if let Some(native) = &mut self.native {
            native.input.push(buffer);
        }
        // One go a turn: if it waits for one, that one comes.
        if !self.in_again {
            self.go_on(Some(now), cx);
        }
    }

    fn receive_ended(&mut self, now: Moment, cx: &mut Context) {
        if let Some(native) = &mut self.native {
            native.input_ends = true;
        }
        self.read_closed = true;
        if !self.in_again {
            self.go_on(Some(now), cx);
        }
    }

    fn stamped(&mut self, stamp: Stamp, now: Moment, cx: &mut Context) {
        if !self.stamps {
            return;
        }
        let clock = cx.clock();
        self.last_notice = now.monotonic;
        self.ledger.stamped(stamp, &clock, now, &mut cx.outbox);
        self.progress_phase(cx);
        self.arm(cx);
    }

    fn sent(
        &mut self,
        memory: SendMemory,
        result: io::Result<usize>,
        now: Moment,
        cx: &mut Context,
    ) {
        cx.spare_memory.push(memory);
        let Some(native) = &mut self.native else { return };
        let Some(Sending { bytes, method, stamps, began }) = native.sending.take() else { return };
        match result {
            Err(error) if method == Method::ZeroCopy && has_no_room_to_pin(&error) => {
                cx.outbox.counters.zero_copy_no_room += 1;
                native.copies_next = true;
            }
            // Not on this socket, as it is.
            Err(error)
                if method == Method::ZeroCopy && error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                self.zero_copy = ZeroCopy::Unusable;
            }
            result => {
                self.wrote(took(result, bytes, method, stamps), began, now, cx);
            }
        }
        self.end_if_doomed(cx);
        if !self.in_again {
            self.go_on(Some(now), cx);
        }
    }

    fn end_if_doomed(&mut self, cx: &mut Context) {
        if let Some(why) = self.native.as_mut().and_then(|native| native.doomed.take()) {
            self.die(&why, cx);
        }
    }
}
