//! Kernel TLS, wherever this kernel has it; where it has not, that it is said,
//! and that user TLS does the same.

use crate::hostile::{self, Known};
use crate::interop;
use crate::records::{
    ALERT, Crypto, DATA, Fixed, HANDSHAKE, HELLO, KEY_UPDATE, KEY_UPDATE_REQUESTED,
};
use crate::world::{
    BACKENDS, CIPHERS, VERSIONS, World, client, content, pair, plain, provider, reached, terms,
    wishing,
};
use aws_lc_rs::digest;
use lastbyte::{
    AttachOptions, BackendKind, Choice, CloseOutcome, DriverConfig, Event, Evidence, Facility,
    FailReason, FileRange, OffloadWish, Payload, Received, RefuseReason, Restrictions, Stage,
    Support, TlsAlert, TlsCipher, TlsEstablished, TlsFailure, TlsVersion, Transport, Watch,
};
use lastbyte_backends::tls::{TlsOptions, TlsTerms};
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

/// What has to become of both directions on this kernel.
fn expected(kind: BackendKind, version: TlsVersion, cipher: TlsCipher) -> Transport {
    let report = lastbyte_backends::report(&Restrictions::none());
    let mut needed = vec![Facility::KernelTls, Facility::TlsTransmit, Facility::TlsReceive];
    if version == TlsVersion::Tls13 {
        needed.push(Facility::TlsRekey);
    }
    match cipher {
        TlsCipher::Aes256Gcm => needed.push(Facility::TlsAes256),
        TlsCipher::ChaCha20Poly1305 => needed.push(Facility::TlsChaCha20),
        _ => {}
    }
    let has = |facility: &Facility| report.has(*facility);
    if kind != BackendKind::Fallback && needed.iter().all(has) {
        Transport::KernelTls
    } else {
        Transport::UserTls
    }
}

fn options(wish: OffloadWish) -> TlsOptions {
    let mut options = TlsOptions::default();
    options.offload = wish;
    options
}

fn world(kind: BackendKind, terms: &TlsTerms, options: TlsOptions) -> World {
    World::with(plain(kind), provider(terms), options, &DriverConfig::default())
}

fn established(events: &[Event]) -> Option<&TlsEstablished> {
    events.iter().find_map(|event| match event {
        Event::TlsEstablished { tls, .. } => Some(tls),
        _ => None,
    })
}

