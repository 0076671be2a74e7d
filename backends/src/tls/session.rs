//! An established TLS session: keys, and the messages that change them.

use super::aead::{Opener, Sealer};
use super::handshake::KeySchedule;
use super::record::{ContentType, Violation};
use lastbyte::{TlsAlert, TlsCipher, TlsFailure, TlsVersion, TrafficKeys};

/// Records in a row without any content after which a peer is given up. Each
/// costs work and moves nothing. BoringSSL allows as many KeyUpdates
/// (`kMaxKeyUpdates`, ssl/tls13_both.cc) and empty records
/// (`kMaxEmptyRecords`, ssl/ssl_lib.cc).
const MAX_IDLE_RECORDS: u32 = 32;

/// Warnings that are ignored, as in BoringSSL (`kMaxWarningAlerts`,
/// ssl/ssl_lib.cc).
const MAX_WARNINGS: u32 = 4;

/// Longest message after the handshake: a ticket of 2^16 - 1 bytes with all of
/// its fields (RFC 8446, section 4.6.1) is not longer.
const MAX_MESSAGE: usize = (1 << 17) + 1024;

/// Longest ClientHello for a second handshake, which is refused whatever is in it.
const MAX_HELLO: usize = 1 << 14;

/// RFC 8446, section 4, and RFC 5246, section 7.4.
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Length of a message's header: its type and its length.
const MESSAGE_HEADER: usize = 4;

/// Why a session cannot go on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// Because of what the peer did, which is answered by an alert.
    Violation(Violation),
    /// Because the peer said so.
    Alert(TlsAlert),
    /// Because of something on this side.
    Failed(TlsFailure),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// What a session is made of, beside its first keys.
#[derive(Debug)]
pub(super) struct SessionTerms {
    pub(super) version: TlsVersion,
    pub(super) cipher: TlsCipher,
    /// Records after which the key has to be changed.
    pub(super) record_limit: u64,
    pub(super) schedule: Box<dyn KeySchedule>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) version: TlsVersion,
    cipher: TlsCipher,
    /// `None` where the kernel has that direction.
    pub(super) sealer: Option<Sealer>,
    pub(super) opener: Option<Opener>,
    schedule: Box<dyn KeySchedule>,
    /// Records after which the key has to be changed.
    record_limit: u64,
    /// The kernel has nearly used the key up.
    pub(super) is_used_up: bool,
    /// What the kernel has to open records with from now on.
    next_receive: Option<TrafficKeys>,
    /// Made, and the kernel did not take them yet.
    next_transmit: Option<TrafficKeys>,
    /// The peer wants this side to change its key too.
    key_update_due: bool,
    /// There will be no second handshake, and the peer has to be told.
    refusal_due: bool,
    /// The start of a handshake message.
    message: Vec<u8>,
    idle_records: u32,
    warnings: u32,
    renegotiations: u32,
    /// The peer has said that it sends no more.
    pub(super) has_ended: bool,
}

impl Session {
    /// A session with these keys, which are those of the directions that stay in
    /// user space.
    pub(super) fn new(
        terms: SessionTerms,
        transmit: Option<&TrafficKeys>,
        receive: Option<&TrafficKeys>,
    ) -> Result<Self, TlsFailure> {
        let SessionTerms { version, cipher, record_limit, schedule } = terms;
        Ok(Self {
            version,
            cipher,
            sealer: transmit.map(|keys| Sealer::new(version, cipher, keys)).transpose()?,
            opener: receive.map(|keys| Opener::new(version, cipher, keys)).transpose()?,
            schedule,
            record_limit,
            is_used_up: false,
            next_receive: None,
            next_transmit: None,
            key_update_due: false,
            refusal_due: false,
            message: Vec::new(),
            idle_records: 0,
            warnings: 0,
            renegotiations: 0,
            has_ended: false,
        })
    }

    /// Record cipher of both directions.
    pub(super) fn cipher(&self) -> TlsCipher {
        self.cipher
    }

