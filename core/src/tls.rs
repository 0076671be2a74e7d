//! Handing a TLS session to the kernel, in terms no TLS library owns.

use crate::{RefuseReason, Refused, Transport};
use std::fmt;

/// Most bytes of content that a TLS record has (RFC 8446, section 5.1).
pub const MAX_RECORD_CONTENT: usize = 1 << 14;

/// Moves the record layer of an established TLS connection into the kernel.
///
/// Implementations keep contract C10: after the handshake no plaintext byte
/// reaches the wire, whatever fails. The hand-over takes place on a record
/// boundary in both directions: nothing sealed is waiting to be written, and
/// what was read ahead is in [`TlsSession::early_data`].
///
/// [`Connection`](crate::Connection) implements it over any driver, by
/// [`Driver::offload_tls`](crate::Driver::offload_tls).
pub trait TlsOffload {
    /// Installs `session`'s keys as far as the kernel takes them and `options`
    /// allow, and says what became of each direction.
    ///
    /// # Errors
    /// Gives the session back untouched where the connection can go on in user
    /// space, for one because bytes that were submitted before are not written
    /// yet ([`Limit::Unwritten`](crate::Limit::Unwritten)): then it can be tried
    /// again. [`OffloadError::Broken`] means that it cannot go on: the connection
    /// was reset, and the session's secrets are gone.
    fn offload(
        &mut self,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError>;
}

/// The part that this side of a connection plays.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsRole {
    /// No TLS.
    Plain,
    /// The side that was connected to, and shows a certificate.
    Server,
    /// The side that has connected.
    Client {
        /// DNS name or IP address that the server's certificate has to have.
        server_name: String,
    },
}

/// How much the user wants kernel TLS.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OffloadWish {
    /// Fail rather than go on without.
    Require,
    /// Use it where it can be had.
    #[default]
    Prefer,
    /// Stay in user space.
    Never,
}

/// What is to be handed to the kernel, and how.
///
/// Whether a direction can be had is decided before anything is changed: TLS 1.3
/// is taken only by a kernel that can also change its keys, for a peer may ask
/// for that at any time (RFC 8446, section 4.6.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct OffloadOptions {
    /// For what this side sends.
    pub transmit: OffloadWish,
    /// For what the peer sends.
    pub receive: OffloadWish,
    /// The operator promises that files do not change while they are being sent,
    /// so that a network card may encrypt them where they are
    /// (`TLS_TX_ZEROCOPY_RO`). If one changes all the same, the peer gets
    /// records that do not open, and ends the connection.
    pub unchanging_files: bool,
}

/// The same wish for both directions.
impl From<OffloadWish> for OffloadOptions {
    fn from(wish: OffloadWish) -> Self {
        Self { transmit: wish, receive: wish, unchanging_files: false }
    }
}

/// A TLS protocol version that the kernel can speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A record cipher that the kernel can use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsCipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

impl fmt::Display for TlsCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

impl TlsCipher {
    /// Bytes that a record of `version` is longer than its payload: header,
    /// explicit nonce where there is one, content type in TLS 1.3, and tag
    /// (RFC 8446 section 5.2, RFC 5288 section 3, RFC 7905 section 2).
    #[must_use]
    pub const fn record_overhead(self, version: TlsVersion) -> u64 {
        match (version, self) {
            (TlsVersion::Tls13, _) => 5 + 1 + 16,
            (TlsVersion::Tls12, Self::Aes128Gcm | Self::Aes256Gcm) => 5 + 8 + 16,
            (TlsVersion::Tls12, Self::ChaCha20Poly1305) => 5 + 16,
        }
    }
}

/// Key material of one direction. It is wiped when dropped and never printed.
pub struct TrafficKeys {
    key: Vec<u8>,
    iv: Vec<u8>,
    sequence: u64,
}

impl TrafficKeys {
    /// A record key, the IV (12 bytes), and the number of the next record.
    ///
    /// In TLS 1.2 AES-GCM the IV is the 4 salt bytes and 8 for the explicit
    /// nonces: that of a record that was sealed before is these xor the record's
    /// number (or these themselves, if none was). Whoever takes the keys over
    /// goes on with nonces that are none of those.
    #[must_use]
    pub fn new(key: Vec<u8>, iv: Vec<u8>, sequence: u64) -> Self {
        Self { key, iv, sequence }
    }

