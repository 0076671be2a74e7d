//! Peers that stall, cheat, babble or vanish.

use crate::records::{
    ALERT, Crypto, DATA, Fixed, HANDSHAKE, HELLO, KEY_UPDATE, KEY_UPDATE_REQUESTED,
};
use crate::world::{
    BACKENDS, PATIENCE, World, client, content, options, pair, plain, provider, reached,
};
use lastbyte::{
    BackendKind, CloseOutcome, ConnectionId, DriverConfig, Event, FailReason, Received,
    RefuseReason, Stage, TlsAlert, TlsCipher, TlsFailure, TlsVersion, Watch,
};
use lastbyte_backends::tls::TlsTerms;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const CIPHER: TlsCipher = TlsCipher::Aes128Gcm;

/// A server whose keys the test knows, a connection after the handshake, the
/// peer's socket, and what seals and opens on its side.
pub(crate) struct Known {
    pub(crate) world: World,
    pub(crate) id: ConnectionId,
    pub(crate) far: TcpStream,
    pub(crate) sealing: Crypto,
    pub(crate) opening: Crypto,
}

pub(crate) fn known(kind: BackendKind, version: TlsVersion) -> Known {
    known_limited(kind, version, u64::MAX)
}

/// The same with keys that seal no more than so many records.
fn known_limited(kind: BackendKind, version: TlsVersion, record_limit: u64) -> Known {
    let fixed = Fixed { version, cipher: CIPHER, record_limit };
    let mut world = World::with(plain(kind), Arc::new(fixed), options(), &DriverConfig::default());
    let (near, mut far) = pair();
    let id = world.attach(near);
    far.write_all(&HELLO).unwrap();
    while world.driver.counters().handshakes == 0 {
        world.turn();
    }
    let sealing = Crypto::new(version, CIPHER, 2);
    let opening = Crypto::new(version, CIPHER, 1);
    Known { world, id, far, sealing, opening }
}

impl Known {
    /// Sends one record of the peer's.
    pub(crate) fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.sealing.seal(kind, content);
        self.far.write_all(&record).unwrap();
    }

    /// Everything the peer gets until the end, opened, without the handshake's
    /// answer.
    pub(crate) fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut wire = Vec::new();
        // A reset ends it too.
        let _ = self.far.read_to_end(&mut wire);
        let mut at = 6.min(wire.len());
        let mut all = Vec::new();
        while let Some((kind, content, len)) = self.opening.open(&wire[at..]) {
            at += len;
            if kind == HANDSHAKE {
                self.opening.update();
            }
            all.push((kind, content));
        }
        all
    }

    /// The connection has to end because of `alert`, which the peer is told.
    pub(crate) fn expect_violation(mut self, alert: TlsAlert) {
        let _ = self.world.driver.receive(self.id);
        self.far.shutdown(Shutdown::Write).unwrap();
        let outcome = self.world.outcome();
        let CloseOutcome::Failed(FailReason::Tls(TlsFailure::PeerViolation {
            alert: told, ..
        })) = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(told, alert);
        assert_eq!(self.rest().last(), Some(&(ALERT, vec![2, alert.code()])));
    }
}

#[test]
pub(crate) fn what_is_no_tls_is_refused_with_an_alert() {
    for &kind in BACKENDS.iter() {
        for garbage in
            [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 100], &[22, 3, 1, 0, 5, 9, 0, 0, 1, 9]]
        {
            let mut world = World::new(kind);
            let (near, mut far) = pair();
            let id = world.attach(near);
            world.driver.submit(id, b"secret".to_vec().into(), Watch::ACKED).unwrap();
            far.write_all(garbage).unwrap();
            let events = world.until(|events| events.iter().any(crate::world::is_closed));
            let outcome = crate::world::outcome_in(&events);
            assert!(
                matches!(
                    &outcome,
                    CloseOutcome::Failed(FailReason::Tls(TlsFailure::Handshake { reason }))
                        if !reason.is_empty()
                ),
                "{outcome:?}"
            );
            assert_eq!(reached(&events, Stage::Failed).len(), 1);
            assert_eq!(reached(&events, Stage::Released).len(), 1);
            let mut told = Vec::new();
            let _ = far.read_to_end(&mut told);
            assert_eq!(told[..5], [21, 3, 3, 0, 2], "{told:?}");
            assert!(!told.windows(6).any(|bytes| bytes == b"secret"));
            assert_eq!(world.driver.counters().handshakes_failed, 1);
        }
    }
}