    /// The message that has to be sealed before anything else, if there is one.
    /// It comes with what to call after that.
    pub(super) fn control_due(&self) -> Option<Control> {
        if self.refusal_due {
            return Some(Control::RefuseRenegotiation);
        }
        // The KeyUpdate is a record too.
        let is_used_up = self
            .sealer
            .as_ref()
            .map_or(self.is_used_up, |sealer| sealer.sequence() + 1 >= self.record_limit);
        if self.version == TlsVersion::Tls13 && (self.key_update_due || is_used_up) {
            return Some(Control::KeyUpdate);
        }
        None
    }

    /// How many more records of payload the key is good for. One is kept for the
    /// message that changes it, and in TLS 1.2 for the alert that ends it all; there
    /// another one, as long as a second handshake may have to be refused.
    pub(super) fn records_left(&self) -> u64 {
        let sealed = self.sealer.as_ref().map_or(0, Sealer::sequence);
        let may_refuse = self.renegotiations == 0 || self.refusal_due;
        let kept = 1 + u64::from(self.version == TlsVersion::Tls12 && may_refuse);
        self.record_limit.saturating_sub(sealed.saturating_add(kept))
    }

    /// The control message was sealed: what follows from that.
    pub(super) fn control_sealed(&mut self, control: Control) -> Result<(), TlsFailure> {
        match control {
            Control::RefuseRenegotiation => self.refusal_due = false,
            Control::KeyUpdate => {
                self.key_update_due = false;
                // "The sender of a KeyUpdate uses the next key for everything
                // that follows" (RFC 8446, section 4.6.3).
                let keys = self.schedule.next_transmit().map_err(|_| no_key())?;
                self.sealer = Some(Sealer::new(self.version, self.cipher, &keys)?);
            }
        }
        Ok(())
    }

    /// The keys that the kernel has to seal with next.
    pub(super) fn next_transmit(&mut self) -> Result<TrafficKeys, TlsFailure> {
        match self.next_transmit.take() {
            Some(keys) => Ok(keys),
            None => self.schedule.next_transmit().map_err(|_| no_key()),
        }
    }

    /// The kernel has them, or has `refused` them because it is about to change
    /// keys anyway: in either case the peer will see a change.
    pub(super) fn key_update_sent(&mut self, refused: Option<TrafficKeys>) {
        self.next_transmit = refused;
        (self.key_update_due, self.is_used_up) = (false, false);
    }

    /// The refusal of a second handshake is on its way.
    pub(super) fn refused(&mut self) {
        self.refusal_due = false;
    }

    /// What the kernel has to open records with from now on, if that has changed.
    pub(super) fn take_next_receive(&mut self) -> Option<TrafficKeys> {
        self.next_receive.take()
    }

    /// A record was opened that held `len` bytes of payload.
    pub(super) fn data(&mut self, len: usize) -> Result<(), Stop> {
        if !self.message.is_empty() {
            return Err(Violation::unexpected("data comes inside of a handshake message").into());
        }
        if len == 0 {
            return self.idle();
        }
        self.idle_records = 0;
        Ok(())
    }

    /// An alert came.
    pub(super) fn alert(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        // Nothing comes between the records of a message (RFC 8446, section 5.1).
        if self.version == TlsVersion::Tls13 && !self.message.is_empty() {
            let what = "an alert comes inside of a handshake message";
            return Err(Violation::unexpected(what).into());
        }
        // Alerts are neither split nor joined (RFC 8446, section 5.1).
        let &[level, description] = bytes else {
            return Err(Violation::new("an alert is cut", TlsAlert::DECODE_ERROR).into());
        };
        let alert = TlsAlert::new(description);
        if alert == TlsAlert::CLOSE_NOTIFY {
            self.has_ended = true;
            return Ok(());
        }
        // In TLS 1.3 all are fatal whatever their level, but for this one
        // (RFC 8446, section 6).
        let is_warning = match self.version {
            TlsVersion::Tls13 => alert == TlsAlert::USER_CANCELED,
            _ => level == WARNING,
        };
        if !is_warning {
            return Err(Stop::Alert(alert));
        }
        self.warnings += 1;
        if self.warnings > MAX_WARNINGS {
            return Err(Violation::unexpected("it warns too often").into());
        }
        self.idle()
    }