    /// The record key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The IV.
    #[must_use]
    pub fn iv(&self) -> &[u8] {
        &self.iv
    }

    /// Number of the next record.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for TrafficKeys {
    fn drop(&mut self) {
        for secret in [&mut self.key, &mut self.iv] {
            secret.fill(0);
            // The read keeps the compiler from dropping the write above, which
            // nothing else would see.
            std::hint::black_box(secret.as_slice());
        }
    }
}

impl fmt::Debug for TrafficKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficKeys").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// An established TLS session on its way to the kernel.
#[derive(Debug)]
pub struct TlsSession {
    /// Protocol version.
    pub version: TlsVersion,
    /// Record cipher of both directions.
    pub cipher: TlsCipher,
    /// Keys of what this side sends.
    pub transmit: TrafficKeys,
    /// Keys of what the peer sends.
    pub receive: TrafficKeys,
    /// Plaintext that was read ahead and opened in user space.
    pub early_data: Vec<u8>,
    /// Records that may be sealed with one key.
    pub record_limit: u64,
}

/// What became of each direction: at least one is the kernel's now.
#[derive(Debug)]
#[must_use = "one direction's keys may be in it"]
pub struct Offloaded {
    /// The transport of what this side sends.
    pub transmit: Transport,
    /// The transport of what the peer sends.
    pub receive: Transport,
    /// The keys of the direction that stays in user space.
    pub left: Option<TrafficKeys>,
}

/// A record that is no payload: an alert, a ticket, a KeyUpdate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlRecord {
    /// Its content type (RFC 8446, section 5.1): 21 for alerts, 22 for handshake
    /// messages.
    pub content_type: u8,
    /// What is in it, 2^14 bytes at most.
    pub content: Vec<u8>,
}

/// What came of a direction that the kernel opens, and is no payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReceivedRecord {
    /// A record of another type.
    Control(ControlRecord),
    /// A record that the kernel does not open. It opens no other after it.
    Unopened {
        /// The kernel's answer, a value of `errno(3)`: `EBADMSG` if the record is
        /// not authentic, `EMSGSIZE` if it is too long, `EINVAL` if it is none.
        errno: i32,
    },
}

/// A TLS connection whose handshake is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsEstablished {
    /// Protocol version.
    pub version: TlsVersion,
    /// Record cipher of both directions.
    pub cipher: TlsCipher,
    /// What seals this side's records from now on.
    pub transmit: Transport,
    /// What opens the peer's.
    pub receive: Transport,
    /// Why not all of it is the kernel's, though that was wished for.
    pub declined: Option<RefuseReason>,
    /// What the peer has shown or agreed to besides, if anything.
    pub peer: Option<Box<TlsPeer>>,
}

/// What a peer has shown or agreed to in a handshake.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TlsPeer {
    /// The application protocol that both sides speak (RFC 7301).
    pub protocol: Option<Vec<u8>>,
    /// Its certificate chain, its own first, verified against what was to be
    /// trusted; each in DER (X.690). Empty if it was not asked for one, or had none.
    pub certificates: Vec<Vec<u8>>,
}

impl TlsPeer {
    /// With these.
    #[must_use]
    pub fn new(protocol: Option<Vec<u8>>, certificates: Vec<Vec<u8>>) -> Self {
        Self { protocol, certificates }
    }
}

/// An offload that did not take place.
#[derive(Debug)]
#[non_exhaustive]
pub enum OffloadError {
    /// Nothing was changed; go on in user space.
    Refused(Refused<TlsSession>),
    /// One direction was changed and the other could not be. The connection was
    /// reset before a byte could leave it.
    Broken {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer, a value of `errno(3)`.
        errno: i32,
    },
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Broken { doing, errno } => {
                write!(f, "{doing}: {}", std::io::Error::from_raw_os_error(*errno))?;
                f.write_str("; the connection was reset")
            }
        }
    }
}

impl std::error::Error for OffloadError {}
