//! Drivers with TLS, and peers that speak it: rustls, blocking, in a thread.

use lastbyte::{
    AttachOptions, Backend, BackendKind, Choice, CloseOutcome, Completion, ConnectionId, Driver,
    DriverConfig, Event, EventQueue, FileRange, FileSource, OffloadWish, Payload, Received,
    Restrictions, Stage, TlsCipher, TlsRole, TlsVersion,
};
use lastbyte_backends::tls::{Rustls, TlsBackend, TlsOptions, TlsProvider, TlsTerms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use std::cell::Cell;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Every backend of this build that this kernel has.
pub(crate) static BACKENDS: LazyLock<Vec<BackendKind>> = LazyLock::new(|| {
    let opens = |kind: &BackendKind| {
        let opened = lastbyte_backends::open(Choice::Only(*kind), &Restrictions::none());
        opened.inspect_err(|error| println!("n/a: {error}")).is_ok()
    };
    lastbyte_backends::BUILT.iter().copied().filter(opens).collect()
});
pub(crate) const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];
pub(crate) const CIPHERS: [TlsCipher; 3] =
    [TlsCipher::Aes128Gcm, TlsCipher::Aes256Gcm, TlsCipher::ChaCha20Poly1305];

/// Long enough for anything that happens at all, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate for `localhost`, and its key.
pub(crate) static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("makes one");
    Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
});

pub(crate) fn terms(versions: &[TlsVersion], ciphers: &[TlsCipher]) -> TlsTerms {
    TlsTerms { versions: versions.to_vec(), ciphers: ciphers.to_vec(), ..TlsTerms::default() }
}

/// Both roles, with [`IDENTITY`].
pub(crate) fn provider(terms: &TlsTerms) -> Arc<dyn TlsProvider> {
    let (certificate, key) = (IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes());
    let provider = Rustls::new().with_server(certificate, key, terms).expect("a server");
    Arc::new(provider.with_client(certificate, terms).expect("a client"))
}

thread_local! {
    static WISH: Cell<OffloadWish> = const { Cell::new(OffloadWish::Never) };
}

/// Lets `test` run with this wish instead of with none for kernel TLS.
pub(crate) fn wishing(wish: OffloadWish, test: impl FnOnce()) {
    WISH.set(wish);
    test();
    WISH.set(OffloadWish::Never);
}

/// The usual options, with what is wished for.
pub(crate) fn options() -> TlsOptions {
    let mut options = TlsOptions::default();
    options.offload = WISH.get();
    options
}

pub(crate) fn plain(kind: BackendKind) -> Arc<dyn Backend> {
    lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()).expect("opens")
}

/// A driver with TLS and what it has to say.
pub(crate) struct World {
    pub(crate) driver: Box<dyn Driver>,
    queue: EventQueue,
}

impl World {
    pub(crate) fn new(kind: BackendKind) -> Self {
        let provider = provider(&TlsTerms::default());
        Self::with(plain(kind), provider, options(), &DriverConfig::default())
    }

    pub(crate) fn with(
        inner: Arc<dyn Backend>,
        provider: Arc<dyn TlsProvider>,
        options: TlsOptions,
        config: &DriverConfig,
    ) -> Self {
        let backend = TlsBackend::new(inner, provider, options);
        let queue = EventQueue::default();
        let driver = backend.driver(config, Box::new(queue.sink())).expect("a driver");
        Self { driver, queue }
    }

    pub(crate) fn attach(&mut self, near: TcpStream) -> ConnectionId {
        self.attach_as(near, &TlsRole::Server)
    }

    pub(crate) fn attach_as(&mut self, near: TcpStream, role: &TlsRole) -> ConnectionId {
        let options = AttachOptions::default();
        self.driver.attach_tls(near.into(), &options, role).expect("attaches").connection
    }

    /// One turn, and what it said.
    pub(crate) fn turn(&mut self) -> Vec<Event> {
        self.turn_for(Duration::from_millis(50))
    }

