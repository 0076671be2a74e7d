//! What the futures know of a TLS connection.

use crate::world::{
    BACKENDS, IDENTITY, PATIENCE, VERSIONS, content, options, pair, plain, provider, terms,
};
use lastbyte::{
    AttachOptions, CloseOutcome, DriverConfig, FailReason, OffloadWish, RefuseReason,
    TlsEstablished, TlsFailure, TlsRole, TlsVersion, Transport, Watch,
};
use lastbyte_backends::tls::{Rustls, TlsBackend, TlsTerms};
use lastbyte_backends::tokio::{Connection, Handle, spawn};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

fn client() -> TlsRole {
    TlsRole::Client { server_name: "localhost".to_owned() }
}

/// A driver that speaks `version` and "echo", in both roles.
fn handle(kind: lastbyte::BackendKind, version: TlsVersion) -> Handle {
    let terms = TlsTerms { protocols: vec![b"echo".to_vec()], ..terms(&[version], &[]) };
    let (certificate, key) = (IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes());
    let provider = Rustls::new().with_server(certificate, key, &terms).expect("a server");
    let provider = provider.with_client(certificate, &terms).expect("a client");
    let backend = TlsBackend::new(plain(kind), Arc::new(provider), options());
    spawn(&backend, &DriverConfig::default()).expect("spawns")
}

/// Runs `test` on each backend, with each version of TLS.
fn everywhere(test: impl AsyncFn(Handle, TlsVersion)) {
    for &kind in BACKENDS.iter() {
        for version in VERSIONS {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let test = test(handle(kind, version), version);
                let done = timeout(PATIENCE, test).await;
                done.unwrap_or_else(|_| panic!("{kind}, {version:?}: hangs"));
            });
        }
    }
}

fn attach(handle: &Handle, socket: TcpStream, role: &TlsRole) -> Connection {
    handle.attach_tls(socket.into(), &AttachOptions::default(), role).expect("attaches")
}

#[test]
fn both_sides_know_what_was_agreed_on() {
    everywhere(async |handle, version| {
        let (near, far) = pair();
        let server = attach(&handle, near, &TlsRole::Server);
        assert_eq!(server.tls(), None, "nobody has answered yet");
        // Dropped before it is done, it takes nothing from the next.
        let early = timeout(Duration::from_millis(20), server.established()).await;
        assert!(early.is_err(), "nobody has answered yet");
        let client = attach(&handle, far, &client());
        let (known, also) = tokio::join!(server.established(), client.established());
        let known = known.expect("is established").expect("is TLS");
        let also = also.expect("is established").expect("is TLS");
        for known in [known, also] {
            assert_eq!(known.version, version);
            assert_eq!((known.transmit, known.receive), (Transport::UserTls, Transport::UserTls));
            let protocol = known.peer.as_ref().and_then(|peer| peer.protocol.as_deref());
            assert_eq!(protocol, Some(&b"echo"[..]));
        }
        assert_eq!(known.cipher, also.cipher);
        let certificate = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).unwrap();
        let shown = |tls: &TlsEstablished| tls.peer.clone().unwrap().certificates;
        assert_eq!(shown(also), [certificate.to_vec()]);
        assert!(shown(known).is_empty());
        assert_eq!((server.tls(), client.tls()), (Some(known), Some(also)));
        // It is known as long as anybody asks.
        client.close(PATIENCE).await;
        assert_eq!(server.established().await.expect("it was"), server.tls());
    });
}

#[test]
fn whoever_waits_for_a_handshake_that_fails_hears_why() {
    everywhere(async |handle, _| {
        let (near, mut far) = pair();
        let server = attach(&handle, near, &TlsRole::Server);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let outcome = server.established().await.expect_err("that is no TLS");
        assert!(
            matches!(outcome, CloseOutcome::Failed(FailReason::Tls(TlsFailure::Handshake { .. }))),
            "{outcome:?}"
        );
        assert_eq!(server.established().await, Err(outcome));
        assert_eq!(server.tls(), None);
    });
}

