//! Handing a TLS session to the kernel, in terms no TLS library owns.

use crate::{Refused, Transport};
use std::fmt;

/// Moves the record layer of an established TLS connection into the kernel.
///
/// Implementations keep contract C10: after the handshake no plaintext byte
/// reaches the wire, whatever fails. The hand-over takes place on a record
/// boundary in both directions: nothing sealed is waiting to be written, and
/// what was read ahead is in [`TlsSession::early_data`].
pub trait TlsOffload {
    /// Installs `session`'s keys as far as the kernel takes them and `wish`
    /// allows, and says what became of each direction.
    ///
    /// # Errors
    /// Gives the session back untouched where the connection can go on in user
    /// space. [`OffloadError::Broken`] means that it cannot: the connection was
    /// reset, and the session's secrets are gone.
    fn offload(
        &mut self,
        session: TlsSession,
        wish: OffloadWish,
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
    /// A record key, the static IV (12 bytes; in TLS 1.2 AES-GCM the 4 salt
    /// bytes and the 8 of the next explicit nonce), and the number of the next
    /// record.
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
}

/// What became of each direction.
#[derive(Debug)]
pub struct Offloaded {
    /// The transport of what this side sends.
    pub transmit: Transport,
    /// The transport of what the peer sends.
    pub receive: Transport,
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