    /// A record with a piece of handshake messages came.
    pub(super) fn handshake(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        // Nothing is kept of what is refused: more of it may come while the
        // connection ends.
        let mut message = std::mem::take(&mut self.message);
        if bytes.is_empty() {
            // RFC 8446, section 5.1.
            return Err(Violation::unexpected("a handshake record is empty").into());
        }
        message.extend_from_slice(bytes);
        while let Some(&[kind, a, b, c]) = message.first_chunk::<MESSAGE_HEADER>() {
            let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            self.admit(kind, len)?;
            let end = MESSAGE_HEADER + len;
            if message.len() < end {
                break;
            }
            let is_last = message.len() == end;
            self.understand(kind, &message[MESSAGE_HEADER..end], is_last)?;
            message.drain(..end);
        }
        self.idle()?;
        // Between messages no memory is held.
        if !message.is_empty() {
            self.message = message;
        }
        Ok(())
    }

    /// Whether a message of this kind may come now, and be that long. It is asked
    /// before the message is there, so that none is held in order to be refused.
    fn admit(&self, kind: u8, len: usize) -> Result<(), Stop> {
        let most = match (self.version, kind) {
            (TlsVersion::Tls13, KEY_UPDATE) => 1,
            (TlsVersion::Tls13, NEW_SESSION_TICKET) if self.schedule.takes_tickets() => MAX_MESSAGE,
            // RFC 5746 makes a second handshake safe, but nothing here needs one.
            // Once, as rustls has it.
            (TlsVersion::Tls12, CLIENT_HELLO | HELLO_REQUEST) if self.renegotiations > 0 => {
                return Err(Violation::unexpected("it insists on a new handshake").into());
            }
            (TlsVersion::Tls12, CLIENT_HELLO) => MAX_HELLO,
            // It is empty (RFC 5246, section 7.4.1.1).
            (TlsVersion::Tls12, HELLO_REQUEST) => 0,
            _ => return Err(after_its_time()),
        };
        if len > most {
            return Err(Violation::new("a message is too long", TlsAlert::DECODE_ERROR).into());
        }
        Ok(())
    }

    fn understand(&mut self, kind: u8, content: &[u8], is_last: bool) -> Result<(), Stop> {
        match (self.version, kind) {
            (TlsVersion::Tls13, KEY_UPDATE) => self.peer_updates(content, is_last),
            (TlsVersion::Tls13, NEW_SESSION_TICKET) => self
                .schedule
                .ticket(content)
                .map_err(|_| Violation::unexpected("a session ticket is of no use").into()),
            (TlsVersion::Tls12, CLIENT_HELLO | HELLO_REQUEST) => {
                self.renegotiations += 1;
                self.refusal_due = true;
                Ok(())
            }
            _ => Err(after_its_time()),
        }
    }

    /// RFC 8446, section 4.6.3.
    fn peer_updates(&mut self, content: &[u8], is_last: bool) -> Result<(), Stop> {
        // A message must not span a change of keys (section 5.1).
        if !is_last {
            return Err(Violation::unexpected("something follows a KeyUpdate").into());
        }
        match content {
            [0] => {}
            // However many requests there are before the answer is sent, it is one.
            [1] => self.key_update_due = true,
            [_] => {
                let what = "a KeyUpdate asks for what does not exist";
                return Err(Violation::new(what, TlsAlert::ILLEGAL_PARAMETER).into());
            }
            _ => {
                return Err(Violation::new("a KeyUpdate is cut", TlsAlert::DECODE_ERROR).into());
            }
        }
        let keys = self.schedule.next_receive().map_err(|_| Stop::Failed(no_key()))?;
        if self.opener.is_some() {
            let opener = Opener::new(self.version, self.cipher, &keys).map_err(Stop::Failed)?;
            self.opener = Some(opener);
        } else {
            self.next_receive = Some(keys);
        }
        Ok(())
    }

    /// Payload may have come that was thrown away untold: what is idle is not so in a
    /// row.
    pub(super) fn payload_untold(&mut self) {
        self.idle_records = 0;
    }

    fn idle(&mut self) -> Result<(), Stop> {
        self.idle_records += 1;
        if self.idle_records > MAX_IDLE_RECORDS {
            return Err(Violation::unexpected("it sends too many records without content").into());
        }
        Ok(())
    }
}

fn after_its_time() -> Stop {
    Violation::unexpected("a handshake message comes after its time").into()
}

