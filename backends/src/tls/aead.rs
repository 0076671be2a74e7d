//! Sealing and opening records.
//!
//! | | nonce | additional data | after the content |
//! |---|---|---|---|
//! | TLS 1.3 (RFC 8446, section 5.2 and 5.3) | IV xor number | header | content type, tag |
//! | TLS 1.2 AES-GCM (RFC 5288, section 3) | salt, explicit | number, type, version, length | tag |
//! | TLS 1.2 ChaCha20 (RFC 7905, section 2) | IV xor number | number, type, version, length | tag |
//!
//! The explicit nonce that is sent is the low part of IV xor number, so that it
//! never repeats while the number does not.

use super::record::{
    ContentType, HEADER, Header, LEGACY_VERSION, MAX_CONTENT, Violation, max_body,
};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use lastbyte::{PooledBuf, TlsAlert, TlsCipher, TlsFailure, TlsVersion, TrafficKeys};
use std::fmt;

/// Length of every cipher's tag.
const TAG: usize = 16;
/// Length of the nonce that TLS 1.2 AES-GCM sends along.
const EXPLICIT: usize = 8;

/// Keys and counter of one direction.
struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    version: TlsVersion,
    /// Length of the nonce that is sent along.
    explicit: usize,
}

impl Keys {
    fn new(version: TlsVersion, cipher: TlsCipher, keys: &TrafficKeys) -> Result<Self, TlsFailure> {
        let failed = || TlsFailure::Crypto { doing: "setting up a record key" };
        let algorithm = match cipher {
            TlsCipher::Aes128Gcm => &AES_128_GCM,
            TlsCipher::Aes256Gcm => &AES_256_GCM,
            TlsCipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            _ => return Err(failed()),
        };
        let key = UnboundKey::new(algorithm, keys.key()).map_err(|_| failed())?;
        let iv = keys.iv().try_into().map_err(|_| failed())?;
        let is_gcm = cipher != TlsCipher::ChaCha20Poly1305;
        let explicit = if version == TlsVersion::Tls12 && is_gcm { EXPLICIT } else { 0 };
        let sequence = keys.sequence();
        Ok(Self { key: LessSafeKey::new(key), iv, sequence, version, explicit })
    }

    /// IV xor number (RFC 8446, section 5.3).
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// What is authenticated besides the content: `header` as it is on the
    /// wire, for `content` bytes.
    fn additional(&self, header: [u8; HEADER], content: usize) -> Additional {
        let mut additional = Additional { bytes: [0; 13], len: HEADER };
        if self.version == TlsVersion::Tls13 {
            additional.bytes[..HEADER].copy_from_slice(&header);
        } else {
            // RFC 5246, section 6.2.3.3.
            additional.len = 13;
            additional.bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
            additional.bytes[8..11].copy_from_slice(&header[..3]);
            additional.bytes[11..].copy_from_slice(&length(content));
        }
        additional
    }
}

struct Additional {
    bytes: [u8; 13],
    len: usize,
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Seals what this side sends.
pub(super) struct Sealer(Keys);

impl Sealer {
    pub(super) fn new(
        version: TlsVersion,
        cipher: TlsCipher,
        keys: &TrafficKeys,
    ) -> Result<Self, TlsFailure> {
        Keys::new(version, cipher, keys).map(Self)
    }

    /// Number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Where in a record the content begins.
    pub(super) fn prefix(&self) -> usize {
        HEADER + self.0.explicit
    }

    /// Seals `content`, 2^14 bytes at most, as one record behind what `out`
    /// holds. The content is read where it is and written nowhere but to `out`,
    /// encrypted.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        content: &[u8],
        out: &mut PooledBuf,
    ) -> Result<(), TlsFailure> {
        let (record, additional, nonce) = self.start(kind, content.len(), out)?;
        let (sealed, tail) = record.split_at_mut(content.len());
        let inner = inner_type(self.0.version, kind);
        self.0
            .key
            .seal_out_of_place_scatter(
                nonce,
                Aad::from(additional),
                content,
                sealed,
                &inner.0[..inner.1],
                tail,
            )
            .map_err(|_| failed_to_seal())?;
        self.finish(content.len(), out);
        Ok(())
    }

    /// Seals the `len` bytes that were written to `out.spare()` from
    /// [`Self::prefix`] on, where they are.
    pub(super) fn seal_in_place(
        &mut self,
        kind: ContentType,
        len: usize,
        out: &mut PooledBuf,
    ) -> Result<(), TlsFailure> {
        let (record, additional, nonce) = self.start(kind, len, out)?;
        let (content, tail) = record.split_at_mut(len);
        let inner = inner_type(self.0.version, kind);
        self.0
            .key
            .seal_in_place_scatter(nonce, Aad::from(additional), content, &inner.0[..inner.1], tail)
            .map_err(|_| failed_to_seal())?;
        self.finish(len, out);
        Ok(())
    }