fn file_of(bytes: &[u8]) -> Arc<dyn lastbyte::FileSource> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("lastbyte-kernel-{}-{next}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

/// The report says of each of kernel TLS's facilities whether this kernel has it
/// and, if not, with which error.
#[test]
fn what_is_lacking_has_an_errno() {
    let report = lastbyte_backends::report(&Restrictions::none());
    for facility in [
        Facility::KernelTls,
        Facility::TlsTransmit,
        Facility::TlsReceive,
        Facility::TlsRekey,
        Facility::TlsAes256,
        Facility::TlsChaCha20,
        Facility::TlsEndOfRecord,
        Facility::TlsZeroCopyFiles,
    ] {
        match report.support(facility) {
            Support::Have => {}
            Support::Lack { errno: Some(errno), what } => println!("{facility}: {what}: {errno}"),
            other => panic!("{facility}: {other:?}"),
        }
    }
}

/// Payloads of every kind come out whole, with every stage told, in both
/// directions, and both ends say that it is over.
#[test]
fn every_version_and_cipher_works_on_each_backend() {
    let file = file_of(&content(150_000));
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for cipher in CIPHERS {
                let transport = expected(kind, version, cipher);
                println!("{kind} {version} {cipher}: {transport}");
                let terms = terms(&[version], &[cipher]);
                let mut world = world(kind, &terms, options(OffloadWish::Prefer));
                let (near, far) = pair();
                let id = world.attach(near);
                let peer = thread::spawn(move || {
                    let mut peer = client(far, version);
                    peer.write_all(&content(50_000)).unwrap();
                    let mut got = vec![0; 100 + 70_000 + 150_000];
                    peer.read_exact(&mut got).unwrap();
                    peer.conn.send_close_notify();
                    peer.flush().unwrap();
                    let mut rest = Vec::new();
                    peer.read_to_end(&mut rest).expect("the end is announced");
                    assert!(rest.is_empty());
                    got
                });
                let events = world.until(|events| established(events).is_some());
                let tls = established(&events).unwrap();
                assert_eq!((tls.version, tls.cipher), (version, cipher));
                assert_eq!((tls.transmit, tls.receive), (transport, transport), "{tls:?}");
                assert_eq!(tls.declined.is_some(), transport == Transport::UserTls);
                let (got, _) = world.read(id, 50_000);
                assert_eq!(got, content(50_000));
                let payload = Payload::from(vec![7; 100])
                    .with(content(70_000))
                    .with(FileRange::new(Arc::clone(&file), 0, 150_000));
                world.driver.submit(id, payload, Watch::ALL).unwrap();
                let done = |events: &[Event]| {
                    !reached(events, Stage::Acked).is_empty()
                        && !reached(events, Stage::Released).is_empty()
                };
                let events = world.until(done);
                for stage in [Stage::Queued, Stage::Transmitted, Stage::Acked, Stage::Released] {
                    let told = reached(&events, stage);
                    assert_eq!(told.len(), 1, "{kind} {version} {cipher} {stage}");
                    assert_eq!(told[0].transport, transport);
                    assert_ne!(told[0].evidence, Evidence::Unavailable);
                }
                let (rest, end) = world.read(id, 1);
                assert!(rest.is_empty() && matches!(end, Some(Received::End)), "{end:?}");
                assert_eq!(world.close(id), CloseOutcome::Graceful);
                let got = peer.join().unwrap();
                assert_eq!(got[..100], [7; 100]);
                assert_eq!(got[100..70_100], content(70_000));
                assert_eq!(got[70_100..], content(150_000));
                let counters = world.driver.counters();
                assert_eq!((counters.ciphertext_bytes, counters.unreleased_bytes), (0, 0));
                assert_eq!(counters.handshakes, 1);
                let sealed = if transport == Transport::UserTls { 220_100 } else { 0 };
                assert_eq!(counters.sealed_bytes, sealed);
            }
        }
    }
}

/// What the tests of user TLS demand holds with the kernel's record layer too.
#[test]
fn what_holds_in_user_space_holds_in_the_kernel() {
    let tests: [(&str, fn()); 16] = [
        ("edges", interop::records_have_no_edges),
        ("client", interop::a_client_gets_on_with_a_server),
        ("beside", interop::plain_connections_live_beside_tls),
        ("keys", interop::keys_are_changed_in_time),
        ("openssl", interop::openssl_changes_its_keys_and_ours),
        ("movable", interop::a_movable_driver_moves),
        ("garbage", hostile::what_is_no_tls_is_refused_with_an_alert),
        ("stall", hostile::a_handshake_has_its_time_and_disturbs_nobody),
        ("end", hostile::an_end_in_the_handshake_is_told),
        ("truncation", hostile::truncation_is_told_apart_from_the_end),
        ("alert", hostile::the_peers_alert_is_named),
        ("tiny", hostile::tiny_records_one_byte_at_a_time_are_understood),
        ("reset", hostile::a_reset_in_the_middle_fails_what_was_under_way),
        ("deadline", hostile::closing_has_a_deadline),
        ("client again", interop::a_client_gets_on_with_a_server),
        ("edges again", interop::records_have_no_edges),
    ];
    for (name, test) in tests {
        println!("{name}");
        wishing(OffloadWish::Prefer, test);
    }
}

/// A connection whose keys the test knows, with the record layer where this
/// kernel lets it be.
fn known(kind: BackendKind, version: TlsVersion) -> Known {
    let mut known = None;
    wishing(OffloadWish::Prefer, || known = Some(hostile::known(kind, version)));
    known.unwrap()
}

