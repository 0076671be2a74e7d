//! A record layer of the suite's own, written from RFC 5246 and RFC 8446 and
//! not from any that is tested, for peers that have to say what no TLS library
//! would.

use crate::Failure;
use crate::failure::ensure;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use lastbyte::{TlsCipher, TlsVersion, TrafficKeys};

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
pub(crate) const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

const HEADER: usize = 5;
const TAG: usize = 16;

/// One direction's keys: the `generation`th.
pub(super) fn keys(cipher: TlsCipher, direction: u8, generation: u32) -> TrafficKeys {
    let len = if cipher == TlsCipher::Aes128Gcm { 16 } else { 32 };
    let secret = [generation.to_be_bytes(), [direction, 1, 2, 3]].concat();
    let bytes = |len| secret.iter().copied().cycle().take(len).collect();
    TrafficKeys::new(bytes(len), bytes(NONCE_LEN), 0)
}

/// Seals or opens the records of one direction.
#[derive(Debug)]
pub(crate) struct Sealing {
    version: TlsVersion,
    cipher: TlsCipher,
    direction: u8,
    generation: u32,
    sequence: u64,
}

/// What a record was found to hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Opened {
    /// Its type; in TLS 1.3 the one inside.
    pub(crate) kind: u8,
    pub(crate) content: Vec<u8>,
    /// Bytes that it takes on the wire.
    pub(crate) len: usize,
}

impl Sealing {
    pub(super) fn new(version: TlsVersion, cipher: TlsCipher, direction: u8) -> Self {
        Self { version, cipher, direction, generation: 0, sequence: 0 }
    }

    /// Goes on with the next keys.
    pub(crate) fn update(&mut self) {
        self.generation += 1;
        self.sequence = 0;
    }

    /// A record with that content, however long: too long is allowed here.
    pub(crate) fn seal(&mut self, kind: u8, content: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut inner = content.to_vec();
        let (outer, explicit) = if self.version == TlsVersion::Tls13 {
            inner.push(kind);
            (DATA, Vec::new())
        } else if self.cipher == TlsCipher::ChaCha20Poly1305 {
            (kind, Vec::new())
        } else {
            // Any that does not repeat will do.
            (kind, (self.sequence + 77).to_be_bytes().to_vec())
        };
        let len = u16::try_from(explicit.len() + inner.len() + TAG)?;
        let mut record = vec![outer, 3, 3];
        record.extend_from_slice(&len.to_be_bytes());
        let aad = Aad::from(self.aad(&record, content.len())?);
        self.key()?.seal_in_place_append_tag(self.nonce(&explicit)?, aad, &mut inner)?;
        self.sequence += 1;
        record.extend(explicit);
        record.extend(inner);
        Ok(record)
    }

    /// What is in the first record of `wire`; `None` if not all of it is there.
    pub(crate) fn open(&mut self, wire: &[u8]) -> Result<Option<Opened>, Failure> {
        let Some(header) = wire.get(..HEADER) else { return Ok(None) };
        let body = HEADER..HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let len = body.end;
        let Some(body) = wire.get(body) else { return Ok(None) };
        ensure!(header[1..3] == [3, 3], "a record of version {:?}", &header[1..3]);
        let is_13 = self.version == TlsVersion::Tls13;
        let has_explicit = !is_13 && self.cipher != TlsCipher::ChaCha20Poly1305;
        let explicit = if has_explicit { 8 } else { 0 };
        ensure!(body.len() >= explicit + TAG, "a record of {} bytes", body.len());
        let (explicit, sealed) = body.split_at(explicit);
        let aad = Aad::from(self.aad(header, sealed.len() - TAG)?);
        let mut sealed = sealed.to_vec();
        let opened = self.key()?.open_in_place(self.nonce(explicit)?, aad, &mut sealed);
        let Ok(content) = opened else {
            return Err(Failure::new(format!(
                "record {} does not open, which begins with {:?}",
                self.sequence,
                &wire[..wire.len().min(24)]
            )));
        };
        self.sequence += 1;
        let mut content = content.to_vec();
        let mut kind = header[0];
        if is_13 {
            ensure!(kind == DATA, "an open record of type {kind} after the handshake");
            while let Some(byte) = content.pop() {
                kind = byte;
                if kind != 0 {
                    break;
                }
            }
        }
        ensure!(content.len() <= 1 << 14, "a record holds {} bytes", content.len());
        Ok(Some(Opened { kind, content, len }))
    }

    fn key(&self) -> Result<LessSafeKey, Failure> {
        let algorithm = match self.cipher {
            TlsCipher::Aes128Gcm => &AES_128_GCM,
            TlsCipher::Aes256Gcm => &AES_256_GCM,
            _ => &CHACHA20_POLY1305,
        };
        let keys = keys(self.cipher, self.direction, self.generation);
        Ok(LessSafeKey::new(UnboundKey::new(algorithm, keys.key())?))
    }

    fn nonce(&self, explicit: &[u8]) -> Result<Nonce, Failure> {
        let keys = keys(self.cipher, self.direction, self.generation);
        let mut nonce: [u8; NONCE_LEN] = keys.iv().try_into()?;
        if explicit.is_empty() {
            for (of_nonce, byte) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
                *of_nonce ^= byte;
            }
        } else {
            nonce[4..].copy_from_slice(explicit);
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    fn aad(&self, header: &[u8], content: usize) -> Result<Vec<u8>, Failure> {
        if self.version == TlsVersion::Tls13 {
            return Ok(header.to_vec());
        }
        let mut aad = self.sequence.to_be_bytes().to_vec();
        aad.extend_from_slice(&header[..3]);
        aad.extend_from_slice(&u16::try_from(content)?.to_be_bytes());
        Ok(aad)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CIPHERS, VERSIONS};
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for version in VERSIONS {
            for cipher in CIPHERS {
                let mut own = Sealing::new(version, cipher, 1);
                let mut other = Sealing::new(version, cipher, 1);
                let mut wire = own.seal(ALERT, &[1, 0]).unwrap();
                let opened = other.open(&wire).unwrap().unwrap();
                assert_eq!((opened.kind, &opened.content[..]), (ALERT, &[1, 0][..]));
                assert_eq!(opened.len, wire.len());
                assert!(other.open(&wire[..wire.len() - 1]).unwrap().is_none());
                // The number is part of it, and so is every byte.
                assert!(other.open(&wire).is_err());
                let mut other = Sealing::new(version, cipher, 1);
                *wire.last_mut().unwrap() ^= 1;
                assert!(other.open(&wire).is_err());
            }
        }
    }
}