#[test]
pub(crate) fn a_handshake_has_its_time_and_disturbs_nobody() {
    let mut options = options();
    options.handshake_timeout = Duration::from_millis(300);
    for &kind in BACKENDS.iter() {
        let provider = provider(&TlsTerms::default());
        let mut world =
            World::with(plain(kind), provider, options.clone(), &DriverConfig::default());
        let (near, mut slow) = pair();
        let stalled = world.attach(near);
        slow.write_all(&[22, 3, 1]).unwrap();
        let (near, far) = pair();
        let id = world.attach(near);
        let peer = thread::spawn(move || {
            let mut peer = client(far, TlsVersion::Tls13);
            peer.write_all(b"hi").unwrap();
            peer
        });
        assert_eq!(world.read(id, 2).0, b"hi");
        drop(peer.join().unwrap());
        let mut outcome = None;
        world.until(|events| {
            outcome = events.iter().find_map(|event| match event {
                Event::Closed { connection, outcome, .. } if *connection == stalled => {
                    Some(outcome.clone())
                }
                _ => None,
            });
            outcome.is_some()
        });
        let timeout = FailReason::from(TlsFailure::HandshakeTimeout);
        assert_eq!(outcome, Some(CloseOutcome::Failed(timeout)));
        assert!(slow.read(&mut [0]).is_err(), "it is reset");
    }
}

/// What is kept of a message that is not complete is bounded, however little of it
/// is in each record.
#[test]
pub(crate) fn a_handshake_message_in_too_many_records_is_not_kept() {
    const STARTS: [u8; 9] = [HANDSHAKE, 3, 1, 0, 4, 1, 0, 0xFF, 0xFF];
    const GOES_ON: [u8; 6] = [HANDSHAKE, 3, 1, 0, 1, 0];
    for &kind in BACKENDS.iter() {
        let mut world = World::new(kind);
        let (near, mut far) = pair();
        world.attach(near);
        // It may end before all is sent.
        let peer = thread::spawn(move || {
            let _ = far.write_all(&STARTS).and_then(|()| far.write_all(&GOES_ON.repeat(60_000)));
            let _ = far.read_to_end(&mut Vec::new());
        });
        let outcome = world.outcome();
        let CloseOutcome::Failed(FailReason::Tls(TlsFailure::Handshake { reason })) = &outcome
        else {
            panic!("{kind}: {outcome:?}");
        };
        assert!(reason.contains("too many records"), "{kind}: {reason}");
        world.until(|_| peer.is_finished());
        peer.join().unwrap();
    }
}

#[test]
pub(crate) fn an_end_in_the_handshake_is_told() {
    let mut world = World::new(BackendKind::Epoll);
    let (near, mut far) = pair();
    world.attach(near);
    far.write_all(&[22, 3, 1]).unwrap();
    drop(far);
    assert_eq!(world.outcome(), CloseOutcome::Failed(TlsFailure::HandshakeTruncated.into()));
}

/// A FIN without a `close_notify` is no end of the data; but what was asked for
/// is still sent.
#[test]
pub(crate) fn truncation_is_told_apart_from_the_end() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for cut in [0, 10] {
                let mut known = known(kind, version);
                known.send(DATA, b"all of it?");
                let half = known.sealing.seal(DATA, b"the rest");
                known.far.write_all(&half[..cut]).unwrap();
                known.far.shutdown(Shutdown::Write).unwrap();
                let (got, end) = known.world.read(known.id, 100);
                assert_eq!(got, b"all of it?");
                assert!(matches!(end, Some(Received::Truncated)), "{end:?}");
                let id = known.id;
                known.world.driver.submit(id, b"answer".to_vec().into(), Watch::ACKED).unwrap();
                assert_eq!(known.world.close(id), CloseOutcome::Graceful);
                let rest = known.rest();
                assert_eq!(rest, [(DATA, b"answer".to_vec()), (ALERT, vec![1, 0])]);
            }
        }
    }
}

const VERSIONS: [TlsVersion; 2] = crate::world::VERSIONS;

#[test]
pub(crate) fn the_peers_alert_is_named() {
    for version in VERSIONS {
        let mut known = known(BackendKind::Epoll, version);
        known.send(ALERT, &[2, 42]);
        known.world.driver.receive(known.id).unwrap();
        let outcome = known.world.outcome();
        let CloseOutcome::Failed(reason) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.to_string(), "the peer ended TLS: bad_certificate");
        let refused = known.world.driver.submit(known.id, content(5).into(), Watch::NONE);
        assert_eq!(refused.unwrap_err().reason, RefuseReason::UnknownConnection);
    }
}

