//! What the layer needs of a TLS library: handshakes, and the keys that come of
//! them. Nothing here belongs to one library; see `rustls_023` for the one that
//! is shipped.

use lastbyte::{TlsCipher, TlsPeer, TlsRole, TlsVersion, TrafficKeys};
use std::fmt;

/// Begins handshakes.
pub trait TlsProvider: fmt::Debug + Send + Sync {
    /// A handshake in this role, of which nothing was sent yet. Never asked for
    /// [`TlsRole::Plain`].
    ///
    /// # Errors
    /// What is wrong with the role, in a line: there is no certificate for it,
    /// or the name is not valid.
    fn begin(&self, role: &TlsRole) -> Result<Box<dyn Handshake>, String>;
}

/// One handshake: records in, records out.
pub trait Handshake: fmt::Debug + Send {
    /// Takes `records`, which are one or none (what is no record is given too,
    /// to be refused), and adds what is to be sent to `out`, also when it fails.
    ///
    /// # Errors
    /// Why there will be no session.
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String>;

    /// The session, once [`Self::advance`] said [`Step::Done`] and all it gave
    /// out is on its way.
    ///
    /// # Errors
    /// If the library does not hand it over.
    fn establish(self: Box<Self>) -> Result<Established, String>;
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The peer's next record is needed.
    Blocked,
    /// It is done.
    Done,
}

/// What a handshake leads to.
#[derive(Debug)]
pub struct Established {
    /// Protocol version.
    pub version: TlsVersion,
    /// Record cipher of both directions.
    pub cipher: TlsCipher,
    /// Keys of what this side sends.
    pub transmit: TrafficKeys,
    /// Keys of what the peer sends.
    pub receive: TrafficKeys,
    /// Records that may be sealed with one key.
    pub record_limit: u64,
    /// What the peer has shown or agreed to besides, if anything.
    pub peer: Option<Box<TlsPeer>>,
    /// Where further keys come from.
    pub schedule: Box<dyn KeySchedule>,
}

/// Makes the keys that follow those of the handshake.
pub trait KeySchedule: fmt::Debug + Send {
    /// The next keys of what this side sends (RFC 8446, section 7.2).
    ///
    /// # Errors
    /// If there are none: in TLS 1.2.
    fn next_transmit(&mut self) -> Result<TrafficKeys, String>;

    /// The next keys of what the peer sends.
    ///
    /// # Errors
    /// If there are none: in TLS 1.2.
    fn next_receive(&mut self) -> Result<TrafficKeys, String>;

    /// Whether this side takes tickets at all. From one that does not (a server), a
    /// ticket is refused before it is there: it may be 128 KiB long.
    fn takes_tickets(&self) -> bool {
        true
    }

    /// Takes the content of a `NewSessionTicket` message.
    ///
    /// # Errors
    /// If this side does not take any (a server), or not this one.
    fn ticket(&mut self, message: &[u8]) -> Result<(), String>;
}
