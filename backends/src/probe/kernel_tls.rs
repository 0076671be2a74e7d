//! Kernel TLS, tried with keys that protect nothing.
//!
//! Each try takes a loopback pair of its own, for the protocol cannot be taken
//! off again.

use super::{PATIENCE, Pair, connect};
use crate::sys::message::Options;
use crate::sys::tls_ulp::{self, Direction, Received};
use crate::sys::{message, poll};
use lastbyte::{TlsCipher, TlsVersion, TrafficKeys};
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];
const AES_128: TlsCipher = TlsCipher::Aes128Gcm;

/// Content type of handshake messages, and one of them: a KeyUpdate that asks
/// for nothing (RFC 8446, sections 5.1 and 4.6.3).
const HANDSHAKE: u8 = 22;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

pub(super) fn exists() -> io::Result<bool> {
    tls_ulp::probe(&connect()?.near).map(|()| true)
}

/// A byte is sealed, and the kernel says how many records that took.
pub(super) fn transmits() -> io::Result<bool> {
    for version in VERSIONS {
        let pair = connect()?;
        tls_ulp::attach(pair.near.as_fd())?;
        give(&pair.near, Direction::Transmit, version, AES_128, 0)?;
        message::send(pair.near.as_fd(), &[IoSlice::new(b"t")], Options::PLAIN)?;
        if tls_ulp::next_record(pair.near.as_fd(), AES_128)? != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What one end has sealed the other opens.
pub(super) fn receives() -> io::Result<bool> {
    knows(AES_128)
}

/// The same with this cipher, whose records the kernel counts: 5.11 to 5.15 seal with
/// ChaCha20-Poly1305 and do not say which record is the next (`do_tls_getsockopt_conf`;
/// commit 3fb59a5de5cb).
pub(super) fn knows(cipher: TlsCipher) -> io::Result<bool> {
    for version in VERSIONS {
        let pair = sealed_pair(version, cipher)?;
        message::send(pair.near.as_fd(), &[IoSlice::new(b"t")], Options::PLAIN)?;
        let is_counted = tls_ulp::next_record(pair.near.as_fd(), cipher)? == 1;
        if !is_counted || !comes(&pair.far, tls_ulp::DATA, b"t")? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Both ends change to the same next key, announced as TLS has it.
pub(super) fn changes_keys() -> io::Result<bool> {
    let pair = sealed_pair(TlsVersion::Tls13, AES_128)?;
    tls_ulp::send_record(pair.near.as_fd(), HANDSHAKE, &KEY_UPDATE)?;
    give(&pair.near, Direction::Transmit, TlsVersion::Tls13, AES_128, 1)?;
    message::send(pair.near.as_fd(), &[IoSlice::new(b"t")], Options::PLAIN)?;
    if !comes(&pair.far, HANDSHAKE, &KEY_UPDATE)? {
        return Ok(false);
    }
    give(&pair.far, Direction::Receive, TlsVersion::Tls13, AES_128, 1)?;
    comes(&pair.far, tls_ulp::DATA, b"t")
}

pub(super) fn ends_records() -> io::Result<bool> {
    let pair = sealed_pair(TlsVersion::Tls13, AES_128)?;
    let options = Options { end_of_record: true, ..Options::PLAIN };
    message::send(pair.near.as_fd(), &[IoSlice::new(b"t")], options)?;
    comes(&pair.far, tls_ulp::DATA, b"t")
}

pub(super) fn takes_the_promise() -> io::Result<bool> {
    let pair = sealed_pair(TlsVersion::Tls13, AES_128)?;
    tls_ulp::promise_unchanging_files(pair.near.as_fd()).map(|()| true)
}

/// The near end seals what the far end opens.
fn sealed_pair(version: TlsVersion, cipher: TlsCipher) -> io::Result<Pair> {
    let pair = connect()?;
    for end in [&pair.near, &pair.far] {
        tls_ulp::attach(end.as_fd())?;
    }
    give(&pair.near, Direction::Transmit, version, cipher, 0)?;
    give(&pair.far, Direction::Receive, version, cipher, 0)?;
    Ok(pair)
}

/// The `generation`th key.
fn give(
    end: &TcpStream,
    direction: Direction,
    version: TlsVersion,
    cipher: TlsCipher,
    generation: u8,
) -> io::Result<()> {
    let len = if cipher == AES_128 { 16 } else { 32 };
    let keys = TrafficKeys::new(vec![generation; len], vec![generation; 12], 0);
    tls_ulp::set_keys(end.as_fd(), direction, version, cipher, &keys)
}

/// Whether this is what comes next.
fn comes(end: &TcpStream, content_type: u8, content: &[u8]) -> io::Result<bool> {
    let mut polled = [poll::Polled::new(end.as_raw_fd())];
    polled[0].want(true, false);
    poll::wait(&mut polled, Some(PATIENCE))?;
    let mut buffer = [0; 16];
    let received = tls_ulp::receive(end.as_fd(), &mut buffer)?;
    let expected = Received { len: content.len(), content_type: Some(content_type) };
    Ok(received == expected && &buffer[..content.len()] == content)
}
