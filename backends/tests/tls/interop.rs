//! With peers that others have written: rustls, OpenSSL.

use crate::world::{
    BACKENDS, CIPHERS, VERSIONS, World, client, content, options, pair, plain, provider, reached,
    server_config, terms,
};
use aws_lc_rs::digest;
use bytes::Bytes;
use lastbyte::{
    BackendKind, CloseOutcome, DriverConfig, Event, Evidence, FileRange, Payload, Pool, Received,
    RefuseReason, Stage, TlsCipher, TlsRole, TlsVersion, Transport, Watch,
};
use lastbyte_backends::tls::TlsTerms;
use rustls::{ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Payloads of every kind come out whole, with every stage told, in both
/// directions, and both ends say that it is over.
#[test]
pub(crate) fn every_version_and_cipher_works_on_each_backend() {
    let mut file = tempfile();
    file.write_all(&content(150_000)).unwrap();
    let file: Arc<dyn lastbyte::FileSource> = Arc::new(file);
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            for cipher in CIPHERS {
                let provider = provider(&terms(&[version], &[cipher]));
                let options = options();
                let mut world =
                    World::with(plain(kind), provider, options, &DriverConfig::default());
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
                let (got, _) = world.read(id, 50_000);
                assert_eq!(got, content(50_000));
                let mut head = Pool::new(100, 1).take();
                head.fill_from(&[7; 100]);
                let payload = Payload::from(head).with(content(70_000)).with(FileRange::new(
                    Arc::clone(&file),
                    0,
                    150_000,
                ));
                world.driver.submit(id, payload, Watch::ALL).unwrap();
                let events = world.until(|events| !reached(events, Stage::Acked).is_empty());
                for stage in [Stage::Queued, Stage::Transmitted, Stage::Acked, Stage::Released] {
                    let told = reached(&events, stage);
                    assert_eq!(told.len(), 1, "{kind} {version:?} {cipher:?} {stage}");
                    assert_eq!(told[0].transport, Transport::UserTls);
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
                assert_eq!((counters.handshakes, counters.sealed_bytes), (1, 220_100));
            }
        }
    }
}

#[test]
pub(crate) fn records_have_no_edges() {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            let mut world = World::new(kind);
            let (near, far) = pair();
            let id = world.attach(near);
            let sizes = [1, 16_383, 16_384, 16_385, 32_768, 2];
            let peer = thread::spawn(move || {
                let mut peer = client(far, version);
                for size in sizes {
                    peer.write_all(&content(size)).unwrap();
                    let mut got = vec![0; size];
                    peer.read_exact(&mut got).unwrap();
                    assert_eq!(got, content(size), "{size}");
                }
            });
            let refused = world.driver.submit(id, Payload::new(), Watch::ALL).unwrap_err();
            assert_eq!(refused.reason, RefuseReason::Empty);
            for size in sizes {
                let (got, _) = world.read(id, size);
                assert_eq!(got, content(size), "{size}");
                world.driver.submit(id, got.into(), Watch::ACKED).unwrap();
                world.until(|events| !reached(events, Stage::Acked).is_empty());
            }
            peer.join().unwrap();
        }
    }
}

#[test]
pub(crate) fn a_quarter_of_a_gibibyte_arrives_as_it_was_sent() {
    const TRANSFERS: usize = 32;
    const LEN: usize = 8 << 20;
    let body = Bytes::from(content(LEN));
    let mut sent = digest::Context::new(&digest::SHA256);
    for _ in 0..TRANSFERS {
        sent.update(&body);
    }
    let sent = sent.finish();
    for &kind in BACKENDS.iter() {
        let mut world = World::new(kind);
        let (near, far) = pair();
        let id = world.attach(near);
        let peer = thread::spawn(move || {
            let mut peer = client(far, TlsVersion::Tls13);
            let mut got = digest::Context::new(&digest::SHA256);
            let (mut buffer, mut len) = (vec![0; 1 << 16], 0);
            loop {
                match peer.read(&mut buffer).expect("the end is announced") {
                    0 => return (len, got.finish()),
                    n => got.update(&buffer[..n]),
                }
                len += 1;
            }
        });
        for _ in 0..TRANSFERS {
            // Back-pressure: what does not fit now is offered again.
            let mut payload = Payload::from(body.clone());
            while let Err(refused) = world.driver.submit(id, payload, Watch::ACKED) {
                assert!(matches!(refused.reason, RefuseReason::BackPressure { .. }));
                payload = refused.value;
                world.turn();
            }
        }
        assert_eq!(world.close(id), CloseOutcome::Graceful, "{kind}");
        let (_, got) = peer.join().unwrap();
        assert_eq!(got.as_ref(), sent.as_ref(), "{kind}");
        // All of it lay in memory in one piece, and nothing was copied.
        assert_eq!(world.driver.counters().copied_to_seal_bytes, 0);
    }
}

