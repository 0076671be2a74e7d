//! Opening what has come, and answering the user's wish for input.

use super::{Connection, Phase};
use crate::sys::tls_ulp;
use crate::tls::context::Context;
use crate::tls::input::Input;
use crate::tls::record::{ContentType, HEADER, Violation};
use crate::tls::session::{Session, Stop};
use lastbyte::{
    ControlRecord, Driver, Event, PooledBuf, Received, ReceivedRecord, RefuseReason, TlsAlert,
};

impl Connection {
    /// Answers the user's wish for input, as far as there is some.
    pub(super) fn read(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        while self.wants_input {
            if self.opened.is_some() {
                return self.answer(cx);
            }
            let Phase::Open(session) = &mut self.phase else { return };
            if session.opener.is_none() {
                if session.has_ended {
                    self.tell(Received::End, cx);
                } else if self.stream_ended {
                    self.tell(Received::Truncated, cx);
                } else {
                    self.ask(inner);
                }
                break;
            }
            let mut out = cx.opened.take();
            let stop = if session.has_ended {
                None
            } else {
                open_some(session, &mut self.input, &mut out, cx.receive_buffer).err()
            };
            let has_ended = session.has_ended;
            if !out.is_empty() {
                self.opened = Some((out, 0));
                self.answer(cx);
            }
            if let Some(stop) = stop {
                return self.stop(stop, inner, cx);
            }
            if self.wants_input {
                if has_ended {
                    self.input.clear();
                    self.tell(Received::End, cx);
                } else if self.stream_ended {
                    self.tell(Received::Truncated, cx);
                } else {
                    self.ask(inner);
                    break;
                }
            }
        }
        // An answer may be due to what came.
        if let Phase::Open(session) = &self.phase
            && session.control_due().is_some()
        {
            self.pump(inner, cx);
        }
    }

    /// Yields what was opened, or as much of it as one receive may.
    pub(super) fn answer(&mut self, cx: &mut Context) {
        let Some((opened, used)) = self.opened.take() else { return };
        let rest = &opened[used..];
        if used == 0 && rest.len() <= cx.receive_buffer {
            return self.tell(Received::Data(opened), cx);
        }
        let mut piece = cx.opened.take();
        let len = rest.len().min(cx.receive_buffer.max(1));
        piece.append(&rest[..len]);
        if len < rest.len() {
            self.opened = Some((opened, used + len));
        }
        self.tell(Received::Data(piece), cx);
    }

    pub(super) fn tell(&mut self, received: Received, cx: &mut Context) {
        self.wants_input = false;
        self.answered_in = Some(cx.deliveries);
        let at = cx.heard;
        cx.outbox.push(Event::Received { connection: self.id, received, at });
    }

    pub(super) fn ask(&mut self, inner: &mut dyn Driver) {
        if self.asked || self.stream_ended {
            return;
        }
        if self.reads_exactly {
            match inner.receive_at_most(self.id, self.input.missing()) {
                Ok(()) => self.asked = true,
                // Then it is read ahead, and stays here.
                Err(RefuseReason::Unsupported { .. }) => self.reads_exactly = false,
                Err(_) => return,
            }
        }
        if !self.asked {
            // If this fails the connection is over, and that is about to be said.
            self.asked = inner.receive(self.id).is_ok();
        }
    }

    /// Throws away what comes while the rest is still being sent, as the inner driver
    /// does after that: a peer that is not read may not read either. Nothing is opened
    /// here from now on, so no record is missed; a KeyUpdate that asks for another is as
    /// good as unread (RFC 8446, section 4.6.3).
    pub(super) fn discard(&mut self, inner: &mut dyn Driver) {
        let Phase::Open(session) = &self.phase else { return };
        // What follows a closure alert is ignored (RFC 8446, section 6.1).
        if self.closing.is_some() && !session.has_ended {
            self.opened = None;
            self.input.clear();
            self.ask(inner);
        }
    }

    /// Acts on what came where the kernel opens records.
    pub(super) fn heed_records(&mut self, inner: &mut dyn Driver, cx: &mut Context) {
        let payload = std::mem::take(&mut self.opened_by_kernel);
        if let (Phase::Open(session), true) = (&mut self.phase, payload > 0)
            && let Err(stop) = session.data(payload)
        {
            return self.stop(stop, inner, cx);
        }
        while let Some(record) = self.records.pop_front() {
            let session = match &mut self.phase {
                Phase::Open(session) => session,
                _ => match &mut self.ending {
                    Some(session) => {
                        session.payload_untold();
                        session
                    }
                    None => return self.records.clear(),
                },
            };
            let heeded = heed(session, &record);
            if let Some(keys) = session.take_next_receive() {
                // If this fails the connection is over, and that is about to be
                // said.
                drop(inner.update_receive_key(self.id, keys));
            }
            let Err(stop) = heeded else { continue };
            if matches!(self.phase, Phase::Open(_)) {
                self.records.clear();
                return self.stop(stop, inner, cx);
            }
            // It is being ended already. A peer that does not keep to TLS is heeded
            // no longer.
            self.ending = None;
        }
    }
}

/// What a record means that the kernel has opened, or has not.
fn heed(session: &mut Session, record: &ReceivedRecord) -> Result<(), Stop> {
    match record {
        ReceivedRecord::Control(ControlRecord { content_type, content }) => {
            match ContentType::from_code(*content_type) {
                Some(ContentType::Alert) => session.alert(content),
                Some(ContentType::Handshake) => session.handshake(content),
                _ => {
                    let what = "a record comes after its time, or is of no known type";
                    Err(Violation::unexpected(what).into())
                }
            }
        }
        ReceivedRecord::Unopened { errno } => {
            let (what, alert) = match *errno {
                libc::EBADMSG => ("a record is not authentic", TlsAlert::BAD_RECORD_MAC),
                libc::EMSGSIZE => ("a record is too long", TlsAlert::RECORD_OVERFLOW),
                tls_ulp::NEEDS_KEY => ("a KeyUpdate is cut", TlsAlert::DECODE_ERROR),
                _ => ("what it sent is no TLS record", TlsAlert::UNEXPECTED_MESSAGE),
            };
            Err(Violation::new(what, alert).into())
        }
    }
}

/// Opens records into `out` until it is as full as a receive may be, or there
/// are no more. What was opened before an error is in `out`.
fn open_some(
    session: &mut Session,
    input: &mut Input,
    out: &mut PooledBuf,
    enough: usize,
) -> Result<(), Stop> {
    while out.len() < enough && !session.has_ended {
        let Some(header) = input.peek()? else { return Ok(()) };
        let Some(opener) = &mut session.opener else { return Ok(()) };
        let room = opener.room(&header);
        if room > out.spare().len() {
            return Ok(());
        }
        let spare = &mut out.spare()[..room];
        let opened =
            input.take(&header, |record| opener.open(&header, &record[HEADER..], spare))?;
        let content = &spare[..opened.len];
        match opened.kind {
            ContentType::ApplicationData => {
                session.data(opened.len)?;
                out.advance(opened.len);
            }
            ContentType::Alert => session.alert(content)?,
            ContentType::Handshake => session.handshake(content)?,
            ContentType::ChangeCipherSpec => {
                let what = "a change_cipher_spec comes after its time";
                return Err(Violation::unexpected(what).into());
            }
        }
    }
    Ok(())
}
