//! Who shows which certificate, and what is known of the peer afterwards.

use crate::world::{
    BACKENDS, IDENTITY, VERSIONS, World, is_closed, outcome_in, pair, plain, terms,
};
use lastbyte::{
    CloseOutcome, DriverConfig, Event, FailReason, Payload, Stage, TlsFailure, TlsPeer, TlsRole,
    TlsVersion, Watch,
};
use lastbyte_backends::tls::{ClientCertificates, Rustls, TlsOptions, TlsProvider, TlsTerms};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::thread;

/// A certificate and its key, as PEM.
#[derive(Clone)]
struct Shown {
    certificate: String,
    key: String,
}

impl Shown {
    fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("reads").to_vec()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("reads")
    }
}

/// An authority that signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signs").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs").pem();
        Shown { certificate, key: key.serialize_pem() }
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("reads");
        store.add(own).expect("trusts");
        store
    }
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("ours"));

fn server(terms: &TlsTerms) -> Rustls {
    let (certificate, key) = (IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes());
    Rustls::new().with_server(certificate, key, terms).expect("a server")
}

fn world(provider: Rustls) -> World {
    let provider: Arc<dyn TlsProvider> = Arc::new(provider);
    World::with(plain(BACKENDS[0]), provider, TlsOptions::default(), &DriverConfig::default())
}

/// A rustls client that trusts [`IDENTITY`] and [`AUTHORITY`].
fn peer(
    far: TcpStream,
    name: &str,
    version: TlsVersion,
    own: Option<&Shown>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = AUTHORITY.store();
    let known = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).expect("reads");
    roots.add(known).expect("trusts");
    let version = match version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        _ => &rustls::version::TLS13,
    };
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(vec![own.der().into()], own.private_key())
            .expect("a certificate"),
    };
    config.alpn_protocols = vec![b"h3".to_vec(), b"echo".to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), far)
}

/// What a server that answers with a byte comes to know of `far`'s owner, or how
/// the connection ends.
fn known(world: &mut World, near: TcpStream) -> Result<Option<TlsPeer>, CloseOutcome> {
    let id = world.attach(near);
    let is_open = |event: &Event| matches!(event, Event::TlsEstablished { .. });
    let events = world.until(|events| events.iter().any(|e| is_open(e) || is_closed(e)));
    let found = events.iter().find_map(|event| match event {
        Event::TlsEstablished { tls, .. } => Some(tls.peer.as_deref().cloned()),
        _ => None,
    });
    let Some(peer) = found else { return Err(outcome_in(&events)) };
    world.driver.submit(id, Payload::from(&b"!"[..]), Watch::ACKED).expect("submits");
    world.until(|events| !crate::world::reached(events, Stage::Acked).is_empty());
    assert_eq!(world.close(id), CloseOutcome::Graceful);
    Ok(peer)
}

/// Reads a byte and the end, and says goodbye.
fn greet(mut peer: StreamOwned<ClientConnection, TcpStream>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut byte = [0];
    peer.read_exact(&mut byte)?;
    peer.conn.send_close_notify();
    peer.flush()?;
    peer.read_to_end(&mut Vec::new())?;
    let shown = peer.conn.peer_certificates().unwrap_or_default();
    Ok(shown.iter().map(|certificate| certificate.to_vec()).collect())
}

fn asking(version: TlsVersion, clients: ClientCertificates) -> TlsTerms {
    TlsTerms { clients, ..terms(&[version], &[]) }
}

fn roots() -> Vec<u8> {
    AUTHORITY.certificate.clone().into_bytes()
}

#[test]
fn a_client_shows_what_it_is_asked_for() {
    let own = AUTHORITY.sign("client.example");
    for version in VERSIONS {
        for clients in [
            ClientCertificates::Required { roots: roots() },
            ClientCertificates::Wanted { roots: roots() },
        ] {
            let mut world = world(server(&asking(version, clients)));
            let (near, far) = pair();
            let shown = own.clone();
            let greeting =
                thread::spawn(move || greet(peer(far, "localhost", version, Some(&shown))));
            let peer = known(&mut world, near).expect("is let in").expect("has shown something");
            assert_eq!(peer.certificates, [own.der()], "{version:?}");
            greeting.join().unwrap().expect("a good end");
        }
    }
}

