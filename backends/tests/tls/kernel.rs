//! Kernel TLS, wherever this kernel has it; where it has not, that it is said,
//! and that user TLS does the same.

use crate::world::{
    BACKENDS, CIPHERS, VERSIONS, World, client, content, pair, plain, provider, reached, terms,
};
use lastbyte::{
    BackendKind, CloseOutcome, DriverConfig, Event, Evidence, Facility, FileRange, OffloadWish,
    Payload, Received, Restrictions, Stage, Support, TlsCipher, TlsEstablished, TlsVersion,
    Transport, Watch,
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