#[test]
pub(crate) fn records_that_must_not_be_are_answered_by_the_right_alert() {
    let start = || known(BackendKind::Epoll, TlsVersion::Tls13);
    // Tampered with.
    let mut known = start();
    let mut record = known.sealing.seal(DATA, b"x");
    record[7] ^= 1;
    known.far.write_all(&record).unwrap();
    known.expect_violation(TlsAlert::BAD_RECORD_MAC);
    // Not encrypted.
    let mut known = start();
    known.far.write_all(&[21, 3, 3, 0, 2, 1, 0]).unwrap();
    known.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    // Longer than any may be.
    let mut known = start();
    known.far.write_all(&[23, 3, 3, 0x41, 1]).unwrap();
    known.far.write_all(&vec![0; 0x4101]).unwrap();
    known.expect_violation(TlsAlert::RECORD_OVERFLOW);
    // Content that is too long.
    let mut known = start();
    known.send(DATA, &[1; (1 << 14) + 1]);
    known.expect_violation(TlsAlert::RECORD_OVERFLOW);
    // A type that does not exist, and none at all.
    for kind in [99, 0] {
        let mut known = start();
        known.send(kind, &[0, 0]);
        known.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    }
    // Messages that are cut, empty, unknown, or after their time.
    for (kind, content, alert) in [
        (ALERT, &[1][..], TlsAlert::DECODE_ERROR),
        (ALERT, &[1, 0, 0], TlsAlert::DECODE_ERROR),
        (HANDSHAKE, &[], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[1, 0, 0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[4, 0, 0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[24, 0, 0, 1, 2], TlsAlert::ILLEGAL_PARAMETER),
        (HANDSHAKE, &[24, 0, 0, 0], TlsAlert::DECODE_ERROR),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[24, 255, 0, 0], TlsAlert::DECODE_ERROR),
        (20, &[1], TlsAlert::UNEXPECTED_MESSAGE),
    ] {
        let mut known = start();
        known.send(kind, content);
        known.expect_violation(alert);
    }
    // Data in the middle of a message.
    let mut known = start();
    known.send(HANDSHAKE, &[24, 0]);
    known.send(DATA, b"x");
    known.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
}

/// A KeyUpdate may be in pieces; many requests get one answer; and a storm of
/// them, or of empty records, ends.
#[test]
pub(crate) fn storms_are_bounded() {
    let mut known = known(BackendKind::Epoll, TlsVersion::Tls13);
    let id = known.id;
    for _ in 0..32 {
        known.send(HANDSHAKE, &KEY_UPDATE_REQUESTED);
        known.sealing.update();
    }
    known.send(DATA, b"after 32");
    assert_eq!(known.world.read(id, 8).0, b"after 32");
    for byte in &KEY_UPDATE {
        known.send(HANDSHAKE, &[*byte]);
    }
    known.sealing.update();
    known.send(DATA, b"in pieces");
    assert_eq!(known.world.read(id, 9).0, b"in pieces");
    known.world.driver.submit(id, b"answer".to_vec().into(), Watch::ACKED).unwrap();
    known.world.close(id);
    let rest = known.rest();
    let answers = rest.iter().filter(|(kind, _)| *kind == HANDSHAKE).count();
    assert!((1..=32).contains(&answers), "{answers} answers");
    assert!(rest.contains(&(DATA, b"answer".to_vec())));

    let mut storm = self::known(BackendKind::Epoll, TlsVersion::Tls13);
    for _ in 0..33 {
        storm.send(HANDSHAKE, &KEY_UPDATE);
        storm.sealing.update();
    }
    storm.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    let mut storm = self::known(BackendKind::Epoll, TlsVersion::Tls12);
    for _ in 0..33 {
        storm.send(DATA, b"");
    }
    storm.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    // Warnings, and a second handshake.
    let mut storm = self::known(BackendKind::Epoll, TlsVersion::Tls12);
    for _ in 0..5 {
        storm.send(ALERT, &[1, 90]);
    }
    storm.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    let mut insistent = self::known(BackendKind::Epoll, TlsVersion::Tls12);
    insistent.send(HANDSHAKE, &[1, 0, 0, 0]);
    insistent.send(DATA, b"then not");
    let id = insistent.id;
    assert_eq!(insistent.world.read(id, 8).0, b"then not");
    insistent.send(HANDSHAKE, &[1, 0, 0, 0]);
    insistent.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
}

/// In TLS 1.2 a key cannot be changed. Whatever it has to seal last, it seals no
/// more than it may: a refused handshake and the end's alert are records too.
#[test]
pub(crate) fn a_peer_that_asks_again_gets_no_record_beyond_the_keys_limit() {
    const LIMIT: u64 = 8;
    for asks_after in 0..LIMIT {
        for closes in [false, true] {
            let mut known = known_limited(BACKENDS[0], TlsVersion::Tls12, LIMIT);
            let id = known.id;
            for sent in 0..LIMIT {
                if sent == asks_after {
                    known.send(HANDSHAKE, &[1, 0, 0, 0]);
                    known.send(DATA, b"asked");
                    assert_eq!(known.world.read(id, 5).0, b"asked");
                    if closes {
                        break;
                    }
                }
                known.world.driver.submit(id, content(1).into(), Watch::ACKED).unwrap();
                let has = |events: &[Event], stage| !reached(events, stage).is_empty();
                let events = known
                    .world
                    .until(|events| has(events, Stage::Acked) || has(events, Stage::Failed));
                if has(&events, Stage::Failed) {
                    break;
                }
            }
            // It may be over already.
            let _ = known.world.driver.close(id, PATIENCE);
            known.far.shutdown(Shutdown::Write).unwrap();
            while known.world.driver.counters().connections > 0 {
                known.world.turn();
            }
            let records = known.rest();
            let number = records.len() as u64;
            assert!(number <= LIMIT, "asked after {asks_after}, it sealed {number}: {records:?}");
            let (kind, last) = records.last().expect("it says that it is over");
            let is_refusal = *last == [1, TlsAlert::NO_RENEGOTIATION.code()];
            assert!(*kind == ALERT && !is_refusal, "{records:?}");
        }
    }
}

#[test]
pub(crate) fn tiny_records_one_byte_at_a_time_are_understood() {
    for &kind in BACKENDS.iter() {
        let mut known = known(kind, TlsVersion::Tls13);
        let mut wire = Vec::new();
        for byte in content(300) {
            wire.extend(known.sealing.seal(DATA, &[byte]));
        }
        known.far.set_nodelay(true).unwrap();
        let mut far = known.far.try_clone().unwrap();
        let peer = thread::spawn(move || {
            for byte in wire {
                far.write_all(&[byte]).unwrap();
            }
        });
        assert_eq!(known.world.read(known.id, 300).0, content(300));
        peer.join().unwrap();
    }
}

#[test]
pub(crate) fn a_reset_in_the_middle_fails_what_was_under_way() {
    for &kind in BACKENDS.iter() {
        let mut known = known(kind, TlsVersion::Tls13);
        let id = known.id;
        for _ in 0..3 {
            known.world.driver.submit(id, content(3_000_000).into(), Watch::ACKED).unwrap();
        }
        let mut got = vec![0; 400_000];
        let far = known.far.try_clone().unwrap();
        let peer = thread::spawn(move || {
            (&far).read_exact(&mut got).unwrap();
            socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        });
        known.world.until(|_| peer.is_finished());
        peer.join().unwrap();
        drop(std::mem::replace(&mut known.far, pair().1));
        let events = known.world.until(|events| events.iter().any(crate::world::is_closed));
        assert_eq!(crate::world::outcome_in(&events), CloseOutcome::Failed(FailReason::Reset));
        let counters = known.world.driver.counters();
        assert_eq!((counters.ciphertext_bytes, counters.unreleased_bytes), (0, 0));
    }
}

/// Closing does not wait for ever for a peer that does not read.
#[test]
pub(crate) fn closing_has_a_deadline() {
    for &kind in BACKENDS.iter() {
        let mut known = known(kind, TlsVersion::Tls13);
        known.world.driver.submit(known.id, content(30_000_000).into(), Watch::ACKED).unwrap();
        known.world.driver.close(known.id, Duration::from_millis(300)).unwrap();
        let events = known.world.until(|events| events.iter().any(crate::world::is_closed));
        assert_eq!(crate::world::outcome_in(&events), CloseOutcome::Failed(FailReason::Timeout));
        assert_eq!(reached(&events, Stage::Failed).len(), 1);
        assert_eq!(reached(&events, Stage::Released).len(), 1);
    }
}
