//! Handshakes of one message each way, whose keys the case knows too: so that
//! its peer can say, and read, anything.

use super::seal::{ALERT, HANDSHAKE, Sealing, keys};
use lastbyte::{TlsCipher, TlsRole, TlsSession, TlsVersion, TrafficKeys};
use lastbyte_backends::tls::{Established, Handshake, KeySchedule, Step, TlsProvider};

/// What the peer says first, and what it is answered.
pub(crate) const HELLO: [u8; 6] = [HANDSHAKE, 3, 1, 0, 1, 1];
const ANSWER: [u8; 6] = [HANDSHAKE, 3, 3, 0, 1, 2];

/// Directions, for their keys: from the backend's side to the peer, and back.
const OURS: u8 = 1;
const THEIRS: u8 = 2;

/// Provides such handshakes.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) version: TlsVersion,
    pub(crate) cipher: TlsCipher,
    /// Records after which the keys must have been changed.
    pub(crate) record_limit: u64,
}

impl Known {
    /// Bytes of the handshake that the peer gets.
    pub(crate) const ANSWERED: usize = ANSWER.len();

    pub(crate) fn new(version: TlsVersion, cipher: TlsCipher) -> Self {
        Self { version, cipher, record_limit: u64::MAX }
    }

    /// The session as another library would hand it over, which has made the
    /// handshake.
    pub(crate) fn session(&self) -> TlsSession {
        TlsSession {
            version: self.version,
            cipher: self.cipher,
            transmit: keys(self.cipher, OURS, 0),
            receive: keys(self.cipher, THEIRS, 0),
            early_data: Vec::new(),
            record_limit: self.record_limit,
        }
    }

    /// What opens the backend's records.
    pub(crate) fn opening(&self) -> Sealing {
        Sealing::new(self.version, self.cipher, OURS)
    }

    /// What seals the peer's.
    pub(crate) fn sealing(&self) -> Sealing {
        Sealing::new(self.version, self.cipher, THEIRS)
    }
}

impl TlsProvider for Known {
    fn begin(&self, _: &TlsRole) -> Result<Box<dyn Handshake>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Handshake for Known {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        if records.is_empty() {
            return Ok(Step::Blocked);
        }
        if records != HELLO {
            // handshake_failure
            out.extend([ALERT, 3, 3, 0, 2, 2, 40]);
            return Err("that is no hello".to_owned());
        }
        out.extend(ANSWER);
        Ok(Step::Done)
    }

    fn establish(self: Box<Self>) -> Result<Established, String> {
        Ok(Established {
            version: self.version,
            cipher: self.cipher,
            transmit: keys(self.cipher, OURS, 0),
            receive: keys(self.cipher, THEIRS, 0),
            record_limit: self.record_limit,
            peer: None,
            schedule: Box::new(Schedule { of: *self, transmit: 0, receive: 0 }),
        })
    }
}

#[derive(Debug)]
struct Schedule {
    of: Known,
    transmit: u32,
    receive: u32,
}

impl Schedule {
    fn check(&self) -> Result<(), String> {
        match self.of.version {
            TlsVersion::Tls13 => Ok(()),
            _ => Err("TLS 1.2 has no further keys".to_owned()),
        }
    }
}

impl KeySchedule for Schedule {
    fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
        self.check()?;
        self.transmit += 1;
        Ok(keys(self.of.cipher, OURS, self.transmit))
    }

    fn next_receive(&mut self) -> Result<TrafficKeys, String> {
        self.check()?;
        self.receive += 1;
        Ok(keys(self.of.cipher, THEIRS, self.receive))
    }

    fn ticket(&mut self, _: &[u8]) -> Result<(), String> {
        Err("this is a server".to_owned())
    }
}
