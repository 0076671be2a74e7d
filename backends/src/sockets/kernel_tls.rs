//! Connections whose record layer is the kernel's.
//!
//! Between attaching the protocol and the first key nothing is written, because
//! it would go out as it is (contract C10). What fails before a key is in leaves
//! the connection as it was; what fails after that resets it.

use super::connection::{Connection, ZeroCopy};
use super::context::Context;
use crate::facilities::KernelTlsUse;
use crate::sys::timestamping::{self, Wanted};
use crate::sys::tls_ulp::{self, Direction};
use lastbyte::{
    ControlRecord, Event, FailReason, Limit, MAX_RECORD_CONTENT, OffloadError, OffloadOptions,
    OffloadWish, Offloaded, ReceivedRecord, RefuseReason, Refused, TlsCipher, TlsFailure,
    TlsSession, TlsVersion, TrafficKeys, Transport,
};
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

/// A key seals at least as many records: with fewer there would be no room for
/// a call between one change and the next.
const FEWEST_RECORDS: u64 = 32;

/// Records that are kept back of those that a key may seal: the KeyUpdate, and
/// as many as the shortest call may take.
const KEPT: u64 = 4;

/// Records that are no payload and may wait at a time.
const MAX_WAITING: usize = 8;

#[derive(Debug, Default)]
pub(super) struct KernelTls {
    /// The protocol is attached, whether there are keys or not.
    is_attached: bool,
    pub(super) transmit: Option<Transmit>,
    pub(super) receive: Option<Receive>,
}

/// What this side sends.
#[derive(Debug)]
pub(super) struct Transmit {
    version: TlsVersion,
    cipher: TlsCipher,
    /// Number of the next record, as the kernel said last.
    sequence: u64,
    /// Number of the next record that the ledger was not told of: behind while a
    /// record is open.
    told: u64,
    /// How many records one key may seal.
    limit: u64,
    /// The user was told that it nearly has.
    is_due: bool,
    /// The last call may have left a record open.
    pub(super) is_open: bool,
    /// Stamps that every call asks for.
    stamps: Wanted,
    waiting: VecDeque<Waiting>,
}

/// A record that is no payload.
#[derive(Debug)]
struct Waiting {
    /// The bytes that have to be accepted before.
    after: u64,
    record: ControlRecord,
    /// The key of everything behind it, if that changes.
    then: Option<TrafficKeys>,
}

/// What the peer sends.
#[derive(Debug)]
pub(super) struct Receive {
    version: TlsVersion,
    cipher: TlsCipher,
    /// What was opened in user space and is still to be handed on.
    early: Vec<u8>,
    /// The kernel has come to a record that it does not open.
    unopened: Option<i32>,
    /// It has come to one of which it has not got the key.
    awaits_key: bool,
}

impl Transmit {
    /// How many more records the key may seal.
    fn left(&self) -> u64 {
        // An open record is sealed with it too.
        self.limit.saturating_sub(self.sequence.saturating_add(u64::from(self.is_open)))
    }

    /// Whether nothing may be sealed before the key was changed.
    fn is_used_up(&self) -> bool {
        self.left() < KEPT
    }

    /// The most that the next call may give.
    pub(super) fn most(&self) -> u64 {
        // The kernel may close a record before it is full, so that a call takes
        // more of them than its length says.
        (self.left() / 4).max(1).saturating_mul(MAX_RECORD_CONTENT as u64)
    }

    /// Has every call from now on ask for these stamps too.
    pub(super) fn ask_for(&mut self, stamps: Wanted, stream: &TcpStream, id_tcp: bool) {
        let both = Wanted {
            acked: self.stamps.acked || stamps.acked,
            transmitted: self.stamps.transmitted || stamps.transmitted,
        };
        // Where it cannot be set there are no stamps, and looks make up for them.
        if both != self.stamps && timestamping::always(stream.as_fd(), id_tcp, both).is_ok() {
            self.stamps = both;
        }
    }
}

/// The steps of a hand-over, all of which can fail.
struct Steps<'a> {
    stream: &'a TcpStream,
    session: &'a TlsSession,
    /// A key is in: there is no way back.
    is_committed: bool,
}

impl Steps<'_> {
    fn keys(&mut self, direction: Direction, doing: &'static str) -> Result<(), Failed> {
        let keys = match direction {
            Direction::Transmit => &self.session.transmit,
            Direction::Receive => &self.session.receive,
        };
        let TlsSession { version, cipher, .. } = *self.session;
        tls_ulp::set_keys(self.stream.as_fd(), direction, version, cipher, keys)
            .map_err(|error| failed(doing, &error))?;
        self.is_committed = true;
        Ok(())
    }
}