fn no_key() -> TlsFailure {
    TlsFailure::Crypto { doing: "making the next record key" }
}

/// Levels of alerts (RFC 8446, section 6).
pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;

/// A message that is sent for TLS's own sake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Control {
    KeyUpdate,
    RefuseRenegotiation,
}

impl Control {
    pub(super) fn kind(self) -> ContentType {
        match self {
            Self::KeyUpdate => ContentType::Handshake,
            Self::RefuseRenegotiation => ContentType::Alert,
        }
    }

    pub(super) fn content(self) -> &'static [u8] {
        const REFUSAL: [u8; 2] = [WARNING, TlsAlert::NO_RENEGOTIATION.code()];
        match self {
            // `update_not_requested`: the peer's own key is its own affair.
            Self::KeyUpdate => &[KEY_UPDATE, 0, 0, 1, 0],
            Self::RefuseRenegotiation => &REFUSAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoKeys;

    impl KeySchedule for NoKeys {
        fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
            Err("there are none".to_owned())
        }

        fn next_receive(&mut self) -> Result<TrafficKeys, String> {
            Err("there are none".to_owned())
        }

        fn takes_tickets(&self) -> bool {
            false
        }

        fn ticket(&mut self, _: &[u8]) -> Result<(), String> {
            Err("it is of no use".to_owned())
        }
    }

    fn session(version: TlsVersion) -> Session {
        let schedule = Box::new(NoKeys);
        let (cipher, record_limit) = (TlsCipher::Aes128Gcm, u64::MAX);
        Session::new(SessionTerms { version, cipher, record_limit, schedule }, None, None).unwrap()
    }

    /// A session is told of records after one that ended it, while the inner driver
    /// ends the connection.
    #[test]
    fn what_was_refused_is_not_held_nor_added_to() {
        let record = [0xFF; 1 << 14];
        for (version, start) in [
            (TlsVersion::Tls13, &[NEW_SESSION_TICKET, 0xFF, 0xFF, 0xFF][..]),
            (TlsVersion::Tls13, &[NEW_SESSION_TICKET, 0, 0, 1, 0]),
            (TlsVersion::Tls13, &[KEY_UPDATE, 0, 0, 1, 0]),
            (TlsVersion::Tls13, &[0xFF, 0, 0xFF, 0xFF]),
            (TlsVersion::Tls12, &[CLIENT_HELLO, 0xFF, 0xFF, 0xFF]),
        ] {
            let mut session = session(version);
            assert!(session.handshake(start).is_err(), "{start:?}");
            for n in 0..100 {
                assert!(session.message.is_empty(), "{start:?}: {} held", session.message.len());
                let _ = session.handshake(&record);
                assert!(session.message.capacity() <= MAX_MESSAGE, "after {n} records");
            }
        }
    }

    /// Its length is told at once, and so is whether it will be taken.
    #[test]
    fn a_message_that_will_be_refused_is_not_waited_for() {
        for (version, start) in [
            (TlsVersion::Tls13, [NEW_SESSION_TICKET, 1, 0, 0]),
            (TlsVersion::Tls13, [KEY_UPDATE, 0, 0xFF, 0]),
            (TlsVersion::Tls13, [CLIENT_HELLO, 0, 0xFF, 0]),
            (TlsVersion::Tls12, [NEW_SESSION_TICKET, 0, 0xFF, 0]),
            (TlsVersion::Tls12, [HELLO_REQUEST, 0, 0, 1]),
            (TlsVersion::Tls12, [CLIENT_HELLO, 0, 0x40, 1]),
        ] {
            assert!(session(version).handshake(&start).is_err(), "{version}: {start:?}");
        }
        for start in [[HELLO_REQUEST, 0, 0, 0], [CLIENT_HELLO, 0, 0x40, 0]] {
            assert_eq!(session(TlsVersion::Tls12).handshake(&start), Ok(()), "{start:?}");
        }
        let mut insistent = session(TlsVersion::Tls12);
        assert_eq!(insistent.handshake(&[CLIENT_HELLO, 0, 0, 0]), Ok(()));
        assert!(insistent.handshake(&[CLIENT_HELLO, 0, 0xFF, 0]).is_err());
    }
}
