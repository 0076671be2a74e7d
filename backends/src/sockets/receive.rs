//! Input.

use super::connection::{Connection, reason};
use super::context::Context;
use crate::sys::{input, tls_ulp};
use lastbyte::{ControlRecord, Event, Moment, PooledBuf, Received, ReceivedRecord, RefuseReason};
use std::io;
use std::os::fd::AsFd;

/// Buffers of input that a closing connection discards in one go.
const DISCARD: usize = 16;

impl Connection {
    /// The user asks for input.
    pub(super) fn receive(&mut self, cx: &mut Context) -> Result<(), RefuseReason> {
        if self.wants_input {
            return Ok(());
        }
        if let Some(native) = self.native.as_mut().filter(|native| native.completes.receives) {
            native.reads_ahead |= !self.by_call;
        }
        self.ask(None, cx)
    }

    /// The user asks for input, and for no more than so much.
    pub(super) fn receive_at_most(
        &mut self,
        bytes: usize,
        cx: &mut Context,
    ) -> Result<(), RefuseReason> {
        self.ask(Some(bytes.max(1)), cx)
    }

    fn ask(&mut self, limit: Option<usize>, cx: &mut Context) -> Result<(), RefuseReason> {
        if self.phase.discards_input() {
            return Err(RefuseReason::Closing);
        }
        if !self.phase.is_open() {
            // What it failed by is about to be told.
            return Ok(());
        }
        (self.wants_input, self.read_limit) = (true, limit);
        if self.may_answer() {
            self.do_again(cx);
        }
        Ok(())
    }

    /// Whether there may be an answer to a user who asks for input.
    pub(super) fn may_answer(&self) -> bool {
        self.has_input() || self.input_ended || self.unopened().is_some()
    }

    /// Whether input may have been taken out of the socket that nobody asked
    /// for.
    pub(super) fn may_have_read_ahead(&self) -> bool {
        self.native.as_ref().is_some_and(|native| native.reads_ahead)
    }

    /// Reads what is asked for, or once closing throws it away.
    pub(super) fn read(&mut self, now: Option<Moment>, cx: &mut Context) {
        if self.phase.is_open() && self.wants_input {
            self.answer_receive(now, cx);
        } else if self.phase.discards_input() {
            self.discard(cx);
        }
    }

    /// Has the connection looked at again in the next turn.
    pub(super) fn do_again(&mut self, cx: &mut Context) {
        if !self.in_again {
            self.in_again = true;
            cx.again.push_back(self.token);
        }
    }

    fn answer_receive(&mut self, now: Option<Moment>, cx: &mut Context) {
        let received = if let Some(delivered) = self.take_delivered() {
            delivered
        } else if let Some(early) = self.take_early(cx.config.receive_buffer) {
            let mut buffer = cx.buffers.take();
            buffer.append(&early);
            Received::Data(buffer)
        } else if let Some(record) = self.unopened() {
            self.readable = false;
            return self.tell_record(record, cx);
        } else if self.input_ended {
            Received::End
        } else if !self.readable {
            return;
        } else {
            let mut buffer = cx.buffers.take();
            match self.read_into(&mut buffer) {
                Ok(Read::End) => Received::End,
                Ok(Read::Bytes) => Received::Data(buffer),
                Ok(Read::Record(record)) => return self.tell_record(record, cx),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if self.is_of_a_record(&error) => {
                    return self.answer_receive(now, cx);
                }
                Err(error) => return self.die(&reason("recv", &error), cx),
            }
        };
        self.wants_input = false;
        let at = now.unwrap_or_else(|| cx.now());
        let event = Event::Received { connection: self.id, received, at };
        cx.outbox.push(event);
    }

    fn tell_record(&mut self, record: ReceivedRecord, cx: &mut Context) {
        self.wants_input = false;
        let event = Event::ReceivedRecord { connection: self.id, record, at: cx.now() };
        cx.outbox.push(event);
    }

    fn discard(&mut self, cx: &mut Context) {
        while self.take_delivered().is_some_and(|input| matches!(input, Received::Data(_))) {}
        // Nobody cares any more for where records begin.
        self.read_limit = None;
        let mut buffer = cx.buffers.take();
        for _ in 0..DISCARD {
            if !self.readable || self.input_ended {
                return;
            }
            buffer.clear();
            match self.read_into(&mut buffer) {
                Ok(Read::End | Read::Bytes) => {}
                Ok(Read::Record(record)) if self.phase.is_known() => {
                    self.tell_record(record, cx);
                }
                Ok(Read::Record(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(tls_ulp::NEEDS_KEY) => {
                    self.await_key();
                    return;
                }
                // The kernel opens no more of what comes.
                Err(error) if self.is_of_a_record(&error) => {
                    (self.input_ended, self.readable) = (true, false);
                    return;
                }
                Err(error) => return self.die(&reason("recv", &error), cx),
            }
        }
        self.do_again(cx);
    }

    /// Input that the selector has received by itself.
    fn take_delivered(&mut self) -> Option<Received> {
        let native = self.native.as_mut()?;
        if !native.input.is_empty() {
            return Some(Received::Data(native.input.remove(0).into_buffer()));
        }
        if std::mem::take(&mut native.input_ends) {
            (self.input_ended, self.readable) = (true, false);
            return Some(Received::End);
        }
        None
    }

    /// Reads once, and keeps track of whether there is more.
    fn read_into(&mut self, buffer: &mut PooledBuf) -> io::Result<Read> {
        if self.opens() {
            return self.read_opened(buffer);
        }
        loop {
            let room = buffer.spare().len().min(self.read_limit.unwrap_or(usize::MAX));
            match input::recv(&self.stream, &mut buffer.spare()[..room]) {
                Ok(0) => {
                    (self.input_ended, self.readable) = (true, false);
                    return Ok(Read::End);
                }
                Ok(n) => {
                    buffer.advance(n);
                    // A short read has emptied the socket: what comes later
                    // signals anew. But an end that was signalled already does
                    // not, and is found by reading on.
                    self.readable = n == room || self.read_closed || self.had_urgent;
                    return Ok(Read::Bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    return Err(error);
                }
            }
        }
    }

    /// The same where the kernel opens the peer's records. It stops where their
    /// type changes, so that a short read says nothing of what else is there.
    fn read_opened(&mut self, buffer: &mut PooledBuf) -> io::Result<Read> {
        loop {
            match tls_ulp::receive(self.stream.as_fd(), buffer.spare()) {
                Ok(tls_ulp::Received { content_type: None, .. }) => {
                    (self.input_ended, self.readable) = (true, false);
                    return Ok(Read::End);
                }
                Ok(tls_ulp::Received { len, content_type: Some(content_type) }) => {
                    if content_type == tls_ulp::DATA {
                        buffer.advance(len);
                        return Ok(Read::Bytes);
                    }
                    let content = buffer.spare()[..len].to_vec();
                    let record = ControlRecord { content_type, content };
                    return Ok(Read::Record(ReceivedRecord::Control(record)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    return Err(error);
                }
            }
        }
    }
}

/// What one read yields.
enum Read {
    Bytes,
    End,
    /// Something that is no payload, under kernel TLS.
    Record(ReceivedRecord),
}
