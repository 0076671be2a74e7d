//! Handshake messages that are cut and put together in unusual ways
//! (RFC 8446, section 5.1: records do not have to end where messages do).

use crate::world::{
    BACKENDS, PATIENCE, VERSIONS, World, client, is_closed, outcome_in, pair, plain, provider,
    server_config, terms,
};
use lastbyte::{
    CloseOutcome, DriverConfig, Event, FailReason, Received, TlsFailure, TlsRole, TlsVersion,
};
use lastbyte_backends::tls::TlsOptions;
use rustls::{ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;

fn world(version: TlsVersion) -> World {
    let provider = provider(&terms(&[version], &[]));
    World::with(plain(BACKENDS[0]), provider, TlsOptions::default(), &DriverConfig::default())
}

/// Carries records, and those of a handshake in pieces of `most` bytes as long as
/// they are not encrypted.
fn carry_in_pieces(mut from: TcpStream, mut to: TcpStream, most: usize) {
    let mut is_sealed = false;
    let mut header = [0; 5];
    while from.read_exact(&mut header).is_ok() {
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        from.read_exact(&mut content).expect("a whole record");
        is_sealed |= header[0] == CHANGE_CIPHER_SPEC;
        let most = if header[0] == HANDSHAKE && !is_sealed { most } else { content.len().max(1) };
        for piece in content.chunks(most) {
            let mut record = header[..3].to_vec();
            record.extend(u16::try_from(piece.len()).expect("it is short").to_be_bytes());
            record.extend(piece);
            if to.write_all(&record).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A pair of sockets with [`carry_in_pieces`] between them, both ways.
fn pair_in_pieces(most: usize) -> (TcpStream, TcpStream) {
    let ((near, middle), (other, far)) = (pair(), pair());
    let (middle_too, other_too) = (middle.try_clone().unwrap(), other.try_clone().unwrap());
    thread::spawn(move || carry_in_pieces(middle, other, most));
    thread::spawn(move || carry_in_pieces(other_too, middle_too, most));
    (near, far)
}

#[test]
fn a_server_takes_messages_in_pieces() {
    for version in VERSIONS {
        for most in [1, 3, 100] {
            let mut world = world(version);
            let (near, far) = pair_in_pieces(most);
            let id = world.attach(near);
            let peer = thread::spawn(move || {
                let mut peer = client(far, version);
                peer.write_all(b"hello").unwrap();
                peer.conn.send_close_notify();
                peer.flush().unwrap();
            });
            let (got, _) = world.read(id, 5);
            assert_eq!(got, b"hello", "{version:?} in pieces of {most}");
            let (_, end) = world.read(id, 1);
            assert!(matches!(end, Some(Received::End)), "{end:?}");
            peer.join().unwrap();
        }
    }
}

#[test]
fn a_client_takes_messages_in_pieces() {
    for version in VERSIONS {
        for most in [1, 3, 100] {
            let mut world = world(version);
            let (near, far) = pair_in_pieces(most);
            let role = TlsRole::Client { server_name: "localhost".to_owned() };
            let id = world.attach_as(near, &role);
            let peer = thread::spawn(move || {
                let connection = ServerConnection::new(server_config()).unwrap();
                let mut peer = StreamOwned::new(connection, far);
                peer.write_all(b"hello").unwrap();
                peer.conn.send_close_notify();
                peer.flush().unwrap();
            });
            let (got, _) = world.read(id, 5);
            assert_eq!(got, b"hello", "{version:?} in pieces of {most}");
            peer.join().unwrap();
        }
    }
}

/// The first of several messages in a record is refused: the peer is told, and
/// nothing comes of the others.
#[test]
fn what_follows_a_refused_message_in_its_record_is_let_go() {
    // A ClientHello of which only the version is there, and one that is empty.
    let bad = [&[1, 0, 0, 2, 3, 3][..], &[1, 0, 0, 0], &[99, 0, 0, 3, 1, 2, 3]];
    let next = [&[1, 0, 0, 1, 9][..], &[20, 0, 0, 4, 1, 2, 3, 4], &[1, 0, 0]];
    for first in bad {
        for second in next {
            for times in [1, 50] {
                let mut world = world(TlsVersion::Tls13);
                let (near, mut far) = pair();
                let messages = [first, &second.repeat(times)].concat();
                let mut record = vec![HANDSHAKE, 3, 1];
                record.extend(u16::try_from(messages.len()).unwrap().to_be_bytes());
                record.extend(messages);
                far.write_all(&record).unwrap();
                world.attach(near);
                let events = world.until(|events| events.iter().any(is_closed));
                let outcome = outcome_in(&events);
                assert!(
                    matches!(
                        outcome,
                        CloseOutcome::Failed(FailReason::Tls(TlsFailure::Handshake { .. }))
                    ),
                    "{outcome:?}"
                );
                assert!(!events.iter().any(|e| matches!(e, Event::TlsEstablished { .. })));
                far.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut told = Vec::new();
                far.read_to_end(&mut told).expect("an end");
                // The library has no alert for a message that is too long.
                let is_silent = told.is_empty() && format!("{outcome:?}").contains("TooLarge");
                let is_alert = told.len() == 7 && (told[0], told[5]) == (21, 2);
                assert!(is_alert || is_silent, "{outcome:?}: {told:?}");
            }
        }
    }
}
