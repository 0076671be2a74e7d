//! What the suite brings along to speak TLS: an identity, peers' ends by a TLS
//! library, and a record layer of its own with keys that a case knows.

mod ends;
mod identity;
mod known;
mod seal;

pub(crate) use ends::{Clients, Terms, client, provider, server};
pub(crate) use known::{HELLO, Known};
pub(crate) use seal::{ALERT, DATA, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED, Opened, Sealing};

use lastbyte::{TlsCipher, TlsVersion};

pub(crate) const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];
pub(crate) const CIPHERS: [TlsCipher; 3] =
    [TlsCipher::Aes128Gcm, TlsCipher::Aes256Gcm, TlsCipher::ChaCha20Poly1305];