fn in_kernel(kind: BackendKind, version: TlsVersion) -> bool {
    expected(kind, version, TlsCipher::Aes128Gcm) == Transport::KernelTls
}

/// What the kernel does not open ends the connection, and the peer is told why.
#[test]
fn records_that_do_not_open_are_answered_by_an_alert() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            let start = || known(kind, version);
            let mut known = start();
            let mut record = known.sealing.seal(DATA, b"x");
            let last = record.len() - 1;
            record[last] ^= 1;
            known.far.write_all(&record).unwrap();
            known.expect_violation(TlsAlert::BAD_RECORD_MAC);
            // Behind one that does.
            let mut known = start();
            known.send(DATA, b"good");
            let mut record = known.sealing.seal(DATA, b"bad");
            record[9] ^= 1;
            known.far.write_all(&record).unwrap();
            assert_eq!(known.world.read(known.id, 4).0, b"good");
            known.expect_violation(TlsAlert::BAD_RECORD_MAC);
            // Longer than any may be.
            let mut known = start();
            known.far.write_all(&[23, 3, 3, 0x49, 1]).unwrap();
            known.far.write_all(&vec![0; 0x4901]).unwrap();
            known.expect_violation(TlsAlert::RECORD_OVERFLOW);
            // Types and messages that must not be.
            for (kind, content, alert) in [
                (99, &[0, 0][..], TlsAlert::UNEXPECTED_MESSAGE),
                (ALERT, &[1], TlsAlert::DECODE_ERROR),
                (HANDSHAKE, &[], TlsAlert::UNEXPECTED_MESSAGE),
                (HANDSHAKE, &[2, 0, 0, 0], TlsAlert::UNEXPECTED_MESSAGE),
                (20, &[1], TlsAlert::UNEXPECTED_MESSAGE),
            ] {
                let mut known = start();
                known.send(kind, content);
                known.expect_violation(alert);
            }
        }
    }
    // A key that does not change to the one it has to.
    let mut known = known(BackendKind::Epoll, TlsVersion::Tls13);
    known.send(HANDSHAKE, &KEY_UPDATE);
    known.send(DATA, b"with the old key");
    known.expect_violation(TlsAlert::BAD_RECORD_MAC);
}

/// The peer changes its key and wants ours changed, again and again, while data
/// goes both ways; without any, that is given up.
#[test]
fn keys_change_both_ways() {
    for &kind in BACKENDS.iter() {
        println!("{kind}: {}", in_kernel(kind, TlsVersion::Tls13));
        let mut known = known(kind, TlsVersion::Tls13);
        let id = known.id;
        for round in 0..20_u8 {
            known.send(HANDSHAKE, &KEY_UPDATE_REQUESTED);
            known.sealing.update();
            known.send(DATA, &[round; 100]);
            assert_eq!(known.world.read(id, 100).0, [round; 100]);
            known.world.driver.submit(id, vec![round; 20_000].into(), Watch::ACKED).unwrap();
        }
        for _ in 0..32 {
            known.send(HANDSHAKE, &KEY_UPDATE_REQUESTED);
            known.sealing.update();
        }
        known.send(DATA, b"after 32");
        assert_eq!(known.world.read(id, 8).0, b"after 32");
        let mut far = known.far.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let mut wire = Vec::new();
            far.read_to_end(&mut wire).unwrap();
            wire
        });
        assert_eq!(known.world.close(id), CloseOutcome::Graceful);
        let (updates, data) = opened(&mut known.opening, &reading.join().unwrap());
        assert!((20..=52).contains(&updates), "{updates} answers");
        let rounds = (0..20).flat_map(|round| [round; 20_000]).collect::<Vec<_>>();
        assert!(data == rounds, "what was sent between the changes");

        let mut storm = self::known(kind, TlsVersion::Tls13);
        for _ in 0..33 {
            storm.send(HANDSHAKE, &KEY_UPDATE);
            storm.sealing.update();
        }
        storm.expect_violation(TlsAlert::UNEXPECTED_MESSAGE);
    }
}