    pub(crate) fn turn_for(&mut self, wait: Duration) -> Vec<Event> {
        self.driver.turn(Some(wait)).expect("turns");
        std::iter::from_fn(|| self.queue.pop()).collect()
    }

    /// Turns until `done` with all that was said meanwhile.
    pub(crate) fn until(&mut self, mut done: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
        let end = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        while !done(&events) {
            assert!(Instant::now() < end, "nothing more happens after {events:?}");
            events.extend(self.turn());
        }
        events
    }

    /// Reads until `len` bytes have come, or the end; what came, and how it
    /// ended.
    pub(crate) fn read(&mut self, id: ConnectionId, len: usize) -> (Vec<u8>, Option<Received>) {
        let end = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        self.driver.receive(id).expect("receives");
        loop {
            assert!(Instant::now() < end, "nothing more comes after {} bytes", got.len());
            for event in self.turn() {
                match event {
                    Event::Received { received: Received::Data(data), .. } => {
                        got.extend_from_slice(&data);
                        if got.len() >= len {
                            return (got, None);
                        }
                        self.driver.receive(id).expect("receives");
                    }
                    Event::Received { received, .. } => return (got, Some(received)),
                    Event::Closed { outcome, .. } => panic!("{outcome:?}"),
                    _ => {}
                }
            }
        }
    }

    /// Turns until the connection is closed; how.
    pub(crate) fn outcome(&mut self) -> CloseOutcome {
        let events = self.until(|events| events.iter().any(is_closed));
        outcome_in(&events)
    }

    pub(crate) fn close(&mut self, id: ConnectionId) -> CloseOutcome {
        self.driver.close(id, PATIENCE).expect("closes");
        self.outcome()
    }
}

pub(crate) fn is_closed(event: &Event) -> bool {
    matches!(event, Event::Closed { .. })
}

pub(crate) fn outcome_in(events: &[Event]) -> CloseOutcome {
    let outcome = events.iter().find_map(|event| match event {
        Event::Closed { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    outcome.expect("it was closed")
}

/// The completions of `stage`, in order.
pub(crate) fn reached(events: &[Event], stage: Stage) -> Vec<&Completion> {
    let completions = events.iter().filter_map(|event| match event {
        Event::Transfer(completion) => Some(completion),
        _ => None,
    });
    completions.filter(|completion| completion.stage() == stage).collect()
}

/// Two ends of a connection: what a driver gets, and its peer's, which takes no
/// more than 128 KiB until it reads.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let far = far.expect("a socket");
    far.set_recv_buffer_size(64 << 10).expect("a receive buffer");
    far.connect(&listener.local_addr().expect("an address").into()).expect("connects");
    let far: TcpStream = far.into();
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    far.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    (listener.accept().expect("accepts").0, far)
}

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// A rustls client on `far`; the handshake is made by its first read or write.
pub(crate) fn client(far: TcpStream, version: TlsVersion) -> Client {
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).expect("reads");
    roots.add(own).expect("trusts");
    let version = match version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        _ => &rustls::version::TLS13,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), far)
}

/// A rustls server's configuration, with [`IDENTITY`].
pub(crate) fn server_config() -> Arc<ServerConfig> {
    let own = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).expect("reads");
    let key = PrivateKeyDer::from_pem_slice(IDENTITY.key.as_bytes()).expect("reads");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own], key);
    Arc::new(config.expect("a certificate"))
}

/// Bytes that repeat at no power of two.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

/// The first `len` bytes of [`content`] as memory, as a file, and in more pieces than one
/// call takes.
pub(crate) fn payloads(len: usize) -> [(&'static str, Payload); 3] {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&content(len)).expect("writes");
    let file: Arc<dyn FileSource> = Arc::new(file);
    let pieces =
        content(len).chunks(4 << 10).fold(Payload::new(), |all, piece| all.with(piece.to_vec()));
    [
        ("memory", content(len).into()),
        ("file", FileRange::new(file, 0, len as u64).into()),
        ("pieces", pieces),
    ]
}
