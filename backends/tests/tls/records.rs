//! A record layer of the tests' own, written from the specifications and not
//! from the one that is tested; and handshakes whose outcome is known.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use lastbyte::{TlsCipher, TlsRole, TlsVersion, TrafficKeys};
use lastbyte_backends::tls::{Established, Handshake, KeySchedule, Step, TlsProvider};

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
pub(crate) const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// What the peer says first, and what it is answered.
pub(crate) const HELLO: [u8; 6] = [HANDSHAKE, 3, 1, 0, 1, 1];
const ANSWER: [u8; 6] = [HANDSHAKE, 3, 3, 0, 1, 2];

/// One direction's keys: the `generation`th.
pub(crate) fn keys(cipher: TlsCipher, direction: u8, generation: u8) -> TrafficKeys {
    let len = if cipher == TlsCipher::Aes128Gcm { 16 } else { 32 };
    let key = vec![direction.wrapping_mul(100).wrapping_add(generation); len];
    TrafficKeys::new(key, (generation..generation + 12).collect(), 0)
}

/// Seals or opens one direction.
pub(crate) struct Crypto {
    version: TlsVersion,
    cipher: TlsCipher,
    direction: u8,
    generation: u8,
    sequence: u64,
}

impl Crypto {
    pub(crate) fn new(version: TlsVersion, cipher: TlsCipher, direction: u8) -> Self {
        Self { version, cipher, direction, generation: 0, sequence: 0 }
    }

    pub(crate) fn update(&mut self) {
        self.generation += 1;
        self.sequence = 0;
    }

    pub(crate) fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
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
        let len = u16::try_from(explicit.len() + inner.len() + 16).expect("a record");
        let mut record = vec![outer, 3, 3];
        record.extend_from_slice(&len.to_be_bytes());
        let aad = self.aad(&record, content.len());
        let nonce = self.nonce(&explicit);
        self.key().seal_in_place_append_tag(nonce, Aad::from(aad), &mut inner).expect("seals");
        self.sequence += 1;
        record.extend(explicit);
        record.extend(inner);
        record
    }

    /// What is in the first record of `wire`, and how long that is; `None` if
    /// not all of it is there.
    pub(crate) fn open(&mut self, wire: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
        let header = wire.get(..5)?;
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let body = wire.get(5..5 + len)?;
        assert_eq!(&header[1..3], &[3, 3]);
        let is_13 = self.version == TlsVersion::Tls13;
        let has_explicit = !is_13 && self.cipher != TlsCipher::ChaCha20Poly1305;
        let (explicit, sealed) = body.split_at(if has_explicit { 8 } else { 0 });
        let aad = self.aad(header, sealed.len() - 16);
        let mut sealed = sealed.to_vec();
        let nonce = self.nonce(explicit);
        let content = self
            .key()
            .open_in_place(nonce, Aad::from(aad), &mut sealed)
            .unwrap_or_else(|_| panic!("record {} of the peer does not open", self.sequence));
        self.sequence += 1;
        let mut content = content.to_vec();
        let kind = if is_13 {
            assert_eq!(header[0], DATA, "an open record after the handshake");
            content.pop().expect("a content type")
        } else {
            header[0]
        };
        assert!(content.len() <= 1 << 14, "a record holds too much");
        Some((kind, content, 5 + len))
    }

    fn key(&self) -> LessSafeKey {
        let algorithm = match self.cipher {
            TlsCipher::Aes128Gcm => &AES_128_GCM,
            TlsCipher::Aes256Gcm => &AES_256_GCM,
            _ => &CHACHA20_POLY1305,
        };
        let keys = keys(self.cipher, self.direction, self.generation);
        LessSafeKey::new(UnboundKey::new(algorithm, keys.key()).expect("a key"))
    }

    fn nonce(&self, explicit: &[u8]) -> Nonce {
        let keys = keys(self.cipher, self.direction, self.generation);
        let mut nonce: [u8; 12] = keys.iv().try_into().expect("12");
        if explicit.is_empty() {
            for (n, byte) in self.sequence.to_be_bytes().iter().enumerate() {
                nonce[4 + n] ^= byte;
            }
        } else {
            nonce[4..].copy_from_slice(explicit);
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self, header: &[u8], content: usize) -> Vec<u8> {
        if self.version == TlsVersion::Tls13 {
            return header.to_vec();
        }
        let mut aad = self.sequence.to_be_bytes().to_vec();
        aad.extend_from_slice(&header[..3]);
        aad.extend_from_slice(&u16::try_from(content).expect("a record").to_be_bytes());
        aad
    }
}

/// Handshakes of one message each way.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) version: TlsVersion,
    pub(crate) cipher: TlsCipher,
    pub(crate) record_limit: u64,
}

impl TlsProvider for Fixed {
    fn begin(&self, _: &TlsRole) -> Result<Box<dyn Handshake>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Handshake for Fixed {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        if records.is_empty() {
            return Ok(Step::Blocked);
        }
        if records != HELLO {
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
            transmit: keys(self.cipher, 1, 0),
            receive: keys(self.cipher, 2, 0),
            record_limit: self.record_limit,
            peer: None,
            schedule: Box::new(FixedKeys { of: *self, transmit: 0, receive: 0 }),
        })
    }
}

#[derive(Debug)]
struct FixedKeys {
    of: Fixed,
    transmit: u8,
    receive: u8,
}

impl KeySchedule for FixedKeys {
    fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
        assert_eq!(self.of.version, TlsVersion::Tls13);
        self.transmit += 1;
        Ok(keys(self.of.cipher, 1, self.transmit))
    }

    fn next_receive(&mut self) -> Result<TrafficKeys, String> {
        assert_eq!(self.of.version, TlsVersion::Tls13);
        self.receive += 1;
        Ok(keys(self.of.cipher, 2, self.receive))
    }

    fn ticket(&mut self, _: &[u8]) -> Result<(), String> {
        Err("this is a server".to_owned())
    }
}