/// KeyUpdates and payload in what the peer has got, and that the end was told.
fn opened(opening: &mut Crypto, wire: &[u8]) -> (usize, Vec<u8>) {
    let (mut at, mut updates, mut data, mut last) = (6, 0, Vec::new(), Vec::new());
    while let Some((kind, content, len)) = opening.open(&wire[at..]) {
        at += len;
        match kind {
            HANDSHAKE => {
                updates += 1;
                opening.update();
            }
            DATA => data.extend_from_slice(&content),
            _ => last = content,
        }
    }
    assert_eq!((at, last), (wire.len(), vec![1, 0]), "all of it opens, close_notify last");
    (updates, data)
}

/// `send` returns before TCP has everything: with a small send buffer, a slow
/// peer and the close at once, nothing is cut off, and no acknowledgement is
/// told before the peer's TCP has all of the transfer's last record.
#[test]
fn nothing_is_acknowledged_early_or_cut_off() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for sizes in [&[36_384, 1, 16_385][..], &[200_000, 70_000], &[5; 40]] {
                let mut known = known(kind, version);
                // Another name of the socket, so that it can be made small.
                let id = known.id;
                let overhead = TlsCipher::Aes128Gcm.record_overhead(version);
                let file = file_of(&content(300_000));
                let mut ends = Vec::new();
                let mut end = 6;
                for (n, &size) in sizes.iter().enumerate() {
                    let payload = if n % 2 == 1 {
                        let range = FileRange::new(Arc::clone(&file), 7, size);
                        Payload::from(vec![9; 3]).with(range)
                    } else {
                        Payload::from(content(usize::try_from(size).unwrap()))
                    };
                    let len = payload.len();
                    end += len + len.div_ceil(1 << 14) * overhead;
                    ends.push(end);
                    known.world.driver.submit(id, payload, Watch::ACKED).unwrap();
                }
                known.world.driver.close(id, crate::world::PATIENCE).unwrap();
                let (mut wire, mut acked, mut outcome) = (Vec::new(), 0, None);
                let mut piece = vec![0; 9_000];
                known.far.set_nonblocking(true).unwrap();
                let mut ended = false;
                while outcome.is_none() || !ended {
                    for event in known.world.turn_for(std::time::Duration::from_millis(1)) {
                        match event {
                            Event::Transfer(told) if told.stage() == Stage::Acked => {
                                let waiting = rustix::io::ioctl_fionread(&known.far).unwrap();
                                let there = wire.len() as u64 + waiting;
                                // Records are no longer than they have to be.
                                assert!(
                                    there >= ends[acked],
                                    "{kind} {version}: {acked} at {there} of {}",
                                    ends[acked]
                                );
                                acked += 1;
                            }
                            Event::Closed { outcome: how, .. } => outcome = Some(how),
                            _ => {}
                        }
                    }
                    match known.far.read(&mut piece) {
                        Ok(0) => ended = true,
                        Ok(n) => wire.extend_from_slice(&piece[..n]),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                    }
                    if ended {
                        known.far.shutdown(std::net::Shutdown::Write).ok();
                    }
                }
                assert_eq!(outcome, Some(CloseOutcome::Graceful));
                assert_eq!(acked, sizes.len());
                let (_, data) = opened(&mut known.opening, &wire);
                let mut expected = Vec::new();
                for (n, &size) in sizes.iter().enumerate() {
                    let size = usize::try_from(size).unwrap();
                    if n % 2 == 1 {
                        expected.extend([9; 3]);
                        expected.extend_from_slice(&content(300_000)[7..7 + size]);
                    } else {
                        expected.extend(content(size));
                    }
                }
                assert!(data == expected, "{kind} {version}");
            }
        }
    }
}

