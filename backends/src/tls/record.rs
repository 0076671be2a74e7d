//! The outside of a TLS record (RFC 8446, section 5.1; RFC 5246, section 6.2).

use lastbyte::{TlsAlert, TlsVersion};

/// Length of a record's header.
pub(super) const HEADER: usize = 5;

pub(super) use lastbyte::MAX_RECORD_CONTENT as MAX_CONTENT;

/// Most that sealing adds to the content, header included: TLS 1.2 with an
/// explicit nonce and a tag (RFC 5288, section 3).
pub(super) const MAX_OVERHEAD: usize = HEADER + 8 + 16;

/// A buffer of this size holds any record that is sealed here.
pub(super) const MAX_SEALED: usize = MAX_CONTENT + MAX_OVERHEAD;

/// The version that every record claims (RFC 8446, section 5.1).
pub(super) const LEGACY_VERSION: [u8; 2] = [3, 3];

/// What a record carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

impl ContentType {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::ChangeCipherSpec => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            _ => return None,
        })
    }
}

/// What a peer did wrong, and what it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Violation {
    pub(super) what: &'static str,
    pub(super) alert: TlsAlert,
}

impl Violation {
    pub(super) const fn new(what: &'static str, alert: TlsAlert) -> Self {
        Self { what, alert }
    }

    pub(super) const fn unexpected(what: &'static str) -> Self {
        Self::new(what, TlsAlert::UNEXPECTED_MESSAGE)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) bytes: [u8; HEADER],
    pub(super) outer: ContentType,
}

impl Header {
    /// The header at the start of `bytes`; `None` if there is not all of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some(&bytes) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let outer = ContentType::from_code(bytes[0])
            .ok_or(Violation::unexpected("what it sent is no TLS record"))?;
        // Only the major version can be relied upon: the legacy version of a
        // first ClientHello may be anything (RFC 8446, section 5.1).
        if bytes[1] != LEGACY_VERSION[0] {
            return Err(Violation::unexpected("what it sent is no TLS record"));
        }
        let header = Self { bytes, outer };
        // RFC 5246, section 6.2.3: 2^14 + 2048; TLS 1.3 allows less and is
        // held to that when a record is opened.
        if header.body_len() > MAX_CONTENT + 2048 {
            return Err(Violation::new("a record is too long", TlsAlert::RECORD_OVERFLOW));
        }
        Ok(Some(header))
    }

    pub(super) fn body_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[3], self.bytes[4]]))
    }

    /// Length of the record on the wire.
    pub(super) fn record_len(&self) -> usize {
        HEADER + self.body_len()
    }
}

/// Longest ciphertext of a record, tag included (RFC 8446, section 5.2; RFC
/// 5246, section 6.2.3).
pub(super) const fn max_body(version: TlsVersion) -> usize {
    match version {
        TlsVersion::Tls13 => MAX_CONTENT + 256,
        _ => MAX_CONTENT + 2048,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_told_apart_from_half_a_header() {
        assert_eq!(Header::parse(&[22, 3, 1, 0]), Ok(None));
        assert!(Header::parse(b"GET / HTTP/1.1").is_err());
        assert!(Header::parse(&[22, 2, 0, 0, 1]).is_err());
        let header = Header::parse(&[23, 3, 3, 1, 2, 9]).unwrap().unwrap();
        assert_eq!((header.outer, header.record_len()), (ContentType::ApplicationData, 5 + 258));
        let too_long = Header::parse(&[23, 3, 3, 0x48, 1]).unwrap_err();
        assert_eq!(too_long.alert, TlsAlert::RECORD_OVERFLOW);
    }
}
