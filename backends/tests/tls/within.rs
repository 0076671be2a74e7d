//! A TLS provider that asks something of the driver that has called it, by a handle
//! of the futures: it must not wait for itself.

use crate::world::{BACKENDS, PATIENCE, client, content, options, pair, plain, provider};
use lastbyte::{
    AttachOptions, CloseOutcome, DriverConfig, NotRegistered, Pool, RefuseReason, TlsRole,
    TlsVersion, Watch,
};
use lastbyte_backends::tls::{Established, Handshake, Step, TlsBackend, TlsProvider, TlsTerms};
use lastbyte_backends::tokio::{Connection, Handle, Listener, spawn};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What there is to be asked.
struct Things {
    handle: Handle,
    listener: Option<Listener>,
    other: Option<(Connection, Arc<Pool>)>,
    asked: u32,
}

#[derive(Clone)]
struct Asking {
    inner: Arc<dyn TlsProvider>,
    things: Arc<Mutex<Option<Things>>>,
}

struct AskingHandshake(Box<dyn Handshake>, Asking);

impl Asking {
    /// Asks all there is to ask.
    fn ask(&self) {
        let mut things = self.things.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Things { handle, listener, other, asked }) = &mut *things else { return };
        *asked += 1;
        assert!(handle.counters().connections <= 2);
        assert_eq!(handle.failure(), None);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let refused = handle.listen(socket).unwrap_err();
        assert_eq!(refused.reason, RefuseReason::WithinDriver);
        let peer = TcpStream::connect(address).unwrap();
        let (socket, _) = refused.value.accept().unwrap();
        for role in [TlsRole::Plain, TlsRole::Server] {
            let socket = socket.try_clone().unwrap().into();
            let refused = handle.attach_tls(socket, &AttachOptions::default(), &role).unwrap_err();
            assert_eq!(refused.reason, RefuseReason::WithinDriver);
        }
        drop((socket, peer));
        if let Some((connection, pool)) = other.take() {
            assert_eq!(handle.register(&pool), Err(NotRegistered::WithinDriver));
            handle.unregister(&pool);
            let refused = connection.send(content(5).into(), Watch::ACKED).unwrap_err();
            assert_eq!((refused.value.len(), refused.reason), (5, RefuseReason::WithinDriver));
            // What only has to be told is done when the driver has time.
            connection.abort();
        }
        assert!(listener.take().is_none_or(|listener| listener.unlisten().is_none()));
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

impl std::fmt::Debug for AskingHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AskingHandshake")
    }
}

impl TlsProvider for Asking {
    fn begin(&self, role: &TlsRole) -> Result<Box<dyn Handshake>, String> {
        self.ask();
        Ok(Box::new(AskingHandshake(self.inner.begin(role)?, self.clone())))
    }
}

impl Handshake for AskingHandshake {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        self.1.ask();
        self.0.advance(records, out)
    }

    fn establish(self: Box<Self>) -> Result<Established, String> {
        self.1.ask();
        self.0.establish()
    }
}

/// In `attach_tls` already, or only in a turn.
#[test]
fn a_provider_may_ask_something_of_its_driver() {
    for &kind in BACKENDS.iter() {
        for from_the_start in [true, false] {
            let (done, is_done) = std::sync::mpsc::channel();
            let thread = thread::spawn(move || {
                serve(kind, from_the_start);
                done.send(()).unwrap_or_default();
            });
            let hangs = is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            assert!(!hangs, "{kind}: hangs");
            thread.join().unwrap();
        }
    }
}

fn serve(kind: lastbyte::BackendKind, from_the_start: bool) {
    let things = Arc::new(Mutex::new(None));
    let inner = provider(&TlsTerms::default());
    let provider = Asking { inner, things: Arc::clone(&things) };
    let backend = TlsBackend::new(plain(kind), Arc::new(provider), options());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = spawn(&backend, &DriverConfig::default()).expect("spawns");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = handle.listen(listener).expect("listens");
        let (near, mut other_far) = pair();
        let plain = TlsRole::Plain;
        let other = handle.attach_tls(near.into(), &AttachOptions::default(), &plain);
        let pool = Arc::new(Pool::contiguous(4096, 1));
        let mut all = Some(Things {
            handle: handle.clone(),
            listener: Some(listener),
            other: Some((other.expect("attaches"), pool)),
            asked: 0,
        });
        if from_the_start {
            *things.lock().unwrap() = all.take();
        }
        let (near, far) = pair();
        let connection =
            handle.attach_tls(near.into(), &AttachOptions::default(), &TlsRole::Server);
        let connection = connection.expect("attaches");
        if !from_the_start {
            *things.lock().unwrap() = all.take();
        }
        let peer = thread::spawn(move || {
            let mut peer = client(far, TlsVersion::Tls13);
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("the end is announced");
            got
        });
        let mut transfer = connection.send(content(9).into(), Watch::ACKED).expect("sends");
        drop(transfer.acked().await.expect("is acknowledged"));
        assert_eq!(connection.close(PATIENCE).await, CloseOutcome::Graceful);
        assert_eq!(peer.join().unwrap(), content(9));
        // What was put off is done: one was reset, and the other is closed.
        let reset = other_far.read(&mut [0]).expect_err("it is reset");
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(TcpStream::connect(address).is_err(), "somebody still listens");
        // With it goes the handle, without which the driver ends.
        let things = things.lock().unwrap().take().unwrap();
        assert!(things.asked > 1, "nothing was asked");
    });
}