/// Each direction may be the kernel's by itself.
#[test]
fn directions_are_handed_over_one_by_one() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for left_out in [Facility::TlsTransmit, Facility::TlsReceive] {
                let restrictions = Restrictions::none().without(left_out);
                let inner = lastbyte_backends::open(Choice::Only(kind), &restrictions).unwrap();
                let terms = terms(&[version], &[]);
                let config = DriverConfig::default();
                let mut world =
                    World::with(inner, provider(&terms), options(OffloadWish::Prefer), &config);
                let (near, far) = pair();
                let id = world.attach(near);
                let peer = thread::spawn(move || {
                    let mut peer = client(far, version);
                    peer.write_all(&content(50_000)).unwrap();
                    let mut got = vec![0; 90_000];
                    peer.read_exact(&mut got).unwrap();
                    assert_eq!(got, content(90_000));
                    if version == TlsVersion::Tls13 {
                        peer.conn.refresh_traffic_keys().unwrap();
                    }
                    peer.write_all(&content(50_000)).unwrap();
                    peer.conn.send_close_notify();
                    peer.flush().unwrap();
                    let mut rest = Vec::new();
                    peer.read_to_end(&mut rest).unwrap();
                    assert_eq!(rest, content(10));
                });
                let events = world.until(|events| established(events).is_some());
                let tls = established(&events).unwrap();
                let kernel = in_kernel(kind, version);
                let transport = |out: bool| {
                    if kernel && !out { Transport::KernelTls } else { Transport::UserTls }
                };
                assert_eq!(tls.transmit, transport(left_out == Facility::TlsTransmit), "{tls:?}");
                assert_eq!(tls.receive, transport(left_out == Facility::TlsReceive), "{tls:?}");
                assert_eq!(world.read(id, 50_000).0, content(50_000));
                world.driver.submit(id, content(90_000).into(), Watch::ALL).unwrap();
                world.until(|events| !reached(events, Stage::Acked).is_empty());
                assert_eq!(world.read(id, 50_000).0, content(50_000));
                world.driver.submit(id, content(10).into(), Watch::ALL).unwrap();
                assert!(matches!(world.read(id, 1).1, Some(Received::End)));
                assert_eq!(world.close(id), CloseOutcome::Graceful);
                peer.join().unwrap();
            }
        }
    }
}

/// Whoever requires kernel TLS gets it, or learns what stands against it before
/// anything of his is sent.
#[test]
fn what_is_required_is_had_or_refused() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for cipher in CIPHERS {
                let terms = terms(&[version], &[cipher]);
                let mut world = world(kind, &terms, options(OffloadWish::Require));
                let (near, far) = pair();
                let report = lastbyte_backends::report(&Restrictions::none());
                if kind == BackendKind::Fallback || !report.has(Facility::KernelTls) {
                    let refused = world.driver.attach(near.into(), &Default::default());
                    let facility = Facility::KernelTls;
                    assert_eq!(refused.unwrap_err().reason, RefuseReason::Lacks { facility });
                    continue;
                }
                let id = world.attach(near);
                let peer = thread::spawn(move || {
                    let mut got = Vec::new();
                    let end = client(far, version).read_to_end(&mut got);
                    (got, end)
                });
                world.driver.submit(id, b"secret".to_vec().into(), Watch::ACKED).unwrap();
                if expected(kind, version, cipher) == Transport::KernelTls {
                    world.until(|events| !reached(events, Stage::Acked).is_empty());
                    assert_eq!(world.close(id), CloseOutcome::Graceful);
                    assert_eq!(peer.join().unwrap().0, b"secret");
                } else {
                    let outcome = world.outcome();
                    let CloseOutcome::Failed(FailReason::Tls(TlsFailure::NotOffloaded {
                        why: RefuseReason::Lacks { facility },
                    })) = outcome
                    else {
                        panic!("{outcome:?}");
                    };
                    assert_eq!(facility, Facility::TlsRekey);
                    let (got, end) = peer.join().unwrap();
                    assert!(got.is_empty() && end.is_err(), "{end:?}");
                }
            }
        }
    }
}

