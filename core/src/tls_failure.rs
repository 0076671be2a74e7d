//! Why TLS could not go on.

use crate::{RefuseReason, TlsAlert};
use std::fmt;

/// Why a TLS connection was ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The two sides did not come to terms.
    Handshake {
        /// What the TLS library says.
        reason: Box<str>,
    },
    /// The handshake was not finished in the time allowed.
    HandshakeTimeout,
    /// The peer ended the stream in the middle of the handshake.
    HandshakeTruncated,
    /// The peer said that it cannot go on.
    PeerAlert(TlsAlert),
    /// The peer did what it must not, and was told so by an alert.
    PeerViolation {
        /// What it did.
        what: &'static str,
        /// What it was told.
        alert: TlsAlert,
    },
    /// As much was sent as is safe with one key, and this version of TLS cannot
    /// change it.
    KeyExhausted,
    /// Kernel TLS was required and cannot be had for this connection.
    NotOffloaded {
        /// What stands against it.
        why: RefuseReason,
    },
    /// The kernel took some of the keys and then failed. The connection was reset
    /// before a byte could leave it.
    OffloadBroken {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer, a value of `errno(3)`.
        errno: i32,
    },
    /// The cryptography library failed.
    Crypto {
        /// What was being done.
        doing: &'static str,
    },
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake { reason } => write!(f, "the TLS handshake failed: {reason}"),
            Self::HandshakeTimeout => f.write_str("the TLS handshake took too long"),
            Self::HandshakeTruncated => f.write_str("the peer left during the TLS handshake"),
            Self::PeerAlert(alert) => write!(f, "the peer ended TLS: {alert}"),
            Self::PeerViolation { what, alert } => {
                write!(f, "the peer broke TLS: {what} ({alert})")
            }
            Self::KeyExhausted => {
                f.write_str("the TLS key is used up, and TLS 1.2 cannot change it")
            }
            Self::NotOffloaded { why } => {
                write!(f, "kernel TLS is required and cannot be had: {why}")
            }
            Self::OffloadBroken { doing, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "handing TLS to the kernel failed half-way: {doing}: {error}")
            }
            Self::Crypto { doing } => write!(f, "the cryptography library failed at {doing}"),
        }
    }
}

impl std::error::Error for TlsFailure {}