#[test]
fn a_client_without_one_is_let_in_where_that_is_allowed() {
    for version in VERSIONS {
        for clients in [ClientCertificates::Unasked, ClientCertificates::Wanted { roots: roots() }]
        {
            let mut world = world(server(&asking(version, clients)));
            let (near, far) = pair();
            let greeting = thread::spawn(move || greet(peer(far, "localhost", version, None)));
            assert_eq!(known(&mut world, near), Ok(None), "{version:?}");
            greeting.join().unwrap().expect("a good end");
        }
    }
}

#[test]
fn who_has_none_or_a_strangers_is_turned_away_and_told_why() {
    let stranger = Authority::new("a stranger's").sign("client.example");
    for version in VERSIONS {
        for (own, told) in [(None, "CertificateRequired"), (Some(stranger.clone()), "UnknownCA")] {
            let clients = ClientCertificates::Required { roots: roots() };
            let mut world = world(server(&asking(version, clients)));
            let (near, far) = pair();
            let greeting =
                thread::spawn(move || greet(peer(far, "localhost", version, own.as_ref())));
            let outcome = known(&mut world, near).expect_err("is turned away");
            assert!(
                matches!(
                    outcome,
                    CloseOutcome::Failed(FailReason::Tls(TlsFailure::Handshake { .. }))
                ),
                "{outcome:?}"
            );
            let error = greeting.join().unwrap().expect_err("no good end").to_string();
            assert!(error.contains(told), "{version:?}: {error}");
            assert_eq!(world.driver.counters().handshakes_failed, 1);
        }
    }
}

/// A driver's own connection shows its certificate to a server that wants it.
#[test]
fn our_client_shows_its_certificate() {
    let own = AUTHORITY.sign("client.example");
    let (certificate, key) = (own.certificate.as_bytes(), own.key.as_bytes());
    let provider = Rustls::new()
        .with_client_showing(
            IDENTITY.certificate.as_bytes(),
            certificate,
            key,
            &TlsTerms::default(),
        )
        .expect("a client");
    let mut world = world(provider);
    let (near, far) = pair();
    let serving = thread::spawn(move || {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(AUTHORITY.store()),
            Arc::clone(&crypto),
        );
        let identity = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(IDENTITY.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![identity], key)
            .unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, far);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.conn.peer_certificates().map(|shown| shown[0].to_vec())
    });
    let role = TlsRole::Client { server_name: "localhost".to_owned() };
    let id = world.attach_as(near, &role);
    world.driver.submit(id, Payload::from(&b"?"[..]), Watch::ACKED).expect("submits");
    let events = world.until(|events| !crate::world::reached(events, Stage::Acked).is_empty());
    let shown = events.iter().find_map(|event| match event {
        Event::TlsEstablished { tls, .. } => tls.peer.clone(),
        _ => None,
    });
    let identity = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).unwrap();
    assert_eq!(shown.expect("servers show one").certificates, [identity.to_vec()]);
    assert_eq!(serving.join().unwrap(), Some(own.der()));
}

fn named_server() -> (Rustls, Shown, Shown) {
    let (one, two) = (AUTHORITY.sign("one.example"), AUTHORITY.sign("*.two.example"));
    let mut provider = server(&TlsTerms::default());
    for shown in [&one, &two] {
        let (certificate, key) = (shown.certificate.as_bytes(), shown.key.as_bytes());
        provider = provider.with_certificate_for_its_names(certificate, key).expect("is added");
    }
    (provider, one, two)
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let (provider, one, two) = named_server();
    let first = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).unwrap().to_vec();
    let mut world = world(provider);
    for (name, expected) in
        [("one.example", one.der()), ("a.two.example", two.der()), ("localhost", first)]
    {
        for version in VERSIONS {
            let (near, far) = pair();
            let greeting = thread::spawn(move || greet(peer(far, name, version, None)));
            assert_eq!(known(&mut world, near), Ok(None));
            assert_eq!(
                greeting.join().unwrap().expect("a good end"),
                std::slice::from_ref(&expected),
                "{name}"
            );
        }
    }
}

