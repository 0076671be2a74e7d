//! How much one key seals, counted by a peer that opens every record.

use crate::records::{Crypto, DATA, Fixed, HANDSHAKE, HELLO};
use crate::world::{
    World, client, content, is_closed, options, pair, payloads, plain, provider, reached,
};
use lastbyte::{
    BackendKind, DriverConfig, Event, OffloadWish, Payload, Stage, TlsCipher, TlsVersion, Watch,
};
use lastbyte_backends::tls::TlsTerms;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: u64 = 64;
const LEN: usize = 8 << 20;

/// While each call left a record open, as a `sendfile` does that takes less than it
/// was asked for, the kernel's records were not counted.
#[test]
fn no_key_seals_more_than_it_may_whatever_a_transfer_is_made_of() {
    for version in [TlsVersion::Tls13, TlsVersion::Tls12] {
        for (name, payload) in payloads(LEN) {
            let (most, _) = records(version, payload, false);
            assert!((1..=LIMIT).contains(&most), "{version}, {name}: {most}");
        }
    }
}

/// What is left when a direction ends may take more than one key.
#[test]
fn a_direction_that_ends_changes_its_key_as_often_as_it_takes() {
    let (most, data) = records(TlsVersion::Tls13, content(LEN).into(), true);
    assert!((1..=LIMIT).contains(&most), "{most}");
    assert_eq!(data, LEN);
}

/// In TLS 1.2 there is no other key, and what fits the one there is goes through: the
/// warning that it is nearly used up ends nothing that was accepted.
#[test]
fn a_direction_that_ends_uses_its_last_key_up() {
    const RECORDS: usize = LIMIT as usize - 10;
    let (most, data) = records(TlsVersion::Tls12, content(RECORDS << 14).into(), true);
    assert!((1..=LIMIT).contains(&most), "{most}");
    assert_eq!(data, RECORDS << 14);
}

/// Sends `payload` to a peer that reads slowly, and ends the direction if `finish`
/// says so. Says how many records one key has sealed at the most, and how many bytes
/// came.
fn records(version: TlsVersion, payload: Payload, finish: bool) -> (u64, usize) {
    let cipher = TlsCipher::Aes128Gcm;
    let mut options = options();
    options.offload = OffloadWish::Prefer;
    let fixed = Fixed { version, cipher, record_limit: LIMIT };
    let inner = plain(BackendKind::Epoll);
    let mut world = World::with(inner, Arc::new(fixed), options, &DriverConfig::default());
    let (near, mut far) = pair();
    socket2::SockRef::from(&near).set_send_buffer_size(64 << 10).expect("sets");
    let id = world.attach(near);
    far.write_all(&HELLO).expect("writes");
    let end = Instant::now() + Duration::from_secs(60);
    while world.driver.counters().handshakes == 0 {
        assert!(Instant::now() < end, "no handshake");
        world.turn();
    }
    world.driver.submit(id, payload, Watch::ACKED).expect("submits");
    if finish {
        world.driver.finish(id).expect("finishes");
    }
    far.set_nonblocking(true).expect("sets");
    let (mut wire, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    let (mut has_ended, mut idle) = (false, 0);
    while idle < 50 {
        assert!(Instant::now() < end, "no end");
        for event in world.turn_for(Duration::from_micros(100)) {
            has_ended |= match event {
                Event::Transfer(told) => matches!(told.stage(), Stage::Acked | Stage::Failed),
                Event::Closed { .. } => true,
                _ => false,
            };
        }
        match far.read(&mut piece) {
            Ok(n @ 1..) => {
                wire.extend_from_slice(&piece[..n]);
                idle = 0;
            }
            Ok(0) | Err(_) => idle += u32::from(has_ended),
        }
    }
    let mut opening = Crypto::new(version, cipher, 1);
    // Behind what the handshake of these tests says.
    let (mut at, mut by_key, mut most, mut data) = (6, 0, 0, 0);
    while let Some((kind, content, len)) = opening.open(&wire[at..]) {
        data += if kind == DATA { content.len() } else { 0 };
        at += len;
        by_key += 1;
        most = most.max(by_key);
        if kind == HANDSHAKE {
            opening.update();
            by_key = 0;
        }
    }
    assert!(has_ended, "it never ended");
    (most, data)
}

/// A key that was to be changed after each record never got to payload.
#[test]
fn a_key_seals_something_before_it_is_changed() {
    for records in [0, 1, 2] {
        let mut options = options();
        options.rekey_after = records;
        let inner = plain(BackendKind::Epoll);
        let terms = provider(&TlsTerms::default());
        let mut world = World::with(inner, terms, options, &DriverConfig::default());
        let (near, far) = pair();
        let id = world.attach(near);
        let peer = std::thread::spawn(move || {
            let (mut stream, mut got) = (client(far, TlsVersion::Tls13), [0; 5]);
            // Whoever closes with changes of keys unread resets, and nothing says
            // then that the payload had arrived.
            stream.read_exact(&mut got).map(|()| (got, stream))
        });
        world.driver.submit(id, b"hello".to_vec().into(), Watch::ACKED).expect("submits");
        let mut acked = false;
        let end = Instant::now() + Duration::from_secs(20);
        while !acked {
            let events = world.turn();
            acked |= !reached(&events, Stage::Acked).is_empty();
            assert!(acked || !events.iter().any(is_closed), "{records}: {events:?}");
            assert!(Instant::now() < end, "{records}: not acknowledged");
        }
        drop(world);
        let (got, _) = peer.join().expect("the peer").expect("reads");
        assert_eq!(&got, b"hello", "{records}");
    }
}