    /// Bytes that a record is longer than its content.
    pub(super) fn overhead(&self) -> usize {
        self.prefix() + inner_type(self.0.version, ContentType::Alert).1 + TAG
    }

    /// Writes the header and the explicit nonce, and gives the room for what
    /// comes behind.
    fn start<'o>(
        &self,
        kind: ContentType,
        content: usize,
        out: &'o mut PooledBuf,
    ) -> Result<(&'o mut [u8], Additional, Nonce), TlsFailure> {
        let Keys { version, explicit, .. } = self.0;
        let len = self.overhead() + content;
        if content > MAX_CONTENT || self.0.sequence == u64::MAX {
            return Err(failed_to_seal());
        }
        // In TLS 1.3 every record claims to be application data.
        let outer = if version == TlsVersion::Tls13 { ContentType::ApplicationData } else { kind };
        let mut header = [outer.code(), LEGACY_VERSION[0], LEGACY_VERSION[1], 0, 0];
        header[3..].copy_from_slice(&length(len - HEADER));
        let nonce = self.0.nonce();
        let record = out.spare().get_mut(..len).ok_or_else(failed_to_seal)?;
        record[..HEADER].copy_from_slice(&header);
        record[HEADER..HEADER + explicit].copy_from_slice(&nonce[NONCE_LEN - explicit..]);
        let additional = self.0.additional(header, content);
        Ok((&mut record[HEADER + explicit..], additional, Nonce::assume_unique_for_key(nonce)))
    }

    fn finish(&mut self, content: usize, out: &mut PooledBuf) {
        self.0.sequence += 1;
        out.advance(self.overhead() + content);
    }
}

/// The byte that TLS 1.3 puts behind the content (RFC 8446, section 5.2).
fn inner_type(version: TlsVersion, kind: ContentType) -> ([u8; 1], usize) {
    ([kind.code()], usize::from(version == TlsVersion::Tls13))
}

/// A length on the wire; no record is longer than 16 bits can tell.
fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn failed_to_seal() -> TlsFailure {
    TlsFailure::Crypto { doing: "sealing a record" }
}

/// Opens what the peer sends.
pub(super) struct Opener(Keys);

/// What was in a record: so many bytes of this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Opened {
    pub(super) kind: ContentType,
    pub(super) len: usize,
}

impl Opener {
    pub(super) fn new(
        version: TlsVersion,
        cipher: TlsCipher,
        keys: &TrafficKeys,
    ) -> Result<Self, TlsFailure> {
        Keys::new(version, cipher, keys).map(Self)
    }

    /// Room that opening the record needs; its content is not longer.
    pub(super) fn room(&self, header: &Header) -> usize {
        header.body_len().saturating_sub(self.0.explicit + TAG)
    }

    /// Opens the record of `header` and `body` into the start of `out`, which
    /// has [`Self::room`].
    pub(super) fn open(
        &mut self,
        header: &Header,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<Opened, Violation> {
        let Keys { version, explicit, .. } = self.0;
        if body.len() > max_body(version) {
            return Err(Violation::new("a record is too long", TlsAlert::RECORD_OVERFLOW));
        }
        // After the handshake nothing is sent in the clear any more, and a
        // change_cipher_spec is not ignored any more (RFC 8446, section 5).
        if version == TlsVersion::Tls13 && header.outer != ContentType::ApplicationData {
            return Err(Violation::unexpected("a record is not encrypted"));
        }
        let bad = Violation::new("a record cannot be opened", TlsAlert::BAD_RECORD_MAC);
        let content = body.len().checked_sub(explicit + TAG).ok_or(bad)?;
        let mut nonce = self.0.nonce();
        nonce[NONCE_LEN - explicit..].copy_from_slice(&body[..explicit]);
        let additional = self.0.additional(header.bytes, content);
        let (sealed, tag) = body[explicit..].split_at(content);
        let out = out.get_mut(..content).ok_or(bad)?;
        self.0
            .key
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(additional),
                sealed,
                tag,
                out,
            )
            .map_err(|_| bad)?;
        self.0.sequence = self.0.sequence.wrapping_add(1);
        let opened = if version == TlsVersion::Tls13 {
            // The content type is the last byte that is not padding; without
            // any it is an unexpected message (RFC 8446, section 5.4).
            let len = out
                .iter()
                .rposition(|&byte| byte != 0)
                .ok_or(Violation::unexpected("a record has no content type"))?;
            let kind = ContentType::from_code(out[len])
                .ok_or(Violation::unexpected("a record is of a type that does not exist"))?;
            Opened { kind, len }
        } else {
            Opened { kind: header.outer, len: content }
        };
        if opened.len > MAX_CONTENT {
            return Err(Violation::new("a record holds too much", TlsAlert::RECORD_OVERFLOW));
        }
        Ok(opened)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::Pool;
    use proptest::prelude::*;

    const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];
    const CIPHERS: [TlsCipher; 3] =
        [TlsCipher::Aes128Gcm, TlsCipher::Aes256Gcm, TlsCipher::ChaCha20Poly1305];