/// A connection may be wished otherwise than its driver.
#[test]
fn one_connection_may_have_its_own_wish() {
    let mut world = world(BackendKind::Epoll, &TlsTerms::default(), options(OffloadWish::Never));
    let terms = (TlsVersion::Tls12, TlsCipher::Aes128Gcm);
    let expected = expected(BackendKind::Epoll, terms.0, terms.1);
    for (wish, transport) in [(None, Transport::UserTls), (Some(OffloadWish::Prefer), expected)] {
        let (near, far) = pair();
        let mut options = AttachOptions::default();
        options.offload = wish;
        let id = world.driver.attach(near.into(), &options).unwrap().connection;
        world.driver.submit(id, content(9).into(), Watch::ACKED).unwrap();
        let peer = thread::spawn(move || {
            let mut got = Vec::new();
            client(far, TlsVersion::Tls12).read_to_end(&mut got).unwrap();
            got
        });
        let events = world.until(|events| !reached(events, Stage::Acked).is_empty());
        assert_eq!(established(&events).unwrap().transmit, transport);
        assert_eq!(reached(&events, Stage::Acked)[0].transport, transport);
        assert_eq!(world.close(id), CloseOutcome::Graceful);
        assert_eq!(peer.join().unwrap(), content(9));
    }
}

/// Records that were begun before the hand-over, and all there is at it.
#[test]
fn what_comes_with_the_handshake_is_not_lost() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            let mut sealing = Crypto::new(version, TlsCipher::Aes128Gcm, 2);
            let mut wire = HELLO.to_vec();
            for size in [1, 16_384, 300, 0, 5] {
                wire.extend(sealing.seal(DATA, &content(size)));
            }
            for cut in [6, 7, 11, 30, 10_000, wire.len()] {
                let fixed = Fixed { version, cipher: TlsCipher::Aes128Gcm, record_limit: 1 << 20 };
                let config = DriverConfig::default();
                let wish = options(OffloadWish::Prefer);
                let mut world = World::with(plain(kind), Arc::new(fixed), wish, &config);
                let (near, mut far) = pair();
                let id = world.attach(near);
                far.write_all(&wire[..cut]).unwrap();
                let events = world.until(|events| established(events).is_some());
                let kernel = in_kernel(kind, version);
                let receive = established(&events).unwrap().receive;
                assert_eq!(receive == Transport::KernelTls, kernel, "{kind} {version} {cut}");
                far.write_all(&wire[cut..]).unwrap();
                let (got, _) = world.read(id, 1 + 16_384 + 300 + 5);
                let all = [1, 16_384, 300, 5].map(content).concat();
                assert!(got == all, "{kind} {version} {cut}");
            }
        }
    }
}

/// A large transfer, hashed, by memory and by file, with keys that change in the
/// middle of it where they can.
#[test]
fn large_transfers_arrive_as_they_were_sent() {
    const LEN: usize = 12 << 20;
    let body = content(LEN);
    let file = file_of(&body);
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&body);
    hash.update(&body);
    let sent = hash.finish();
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            let mut options = options(OffloadWish::Prefer);
            if version == TlsVersion::Tls13 {
                options.rekey_after = 200;
            }
            let mut world = world(kind, &terms(&[version], &[]), options);
            let (near, far) = pair();
            let id = world.attach(near);
            let peer = thread::spawn(move || {
                let mut peer = client(far, version);
                let mut got = digest::Context::new(&digest::SHA256);
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match peer.read(&mut buffer).expect("the end is announced") {
                        0 => return got.finish(),
                        n => got.update(&buffer[..n]),
                    }
                }
            });
            world.driver.submit(id, body.clone().into(), Watch::ACKED).unwrap();
            let range = FileRange::new(Arc::clone(&file), 0, LEN as u64);
            world.driver.submit(id, Payload::from(range), Watch::ACKED).unwrap();
            assert_eq!(world.close(id), CloseOutcome::Graceful, "{kind} {version}");
            assert_eq!(peer.join().unwrap().as_ref(), sent.as_ref(), "{kind} {version}");
        }
    }
}