type Failed = (&'static str, i32);

fn failed(doing: &'static str, error: &io::Error) -> Failed {
    (doing, error.raw_os_error().unwrap_or(0))
}

impl Connection {
    /// Hands `session` to the kernel as far as `options` wish for it.
    pub(super) fn offload(
        &mut self,
        session: TlsSession,
        options: OffloadOptions,
        cx: &mut Context,
    ) -> Result<Offloaded, OffloadError> {
        let refuse = |session, reason| Err(OffloadError::Refused(Refused::new(session, reason)));
        let (transmit, receive) =
            match self.directions(&session, options, &cx.facilities.kernel_tls) {
                Ok(directions) => directions,
                Err(reason) => return refuse(session, reason),
            };
        if let Some(reason) = self.stands_against_offload() {
            return refuse(session, reason);
        }
        let mut steps = Steps { stream: &self.stream, session: &session, is_committed: false };
        let taken = take_over(
            &mut steps,
            &mut self.kernel_tls.get_or_insert_default().is_attached,
            transmit,
            receive,
            options.unchanging_files && cx.facilities.kernel_tls.zero_copy_files,
        );
        match (taken, steps.is_committed) {
            (Ok(()), _) => Ok(self.taken_over(session, transmit, receive)),
            // Without a key the protocol passes everything on as it is: records
            // that were sealed in user space.
            (Err((doing, errno)), false) => refuse(session, RefuseReason::System { doing, errno }),
            (Err((doing, errno)), true) => {
                drop(session);
                self.die(&TlsFailure::OffloadBroken { doing, errno }.into(), cx);
                Err(OffloadError::Broken { doing, errno })
            }
        }
    }

    /// Which directions the kernel will take.
    fn directions(
        &self,
        session: &TlsSession,
        options: OffloadOptions,
        uses: &KernelTlsUse,
    ) -> Result<(bool, bool), RefuseReason> {
        let TlsSession { version, cipher, .. } = *session;
        let lack = |facility| RefuseReason::Lacks { facility };
        let transmit = uses.lacks_to_transmit(version, cipher).map(lack);
        let receive = uses.lacks_to_receive(version, cipher).map(lack).or_else(|| {
            let what = "input may have been taken ahead of its record";
            self.may_have_read_ahead().then_some(RefuseReason::Unsupported { what })
        });
        let decide = |wish, against: Option<RefuseReason>| match (wish, against) {
            (OffloadWish::Never, _) => Ok(false),
            (_, None) => Ok(true),
            (OffloadWish::Prefer, Some(_)) => Ok(false),
            (OffloadWish::Require, Some(reason)) => Err(reason),
        };
        match (
            decide(options.transmit, transmit.clone())?,
            decide(options.receive, receive.clone())?,
        ) {
            (false, false) => Err(transmit
                .or(receive)
                .unwrap_or(RefuseReason::Unsupported { what: "kernel TLS is not wished for" })),
            (_, false) if !session.early_data.is_empty() => {
                let what = "early data cannot come before records that stay in user space";
                Err(RefuseReason::Unsupported { what })
            }
            directions => Ok(directions),
        }
    }

    /// Why it cannot be handed over now.
    fn stands_against_offload(&mut self) -> Option<RefuseReason> {
        if !self.takes_output() {
            return Some(RefuseReason::Closing);
        }
        if self.connecting {
            return Some(RefuseReason::Unsupported { what: "it is not connected yet" });
        }
        let has_keys = |tls: &KernelTls| tls.transmit.is_some() || tls.receive.is_some();
        if self.kernel_tls.as_deref().is_some_and(has_keys) {
            return Some(RefuseReason::Unsupported { what: "it is the kernel's already" });
        }
        // Without keys a call that has returned has given TCP all it took, so
        // that what is accepted is written. Notifications of zero copy are
        // waited for: their memory is no business of what comes after.
        let unwritten = self.ledger.submitted_to().get() - self.ledger.accepted_to().get();
        if unwritten > 0 || self.is_sending() || self.ledger.is_pinned() {
            let limit = Limit::Unwritten;
            return Some(RefuseReason::BackPressure { limit, outstanding: unwritten, allowed: 0 });
        }
        None
    }

    fn taken_over(&mut self, session: TlsSession, transmit: bool, receive: bool) -> Offloaded {
        let TlsSession { version, cipher, transmit: sends, receive: gets, early_data, .. } =
            session;
        let tls = self.kernel_tls.get_or_insert_default();
        if transmit {
            tls.transmit = Some(Transmit {
                version,
                cipher,
                sequence: sends.sequence(),
                told: sends.sequence(),
                limit: session.record_limit.max(FEWEST_RECORDS),
                is_due: false,
                is_open: false,
                stamps: self.standing.hand_over(),
                waiting: VecDeque::new(),
            });
            self.ledger.kernel_seals(cipher.record_overhead(version));
            // What a ring sends is not counted in time.
            if let Some(native) = &mut self.native {
                (native.completes.sends, native.completes.zero_copy_sends) = (false, false);
            }
        }
        // Where the kernel seals, neither way of zero copy exists (`tls_sw_sendmsg`).
        // And with either key a socket cannot be disconnected (`tls_disconnect`),
        // so that nothing could have the kernel let go of what it was lent.
        self.zero_copy = ZeroCopy::Unusable;
        if receive {
            let early = early_data;
            tls.receive =
                Some(Receive { version, cipher, early, unopened: None, awaits_key: false });
            // What is there already has been signalled.
            self.readable = true;
        }
        let transport = |taken| if taken { Transport::KernelTls } else { Transport::UserTls };
        let left = match (transmit, receive) {
            (true, false) => Some(gets),
            (false, true) => Some(sends),
            _ => None,
        };
        Offloaded { transmit: transport(transmit), receive: transport(receive), left }
    }

    // ---- what is sent ----

    /// Whether there is something to write.
    pub(super) fn has_output(&self) -> bool {
        !self.ledger.is_all_accepted() || self.has_records()
    }

    /// Whether records that are no payload wait to be sealed.
    fn has_records(&self) -> bool {
        self.sealing().is_some_and(|transmit| !transmit.waiting.is_empty())
    }

    pub(super) fn sealing(&self) -> Option<&Transmit> {
        self.kernel_tls.as_ref().and_then(|tls| tls.transmit.as_ref())
    }

    pub(super) fn submit_record(
        &mut self,
        record: ControlRecord,
        cx: &mut Context,
    ) -> Result<(), Refused<ControlRecord>> {
        let after = self.ledger.submitted_to().get();
        if let Some(reason) = self.stands_against_record(&record, false) {
            return Err(Refused::new(record, reason));
        }
        self.enter(Waiting { after, record, then: None }, cx);
        Ok(())
    }

    pub(super) fn update_transmit_key(
        &mut self,
        message: ControlRecord,
        keys: TrafficKeys,
        cx: &mut Context,
    ) -> Result<(), Refused<TrafficKeys>> {
        // The end of the stream waits for all that was accepted, and that may
        // take more than one key.
        let is_draining = self.end_is_due();
        let waits = |transmit: &Transmit| transmit.waiting.iter().any(|one| one.then.is_some());
        let reason = match self.stands_against_record(&message, is_draining) {
            None if self.sealing().is_some_and(waits) => {
                let (limit, outstanding, allowed) = (Limit::Records, 1, 0);
                Some(RefuseReason::BackPressure { limit, outstanding, allowed })
            }
            reason => reason,
        };
        if let Some(reason) = reason {
            return Err(Refused::new(keys, reason));
        }
        self.enter(Waiting { after: 0, record: message, then: Some(keys) }, cx);
        Ok(())
    }

    fn stands_against_record(
        &self,
        record: &ControlRecord,
        is_draining: bool,
    ) -> Option<RefuseReason> {
        if self.is_doomed() || !is_draining && !self.takes_output() {
            return Some(RefuseReason::Closing);
        }
        let Some(transmit) = self.sealing() else {
            let what = "the kernel does not seal this connection's records";
            return Some(RefuseReason::Unsupported { what });
        };
        if record.content.is_empty() {
            return Some(RefuseReason::Empty);
        }
        if record.content.len() > MAX_RECORD_CONTENT {
            return Some(RefuseReason::TooLong);
        }
        (transmit.waiting.len() >= MAX_WAITING).then_some(RefuseReason::BackPressure {
            limit: Limit::Records,
            outstanding: MAX_WAITING as u64,
            allowed: MAX_WAITING as u64,
        })
    }

    fn enter(&mut self, waiting: Waiting, cx: &mut Context) {
        if let Some(transmit) = self.kernel_tls.as_mut().and_then(|tls| tls.transmit.as_mut()) {
            if waiting.then.is_some() {
                transmit.waiting.push_front(waiting);
            } else {
                transmit.waiting.push_back(waiting);
            }
        }
        if self.writable {
            self.flush(cx.time(), cx);
        }
        self.arm(cx);
    }

    /// Seals the records whose turn it is, and says whether payload may follow.
    pub(super) fn flush_records(&mut self, cx: &mut Context) -> bool {
        loop {
            let accepted = self.ledger.accepted_to().get();
            let Some(transmit) = self.kernel_tls.as_mut().and_then(|tls| tls.transmit.as_mut())
            else {
                return true;
            };
            let Some(next) = transmit.waiting.front().filter(|next| next.after <= accepted) else {
                let is_stuck = transmit.is_used_up() && transmit.version == TlsVersion::Tls12;
                if is_stuck && !self.ledger.is_all_accepted() {
                    // There will be no other key.
                    self.die(&TlsFailure::KeyExhausted.into(), cx);
                    return false;
                }
                return !transmit.is_used_up();
            };
            let ControlRecord { content_type, content } = &next.record;
            let sent = tls_ulp::send_record(self.stream.as_fd(), *content_type, content);
            match sent {
                Ok(len) if len == content.len() => {}
                Ok(_) => {
                    let reason = FailReason::System { doing: "sealing", errno: libc::EMSGSIZE };
                    self.die(&reason, cx);
                    return false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return false;
                }
                Err(error) => {
                    self.die(&super::connection::reason("sendmsg", &error), cx);
                    return false;
                }
            }
            if let Err((doing, errno)) = self.record_sealed() {
                self.die(&TlsFailure::OffloadBroken { doing, errno }.into(), cx);
                return false;
            }
        }
    }

    /// The first record that waited is sealed, and with it what was open.
    fn record_sealed(&mut self) -> Result<(), Failed> {
        let fd = self.stream.as_fd();
        let Some(transmit) = self.kernel_tls.as_mut().and_then(|tls| tls.transmit.as_mut()) else {
            return Ok(());
        };
        let Some(Waiting { record, then, .. }) = transmit.waiting.pop_front() else {
            return Ok(());
        };
        let next = tls_ulp::next_record(fd, transmit.cipher)
            .map_err(|error| failed("asking for the record's number", &error))?;
        let records = next.wrapping_sub(transmit.told);
        (transmit.sequence, transmit.told) = (next, next);
        transmit.is_open = false;
        self.ledger.sealed(records.saturating_sub(1));
        self.ledger.control_sealed(record.content.len() as u64);
        if let Some(keys) = then {
            // The peer uses the next key from here on, so there is no way back.
            let Transmit { version, cipher, .. } = *transmit;
            tls_ulp::set_keys(fd, Direction::Transmit, version, cipher, &keys)
                .map_err(|error| failed("TLS_TX with the next key", &error))?;
            (transmit.sequence, transmit.told) = (keys.sequence(), keys.sequence());
            transmit.is_due = false;
        }
        Ok(())
    }

    /// The kernel took payload: in which records. Says whether the connection
    /// goes on.
    pub(super) fn payload_sealed(&mut self, cx: &mut Context) -> bool {
        let Some(transmit) = self.kernel_tls.as_mut().and_then(|tls| tls.transmit.as_mut()) else {
            return true;
        };
        match tls_ulp::next_record(self.stream.as_fd(), transmit.cipher) {
            Ok(next) => {
                transmit.sequence = next;
                let records = next.wrapping_sub(transmit.told);
                if transmit.is_open {
                    self.ledger.left_open(records);
                } else {
                    self.ledger.sealed(records);
                    transmit.told = next;
                }
                if !transmit.is_due && transmit.left() < transmit.limit / 8 + 2 * KEPT {
                    transmit.is_due = true;
                    cx.outbox.push(Event::KeyUpdateDue { connection: self.id });
                }
                true
            }
            Err(error) => {
                self.die(&super::connection::reason("asking for the record's number", &error), cx);
                false
            }
        }
    }

    /// Whether TCP has everything that the kernel accepted and sealed. Where it
    /// has not, the stream's end would cut it off
    /// (`net/tls/tls_sw.c`, `tls_sw_cancel_work_tx`).
    pub(super) fn is_written(&self) -> bool {
        if self.sealing().is_none() {
            return true;
        }
        // Without an answer the connection is over, and the kernel says so soon.
        let Some((acked, queued)) = self.written() else { return false };
        acked + queued >= self.ledger.wire_to().get()
    }

    // ---- what is received ----

    pub(super) fn update_receive_key(
        &mut self,
        keys: &TrafficKeys,
        cx: &mut Context,
    ) -> Result<(), RefuseReason> {
        let Some(receive) = self.receiving() else {
            let what = "the kernel does not open this connection's records";
            return Err(RefuseReason::Unsupported { what });
        };
        let Receive { version, cipher, .. } = *receive;
        let fd = self.stream.as_fd();
        match tls_ulp::set_keys(fd, Direction::Receive, version, cipher, keys) {
            Ok(()) => {
                if let Some(receive) = self.receiving() {
                    receive.awaits_key = false;
                    // Somebody may have asked for input before there was a key for it.
                    receive.unopened.take_if(|errno| *errno == tls_ulp::NEEDS_KEY);
                }
                self.readable = true;
                self.go_on(None, cx);
            }
            Err(error) => {
                let (doing, errno) = failed("TLS_RX with the next key", &error);
                self.die(&TlsFailure::OffloadBroken { doing, errno }.into(), cx);
            }
        }
        Ok(())
    }

    fn receiving(&mut self) -> Option<&mut Receive> {
        self.kernel_tls.as_mut().and_then(|tls| tls.receive.as_mut())
    }

    /// Whether the kernel opens the peer's records.
    pub(super) fn opens(&self) -> bool {
        self.kernel_tls.as_ref().is_some_and(|tls| tls.receive.is_some())
    }

    /// Nothing more can be opened before the next key comes, if one comes: until
    /// then there is no use in waiting for input.
    pub(super) fn await_key(&mut self) {
        self.readable = false;
        if let Some(receive) = self.receiving() {
            receive.awaits_key = true;
        }
    }

    /// Whether what comes is read to be thrown away.
    pub(super) fn discards_input(&self) -> bool {
        let awaits_key =
            |tls: &KernelTls| tls.receive.as_ref().is_some_and(|receive| receive.awaits_key);
        self.phase.discards_input() && !self.kernel_tls.as_deref().is_some_and(awaits_key)
    }

    /// What was opened before the kernel took over, as much as `room`.
    pub(super) fn take_early(&mut self, room: usize) -> Option<Vec<u8>> {
        let receive = self.receiving()?;
        if receive.early.is_empty() {
            return None;
        }
        let rest = receive.early.split_off(room.min(receive.early.len()));
        Some(std::mem::replace(&mut receive.early, rest))
    }

    /// Whether an error is the kernel's opinion of the peer's records, and not
    /// of the connection. It is kept until somebody reads.
    pub(super) fn is_of_a_record(&mut self, error: &io::Error) -> bool {
        let Some(receive) = self.receiving() else { return false };
        let Some(errno @ (libc::EBADMSG | libc::EMSGSIZE | libc::EINVAL | tls_ulp::NEEDS_KEY)) =
            error.raw_os_error()
        else {
            return false;
        };
        receive.unopened = Some(errno);
        self.readable = true;
        // The kernel has made it the socket's error as well (`tls_err_abort`),
        // which would fail the alert that is to be sent.
        drop(self.stream.take_error());
        true
    }

    /// The record that the kernel does not open, if it has come to one.
    pub(super) fn unopened(&self) -> Option<ReceivedRecord> {
        let errno = self.kernel_tls.as_ref()?.receive.as_ref()?.unopened?;
        Some(ReceivedRecord::Unopened { errno })
    }
}

/// Attaches the protocol, and installs the keys.
fn take_over(
    steps: &mut Steps<'_>,
    is_attached: &mut bool,
    transmit: bool,
    receive: bool,
    unchanging_files: bool,
) -> Result<(), Failed> {
    let fd = steps.stream.as_fd();
    if !*is_attached {
        tls_ulp::attach(fd).map_err(|error| failed("TCP_ULP \"tls\"", &error))?;
        *is_attached = true;
    }
    // From here to the key nothing is written.
    if transmit {
        steps.keys(Direction::Transmit, "TLS_TX")?;
        let next = tls_ulp::next_record(fd, steps.session.cipher)
            .map_err(|error| failed("asking for the record's number", &error))?;
        if next != steps.session.transmit.sequence() {
            return Err(("asking for the record's number", libc::EINVAL));
        }
        if unchanging_files {
            tls_ulp::promise_unchanging_files(fd)
                .map_err(|error| failed("TLS_TX_ZEROCOPY_RO", &error))?;
        }
    }
    if receive {
        steps.keys(Direction::Receive, "TLS_RX")?;
    }
    Ok(())
}