    fn keys(cipher: TlsCipher, sequence: u64) -> TrafficKeys {
        let len = if cipher == TlsCipher::Aes128Gcm { 16 } else { 32 };
        TrafficKeys::new(vec![7; len], (0..12).collect(), sequence)
    }

    fn pair(version: TlsVersion, cipher: TlsCipher, sequence: u64) -> (Sealer, Opener) {
        let keys = keys(cipher, sequence);
        let sealer = Sealer::new(version, cipher, &keys).unwrap();
        (sealer, Opener::new(version, cipher, &keys).unwrap())
    }

    fn open(opener: &mut Opener, record: &[u8]) -> Result<(ContentType, Vec<u8>), Violation> {
        let header = Header::parse(record)?.unwrap();
        let mut out = vec![0; opener.room(&header)];
        let opened = opener.open(&header, &record[HEADER..], &mut out)?;
        out.truncate(opened.len);
        Ok((opened.kind, out))
    }

    proptest! {
        /// What is sealed in either way is opened again, and is as long as
        /// `TlsCipher::record_overhead` says.
        #[test]
        fn sealing_and_opening_agree(
            version in prop::sample::select(&VERSIONS[..]),
            cipher in prop::sample::select(&CIPHERS[..]),
            sequence in 0..u64::MAX - 2,
            len in prop_oneof![0..40_usize, MAX_CONTENT - 2..=MAX_CONTENT],
            byte in any::<u8>(),
        ) {
            let (mut sealer, mut opener) = pair(version, cipher, sequence);
            let content: Vec<u8> = (0..len).map(|n| byte.wrapping_add(n as u8)).collect();
            let pool = Pool::new(MAX_SEALED, 1);
            let mut apart = pool.take();
            sealer.seal(ContentType::ApplicationData, &content, &mut apart).unwrap();
            prop_assert_eq!(apart.len() as u64, len as u64 + cipher.record_overhead(version));
            prop_assert_eq!(sealer.overhead() as u64, cipher.record_overhead(version));
            let mut in_place = pool.take();
            let prefix = sealer.prefix();
            in_place.spare()[prefix..][..len].copy_from_slice(&content);
            sealer.seal_in_place(ContentType::Alert, len, &mut in_place).unwrap();
            prop_assert_eq!(
                open(&mut opener, &apart), Ok((ContentType::ApplicationData, content.clone()))
            );
            prop_assert_eq!(open(&mut opener, &in_place), Ok((ContentType::Alert, content)));
        }

        /// A record that was changed anywhere, comes twice, or out of order, is
        /// not opened.
        #[test]
        fn what_was_tampered_with_is_refused(
            version in prop::sample::select(&VERSIONS[..]),
            cipher in prop::sample::select(&CIPHERS[..]),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let (mut sealer, mut opener) = pair(version, cipher, 5);
            let pool = Pool::new(MAX_SEALED, 1);
            let mut record = pool.take();
            sealer.seal(ContentType::ApplicationData, b"content", &mut record).unwrap();
            let mut changed = record.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            // A length that was changed is another record, or half of one.
            if at != 3 && at != 4 {
                prop_assert!(open(&mut opener, &changed).is_err());
            }
            prop_assert!(open(&mut opener, &record).is_ok());
            prop_assert!(open(&mut opener, &record).is_err());
        }
    }

    #[test]
    fn more_than_a_record_holds_is_not_sealed() {
        let (mut sealer, _) = pair(TlsVersion::Tls13, TlsCipher::Aes128Gcm, 0);
        let mut out = Pool::new(MAX_SEALED + 100, 1).take();
        assert!(
            sealer.seal(ContentType::ApplicationData, &[0; MAX_CONTENT + 1], &mut out).is_err()
        );
        assert_eq!((out.len(), sealer.sequence()), (0, 0));
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let (mut sealer, _) = pair(TlsVersion::Tls13, TlsCipher::Aes128Gcm, u64::MAX);
        let mut out = Pool::new(MAX_SEALED, 1).take();
        assert!(sealer.seal(ContentType::Alert, &[1, 0], &mut out).is_err());
    }

    const MAX_SEALED: usize = super::super::record::MAX_SEALED;
}
