//! What TLS peers tell each other when something is wrong, or over.

use std::fmt;

/// The description of a TLS alert (RFC 8446, section 6).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TlsAlert(u8);

impl TlsAlert {
    /// The sender will send no more.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// A message came where it must not.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A record could not be opened.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// A record is too long.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// A field has a value that it must not have.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A message could not be read.
    pub const DECODE_ERROR: Self = Self(50);
    /// Something that has nothing to do with the peer.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// A handshake is given up for a reason that is no failure.
    pub const USER_CANCELED: Self = Self(90);
    /// There will be no second handshake (RFC 5246, section 7.2.2).
    pub const NO_RENEGOTIATION: Self = Self(100);

    /// The alert with this number.
    #[must_use]
    pub const fn new(description: u8) -> Self {
        Self(description)
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Its name in the specifications; `None` if they have none for it.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        // IANA, "TLS Alerts".
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            21 => "decryption_failed",
            22 => "record_overflow",
            30 => "decompression_failure",
            40 => "handshake_failure",
            41 => "no_certificate",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            60 => "export_restriction",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            111 => "certificate_unobtainable",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            114 => "bad_certificate_hash_value",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            121 => "ech_required",
            _ => return None,
        })
    }
}

impl fmt::Display for TlsAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "alert {}", self.0),
        }
    }
}