/// This layer as a client: of a server that sends tickets.
#[test]
pub(crate) fn a_client_gets_on_with_a_server() {
    for &kind in BACKENDS.iter() {
        let mut world = World::new(kind);
        let (near, far) = pair();
        let name = TlsRole::Client { server_name: "localhost".to_owned() };
        let id = world.attach_as(near, &name);
        world
            .driver
            .submit(id, b"before the handshake is done".to_vec().into(), Watch::ALL)
            .unwrap();
        let peer = thread::spawn(move || {
            let connection = ServerConnection::new(server_config()).unwrap();
            let mut peer = StreamOwned::new(connection, far);
            let mut got = [0; 28];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"before the handshake is done");
            peer.write_all(&content(40_000)).unwrap();
            peer.conn.refresh_traffic_keys().unwrap();
            peer.write_all(&content(40_000)).unwrap();
            peer.conn.send_close_notify();
            peer.flush().unwrap();
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
        });
        let (got, _) = world.read(id, 80_000);
        assert_eq!(got, [content(40_000), content(40_000)].concat());
        let (_, end) = world.read(id, 1);
        assert!(matches!(end, Some(Received::End)));
        assert_eq!(world.close(id), CloseOutcome::Graceful);
        peer.join().unwrap();
    }
}

#[test]
pub(crate) fn a_wrong_name_is_refused_before_anything_is_sent() {
    let mut world = World::new(BackendKind::Epoll);
    let (near, _far) = pair();
    let name = TlsRole::Client { server_name: "not a name".to_owned() };
    let refused = world.driver.attach_tls(near.into(), &Default::default(), &name).unwrap_err();
    assert!(refused.to_string().contains("'not a name'"), "{refused}");
    // A driver without TLS refuses too.
    let queue = lastbyte::EventQueue::default();
    let mut driver =
        plain(BackendKind::Epoll).driver(&DriverConfig::default(), Box::new(queue.sink())).unwrap();
    let refused =
        driver.attach_tls(refused.value, &Default::default(), &TlsRole::Server).unwrap_err();
    assert_eq!(refused.to_string(), "this driver has no TLS");
}

#[test]
pub(crate) fn plain_connections_live_beside_tls() {
    let mut world = World::new(BackendKind::Epoll);
    let (near, mut far) = pair();
    let id = world.attach_as(near, &TlsRole::Plain);
    world.driver.submit(id, b"hello".to_vec().into(), Watch::ACKED).unwrap();
    let events = world.until(|events| !reached(events, Stage::Acked).is_empty());
    assert_eq!(reached(&events, Stage::Acked)[0].transport, Transport::Plain);
    let mut got = [0; 5];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

/// Own keys are changed long before the cipher's limit, in the middle of a
/// transfer, as often as it takes.
#[test]
pub(crate) fn keys_are_changed_in_time() {
    let mut options = options();
    options.rekey_after = 7;
    let provider = provider(&TlsTerms::default());
    let mut world =
        World::with(plain(BackendKind::Epoll), provider, options, &DriverConfig::default());
    let (near, far) = pair();
    let id = world.attach(near);
    let peer = thread::spawn(move || {
        let mut peer = client(far, TlsVersion::Tls13);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got, content(2_000_000));
    });
    world.driver.submit(id, content(2_000_000).into(), Watch::ACKED).unwrap();
    assert_eq!(world.close(id), CloseOutcome::Graceful);
    peer.join().unwrap();
}

/// `openssl s_client` changes its keys (`k`), and ours too (`K`).
#[test]
pub(crate) fn openssl_changes_its_keys_and_ours() {
    let openssl = Command::new("openssl").arg("version").output();
    if !openssl.is_ok_and(|out| out.status.success()) {
        println!("n/a: there is no openssl here");
        return;
    }
    for version in VERSIONS {
        for cipher in CIPHERS {
            exchange_with_openssl(version, cipher);
        }
    }
}