#[test]
fn whoever_waits_for_a_handshake_hears_of_the_drivers_end() {
    for &kind in BACKENDS.iter() {
        let build = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = build();
        let (near, _far) = pair();
        let server = runtime
            .block_on(async { attach(&handle(kind, TlsVersion::Tls13), near, &TlsRole::Server) });
        let waiting = std::thread::spawn(move || {
            build()
                .block_on(async { timeout(PATIENCE, server.established()).await.map(Result::err) })
        });
        drop(runtime);
        let told = waiting.join().unwrap().expect("it hangs");
        assert_eq!(told, Some(CloseOutcome::Failed(FailReason::Closed)), "{kind}");
    }
}

#[test]
fn a_connection_without_tls_has_nothing_to_wait_for() {
    everywhere(async |handle, _| {
        let (near, _far) = pair();
        let connection = attach(&handle, near, &TlsRole::Plain);
        assert_eq!(connection.established().await, Ok(None));
        assert_eq!(connection.tls(), None);
    });
}

/// Where the kernel has no TLS, why it is not used.
#[test]
fn it_is_known_why_the_kernel_does_not_have_the_records() {
    everywhere(async |handle, _| {
        let (near, far) = pair();
        let mut options = AttachOptions::default();
        options.offload = Some(OffloadWish::Prefer);
        let server = handle.attach_tls(near.into(), &options, &TlsRole::Server).expect("attaches");
        let _client = attach(&handle, far, &client());
        let tls = server.established().await.expect("is established").expect("is TLS");
        let is_all_kernels = [tls.transmit, tls.receive] == [Transport::KernelTls; 2];
        assert_eq!(tls.declined.is_none(), is_all_kernels, "{tls:?}");
    });
}

#[test]
fn memory_that_comes_free_under_tls_makes_room() {
    for &kind in BACKENDS.iter() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let test = async {
            let mut config = DriverConfig::default();
            config.max_memory = 8 << 20;
            let backend = TlsBackend::new(plain(kind), provider(&TlsTerms::default()), options());
            let handle = spawn(&backend, &config).expect("spawns");
            let (near, far) = pair();
            let hog = attach(&handle, near, &TlsRole::Server);
            let unread = attach(&handle, far, &client());
            unread.established().await.expect("is established");
            drop(hog.send(vec![1; 16 << 20].into(), Watch::NONE).expect("one always is taken"));
            let (near, _far) = pair();
            let connection = attach(&handle, near, &TlsRole::Server);
            let refused = connection.send(content(9).into(), Watch::NONE).expect_err("is full");
            assert!(matches!(refused.reason, RefuseReason::BackPressure { .. }), "{refused}");
            hog.abort();
            let mut payload = refused.value;
            loop {
                connection.writable().await.expect("it is open");
                match connection.send(payload, Watch::NONE) {
                    Ok(_) => break,
                    Err(refused) => payload = refused.value,
                }
            }
        };
        let done = runtime.unwrap().block_on(async { timeout(PATIENCE, test).await });
        done.unwrap_or_else(|_| panic!("{kind}: hangs"));
    }
}

/// A driver with TLS makes a server's connection of what is attached without a role.
#[test]
fn what_is_attached_without_a_role_is_established_too() {
    everywhere(async |handle, version| {
        let (near, far) = pair();
        let server = handle.attach(near.into(), &AttachOptions::default()).expect("attaches");
        let client = attach(&handle, far, &client());
        let (known, _) = tokio::join!(server.established(), client.established());
        assert_eq!(known.expect("is established").expect("is TLS").version, version);
        let (near, _far) = pair();
        let plain = attach(&handle, near, &TlsRole::Plain);
        assert_eq!(plain.established().await.expect("is there"), None);
    });
}

/// Whoever was refused for want of a place hears when there is one, watched or not.
#[test]
fn there_is_room_again_for_what_nobody_watches() {
    const LEN: usize = 60_000;
    const MANY: usize = 100;
    everywhere(async |handle, _| {
        let (near, far) = pair();
        let mut options = AttachOptions::default();
        options.max_transfers = 4;
        let server = handle.attach(near.into(), &options).expect("attaches");
        let mut peer = attach(&handle, far, &client());
        let sending = async {
            for _ in 0..MANY {
                let mut payload = content(LEN).into();
                while let Err(refused) = server.send(payload, Watch::NONE) {
                    payload = refused.value;
                    server.writable().await.expect("goes on");
                }
            }
        };
        let receiving = async {
            let mut got = 0;
            while got < MANY * LEN {
                got += peer.receive().await.expect("goes on").expect("no end yet").len();
            }
        };
        tokio::join!(sending, receiving);
    });
}