/// Names that no certificate has get the first, and so does who asks for none.
#[test]
fn openssl_sees_the_certificate_of_the_name() {
    let (provider, one, two) = named_server();
    let first = Shown { certificate: IDENTITY.certificate.clone(), key: IDENTITY.key.clone() };
    let mut world = world(provider);
    for (name, expected) in [
        (Some("one.example"), &one),
        (Some("ONE.example"), &one),
        (Some("b.two.example"), &two),
        (Some("two.example"), &first),
        (Some("a.b.two.example"), &first),
        (Some("nobody.example"), &first),
        (None, &first),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-showcerts", "-connect", &address]);
        match name {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is there");
        let _ = known(&mut world, listener.accept().unwrap().0);
        let printed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let expected = expected.certificate.replace('\r', "");
        assert!(printed.contains(expected.trim()), "for {name:?} came {printed}");
    }
}

/// `openssl s_client` shows what it was given where it is asked, to a server that
/// wants it and to one that insists; without one it is let in by the former.
#[test]
fn openssl_shows_its_certificate() {
    let own = AUTHORITY.sign("client.example");
    let shown = TemporaryPem::new(&own);
    for version in VERSIONS {
        for (clients, with_one, is_let_in) in [
            (ClientCertificates::Required { roots: roots() }, true, true),
            (ClientCertificates::Wanted { roots: roots() }, true, true),
            (ClientCertificates::Wanted { roots: roots() }, false, true),
            (ClientCertificates::Required { roots: roots() }, false, false),
        ] {
            let mut world = world(server(&asking(version, clients)));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut command = Command::new("openssl");
            // Until the server ends it, however it does.
            command.args(["s_client", "-ign_eof", "-connect", &address]);
            if with_one {
                command.arg("-cert").arg(&shown.0).arg("-key").arg(&shown.0);
            }
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("openssl is there");
            let came = known(&mut world, listener.accept().unwrap().0);
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            if is_let_in {
                let certificates = came.expect("is let in").map(|peer| peer.certificates);
                assert_eq!(certificates, with_one.then(|| vec![own.der()]), "{version:?}");
            } else {
                assert!(came.is_err(), "{version:?}: {came:?}");
                assert_eq!(world.driver.counters().handshakes_failed, 1);
                assert!(said.contains("certificate required"), "{version:?}: {said}");
            }
        }
    }
}

/// A file with a certificate and its key, for as long as it is needed.
struct TemporaryPem(PathBuf);

impl TemporaryPem {
    fn new(shown: &Shown) -> Self {
        let name = format!("lastbyte-certificate-{}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("{}{}", shown.certificate, shown.key)).expect("writes");
        Self(path)
    }
}

impl Drop for TemporaryPem {
    fn drop(&mut self) {
        // Whether it goes or stays, the test has said what it had to say.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_agreed_protocol_is_told() {
    let terms = TlsTerms { protocols: vec![b"echo".to_vec()], ..TlsTerms::default() };
    let mut world = world(server(&terms));
    let (near, far) = pair();
    let greeting = thread::spawn(move || greet(peer(far, "localhost", TlsVersion::Tls13, None)));
    let peer = known(&mut world, near).expect("is let in").expect("has agreed to something");
    assert_eq!(peer.protocol.as_deref(), Some(&b"echo"[..]));
    assert!(peer.certificates.is_empty());
    greeting.join().unwrap().expect("a good end");
}

#[test]
fn what_cannot_be_used_is_said() {
    let error = |result: Result<Rustls, _>| match result {
        Ok(_) => String::new(),
        Err::<_, lastbyte_backends::tls::TlsConfigError>(error) => error.to_string(),
    };
    let own = AUTHORITY.sign("client.example");
    let (certificate, key) = (own.certificate.as_bytes(), own.key.as_bytes());
    let without = Rustls::new().with_certificate_for_its_names(certificate, key);
    assert_eq!(error(without), "there is no server that could show it");
    let other = IDENTITY.key.as_bytes();
    let mixed = server(&TlsTerms::default()).with_certificate_for_its_names(certificate, other);
    assert!(error(mixed).starts_with("the certificate cannot be used: "));
    let clients = ClientCertificates::Required { roots: b"nothing".to_vec() };
    let terms = TlsTerms { clients, ..TlsTerms::default() };
    let (identity, its_key) = (IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes());
    let unread = Rustls::new().with_server(identity, its_key, &terms);
    assert_eq!(error(unread), "there is no certificate");
}
