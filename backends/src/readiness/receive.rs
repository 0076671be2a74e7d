//! Input.

use super::closing::Phase;
use super::connection::{Connection, reason};
use super::context::Context;
use crate::sys::input;
use lastbyte::{Event, Moment, PooledBuf, Received};
use std::io;

/// Buffers of input that a closing connection discards in one go.
const DISCARD: usize = 16;

impl Connection {
    /// The user asks for input.
    pub(super) fn receive(&mut self, cx: &mut Context) {
        if self.wants_input || self.phase != Phase::Open {
            return;
        }
        self.wants_input = true;
        if self.has_input() || self.input_ended {
            self.do_again(cx);
        }
    }

    /// Reads what is asked for, or once closing throws it away.
    pub(super) fn read(&mut self, now: Option<Moment>, cx: &mut Context) {
        match self.phase {
            Phase::Open if self.wants_input => self.answer_receive(now, cx),
            Phase::Draining { .. } | Phase::Finishing { .. } | Phase::Lingering { .. } => {
                self.discard(cx);
            }
            _ => {}
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
        } else if self.input_ended {
            Received::End
        } else if !self.readable {
            return;
        } else {
            let mut buffer = cx.buffers.take();
            match self.read_into(&mut buffer) {
                Ok(0) => Received::End,
                Ok(_) => Received::Data(buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.die(&reason("recv", &error), cx),
            }
        };
        self.wants_input = false;
        let at = now.unwrap_or_else(|| cx.now());
        let event = Event::Received { connection: self.id, received, at };
        cx.outbox.push(event);
    }

    fn discard(&mut self, cx: &mut Context) {
        while self.take_delivered().is_some_and(|input| matches!(input, Received::Data(_))) {}
        let mut buffer = cx.buffers.take();
        for _ in 0..DISCARD {
            if !self.readable || self.input_ended {
                return;
            }
            buffer.clear();
            match self.read_into(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.die(&reason("recv", &error), cx),
            }
        }
        self.do_again(cx);
    }

    /// Input that the selector has received by itself.
    fn take_delivered(&mut self) -> Option<Received> {
        let native = self.native.as_mut()?;
        if let Some(buffer) = native.input.pop_front() {
            return Some(Received::Data(buffer.into_buffer()));
        }
        if std::mem::take(&mut native.input_ends) {
            (self.input_ended, self.readable) = (true, false);
            return Some(Received::End);
        }
        None
    }

    /// Reads once, and keeps track of whether there is more.
    fn read_into(&mut self, buffer: &mut PooledBuf) -> io::Result<usize> {
        loop {
            let room = buffer.spare().len();
            match input::recv(&self.stream, buffer.spare()) {
                Ok(0) => {
                    (self.input_ended, self.readable) = (true, false);
                    return Ok(0);
                }
                Ok(n) => {
                    buffer.advance(n);
                    // A short read has emptied the socket: what comes later
                    // signals anew. But an end that was signalled already does
                    // not, and is found by reading on.
                    self.readable = n == room || self.read_closed;
                    return Ok(n);
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