fn exchange_with_openssl(version: TlsVersion, cipher: TlsCipher) {
    let provider = provider(&terms(&[version], &[cipher]));
    let config = DriverConfig::default();
    let mut world = World::with(plain(BackendKind::Epoll), provider, options(), &config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut peer = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-quiet", "-no_ign_eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = world.attach(listener.accept().unwrap().0);
    let mut input = peer.stdin.take().unwrap();
    let mut output = peer.stdout.take().unwrap();
    input.write_all(b"one\n").unwrap();
    assert_eq!(world.read(id, 4).0, b"one\n");
    let commands: &[&[u8]] =
        if version == TlsVersion::Tls13 { &[b"K\n", b"k\n", b"K\n"] } else { &[] };
    for (n, command) in commands.iter().enumerate() {
        // A command counts only if it is read apart from what follows.
        input.write_all(command).unwrap();
        thread::sleep(Duration::from_millis(200));
        let line = format!("{n}\n");
        input.write_all(line.as_bytes()).unwrap();
        assert_eq!(world.read(id, 2).0, line.as_bytes(), "{cipher:?}");
        let answer = content(20_000);
        world.driver.submit(id, answer.clone().into(), Watch::ACKED).unwrap();
        world.until(|events| !reached(events, Stage::Acked).is_empty());
        let mut got = vec![0; answer.len()];
        output.read_exact(&mut got).unwrap();
        assert_eq!(got, answer);
    }
    world.driver.submit(id, b"bye".to_vec().into(), Watch::ACKED).unwrap();
    drop(input);
    assert_eq!(world.close(id), CloseOutcome::Graceful);
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"bye"), "{rest:?}");
    peer.wait().unwrap();
}

/// A driver that another thread may have.
#[test]
pub(crate) fn a_movable_driver_moves() {
    let backend = lastbyte_backends::tls::TlsBackend::new(
        plain(BackendKind::Epoll),
        provider(&TlsTerms::default()),
        options(),
    );
    let (sender, events) = lastbyte::event_channel();
    let mut driver =
        lastbyte::Backend::movable_driver(&backend, &DriverConfig::default(), Box::new(sender))
            .unwrap();
    let (near, far) = pair();
    let id = driver.attach(near.into(), &Default::default()).unwrap().connection;
    driver.submit(id, content(9).into(), Watch::ACKED).unwrap();
    let turning = thread::spawn(move || {
        while !events
            .try_iter()
            .any(|event| matches!(event, Event::Transfer(c) if c.stage() == Stage::Acked))
        {
            driver.turn(Some(Duration::from_millis(10))).unwrap();
        }
    });
    let mut got = [0; 9];
    client(far, TlsVersion::Tls13).read_exact(&mut got).unwrap();
    assert_eq!(got[..], content(9));
    turning.join().unwrap();
}

/// The futures over a driver with TLS, as a client whose server goes without a
/// word.
#[cfg(feature = "tokio")]
#[test]
pub(crate) fn futures_speak_tls_too() {
    let backend = lastbyte_backends::tls::TlsBackend::new(
        plain(BackendKind::Epoll),
        provider(&TlsTerms::default()),
        options(),
    );
    let (near, far) = pair();
    let peer = thread::spawn(move || {
        let connection = ServerConnection::new(server_config()).unwrap();
        let mut peer = StreamOwned::new(connection, far);
        let mut got = vec![0; 50_000];
        peer.read_exact(&mut got).unwrap();
        peer.write_all(b"answer").unwrap();
        got
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle =
            lastbyte_backends::tokio::spawn(&backend, &DriverConfig::default()).expect("spawns");
        let role = TlsRole::Client { server_name: "localhost".to_owned() };
        let mut connection =
            handle.attach_tls(near.into(), &Default::default(), &role).expect("attaches");
        let mut transfer = connection.send(content(50_000).into(), Watch::ACKED).expect("sends");
        let acked = transfer.acked().await.expect("is acknowledged");
        assert_eq!(acked.transport, Transport::UserTls);
        let mut got = Vec::new();
        while let Some(data) = connection.receive().await.expect("receives") {
            got.extend_from_slice(&data);
        }
        assert_eq!(got, b"answer");
        assert!(connection.is_truncated());
    });
    assert_eq!(peer.join().unwrap(), content(50_000));
}

fn tempfile() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("lastbyte-interop-{}", std::process::id()));
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    std::fs::remove_file(&path).unwrap();
    file.unwrap()
}
