//! A socket that was attached before it is connected: what is submitted waits, and
//! so does what the socket has to be asked and told.

use super::attach::{Past, taken_over};
use super::connection::{Connection, reason};
use super::context::Context;
use super::selector::Ready;
use lastbyte::Event;

/// What fails if it cannot connect.
pub(super) const CONNECTING: &str = "connect";

impl Connection {
    /// It is not connected yet. A socket becomes writable when it is, or cannot be.
    pub(super) fn await_connect(&mut self, cx: &mut Context) {
        (self.connecting, self.writable) = (true, false);
        self.progress = (0, cx.time());
        self.arm(cx);
    }

    pub(super) fn tell_connected(&mut self, cx: &mut Context) {
        let event = Event::Connected { connection: self.id, at: cx.now() };
        cx.outbox.push(event);
    }

    /// Something happened on it: says whether it is connected now.
    pub(super) fn connects(&mut self, ready: Ready, cx: &mut Context) -> bool {
        let error = match (self.stream.take_error(), self.stream.peer_addr()) {
            (Ok(None), Ok(_)) => return self.connected(cx),
            (Ok(Some(error)) | Err(error), _) => error,
            // Not even writable: nothing is known yet.
            (Ok(None), Err(_)) if !ready.writable && !ready.read_closed => return false,
            (Ok(None), Err(error)) => error,
        };
        self.die(&reason(CONNECTING, &error), cx);
        false
    }

    fn connected(&mut self, cx: &mut Context) -> bool {
        match taken_over(&self.stream, Past::default(), cx) {
            Ok(taken_over) => self.begin(taken_over),
            Err((doing, error)) => {
                self.die(&reason(doing, &error), cx);
                return false;
            }
        }
        // It was said when it was attached what they will rest on, and may be less.
        self.stages = cx.facilities.stages(self.stamps);
        self.ledger.rests_on(self.stages);
        self.connecting = false;
        self.progress = (0, cx.time());
        self.writable = true;
        self.tell_connected(cx);
        true
    }
}
