//! The ciphertext of a later write never gets into one that is in flight.

use crate::world::{BACKENDS, Client, World, client, content, pair, plain, provider, reached};
use bytes::Bytes;
use lastbyte::{
    AttachOptions, Attached, Backend, BackendKind, CompletionSink, ConnectionId, Counters, Driver,
    DriverConfig, DriverError, ListenerId, Part, Payload, RefuseReason, Refused, Report, Socket,
    Stage, Time, TlsVersion, TransferId, Turn, Wake, Watch,
};
use lastbyte_backends::tls::{TlsOptions, TlsTerms};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const STALLED: usize = 4;
const LEN: usize = 2_000_000;
const WRITES: usize = 1000;
const WRITE: usize = 20_000;

#[test]
fn a_thousand_writes_leave_what_is_in_flight_alone() {
    for kind in with_zero_copy() {
        assert_eq!(scenario(plain(kind)), Ok(()), "{kind}");
    }
}

/// The same with buffers that are used again as soon as they were written: the
/// scenario shows that.
#[test]
fn the_scenario_notices_buffers_that_come_back_early() {
    for kind in with_zero_copy() {
        let early = Arc::new(EarlyReuse(plain(kind)));
        let error = scenario(early).expect_err("records are overwritten, and nobody notices");
        assert!(error.contains("decrypt"), "{kind}: {error}");
    }
}

/// The fallback copies everything while it is called.
fn with_zero_copy() -> impl Iterator<Item = BackendKind> {
    BACKENDS.iter().copied().filter(|kind| *kind != BackendKind::Fallback)
}

/// Zero-copy sends to peers that do not read, a thousand writes on the same
/// connections and on others, and only then all is read. The error is what a
/// peer says.
fn scenario(inner: Arc<dyn Backend>) -> Result<(), String> {
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 10_000;
    let provider = provider(&TlsTerms::default());
    let mut world = World::with(inner, provider, TlsOptions::default(), &config);
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let (near, far) = pair();
        let id = world.attach(near);
        let peer = shake_hands(&mut world, far);
        world.driver.submit(id, content(LEN).into(), Watch::ACKED).expect("submits");
        stalled.push((id, peer));
    }
    for _ in 0..20 {
        world.turn();
    }
    assert!(world.driver.counters().pinned_bytes > 100_000, "the kernel has no memory of ours");
    let (near, far) = pair();
    let busy = world.attach(near);
    let reading = read_in_thread(shake_hands(&mut world, far), WRITES * WRITE);
    let (mut sent, mut acked) = (0, 0);
    while acked < WRITES {
        if sent < WRITES && sent - acked < 50 {
            world.driver.submit(busy, content(WRITE).into(), Watch::ACKED).expect("submits");
            sent += 1;
            if sent % STALLED == 0 {
                for (id, _) in &stalled {
                    world.driver.submit(*id, content(10).into(), Watch::ACKED).expect("submits");
                }
            }
        }
        let events = world.turn_for(Duration::from_millis(1));
        acked += reached(&events, Stage::Acked).iter().filter(|c| c.connection == busy).count();
        if events.iter().any(crate::world::is_closed) || reading.is_finished() {
            break;
        }
    }
    let peers: Vec<_> = stalled
        .into_iter()
        .map(|(_, peer)| read_in_thread(peer, LEN + WRITES / STALLED * 10))
        .chain([reading])
        .collect();
    world.until(|_| peers.iter().all(JoinHandle::is_finished));
    let mut result = Ok(());
    for (n, peer) in peers.into_iter().enumerate() {
        let got = peer.join().expect("no panic");
        result = result.and(got.and_then(|got| {
            let expected = if n == STALLED {
                content(WRITE).repeat(WRITES)
            } else {
                [content(LEN), content(10).repeat(WRITES / STALLED)].concat()
            };
            if got == expected { Ok(()) } else { Err("it came out different".to_owned()) }
        }));
    }
    result
}

fn shake_hands(world: &mut World, far: std::net::TcpStream) -> Client {
    let shaking = thread::spawn(move || {
        let mut peer = client(far, TlsVersion::Tls13);
        while peer.conn.is_handshaking() {
            peer.conn.complete_io(&mut peer.sock).expect("shakes hands");
        }
        peer
    });
    world.until(|_| shaking.is_finished());
    shaking.join().expect("no panic")
}

fn read_in_thread(mut peer: Client, len: usize) -> JoinHandle<Result<Vec<u8>, String>> {
    thread::spawn(move || {
        let mut got = vec![0; len];
        peer.read_exact(&mut got).map_err(|error| format!("{error:?}").to_lowercase())?;
        Ok(got)
    })
}

/// A backend that breaks the rule: what is submitted is copied into one of a few
/// buffers that are used in turn, in flight or not.
#[derive(Debug)]
struct EarlyReuse(Arc<dyn Backend>);

const SLOTS: usize = 4;
const SLOT: usize = 1 << 19;

impl Backend for EarlyReuse {
    fn kind(&self) -> BackendKind {
        self.0.kind()
    }

    fn report(&self) -> &Report {
        self.0.report()
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        let inner = self.0.driver(config, sink)?;
        let memory = Box::leak(vec![0_u8; SLOTS * SLOT].into_boxed_slice()).as_mut_ptr();
        Ok(Box::new(EarlyReuseDriver { inner, memory, next: 0 }))
    }

    fn movable_driver(
        &self,
        _: &DriverConfig,
        _: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        Err(DriverError { doing: "moving a mutant", errno: 0 })
    }
}

#[derive(Debug)]
struct EarlyReuseDriver {
    inner: Box<dyn Driver>,
    memory: *mut u8,
    next: usize,
}

impl EarlyReuseDriver {
    fn reuse(&mut self, payload: &Payload) -> Payload {
        let mut bytes = Vec::new();
        for part in payload.remaining(0) {
            match part {
                Part::Memory(part) => bytes.extend_from_slice(part),
                Part::File { .. } => panic!("a file reaches the inner driver"),
            }
        }
        assert!(bytes.len() <= SLOT);
        let at = self.next * SLOT;
        self.next = (self.next + 1) % SLOTS;
        let slot = self.memory.wrapping_add(at);
        // SAFETY: the memory is leaked and this long, and nobody else writes to
        // it. That the kernel may be reading it, on behalf of an earlier
        // payload, is the fault that is put here on purpose.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), slot, bytes.len()) };
        // SAFETY: as above, and it was just written. This process reads it no
        // more, the kernel does, in a system call.
        let reused = unsafe { std::slice::from_raw_parts(slot, bytes.len()) };
        Payload::from(Bytes::from_static(reused))
    }
}

impl Driver for EarlyReuseDriver {
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        self.inner.listen(listener)
    }

    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener> {
        self.inner.unlisten(listener)
    }

    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>> {
        self.inner.attach(socket, options)
    }

    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        let reused = self.reuse(&payload);
        self.inner.submit(connection, reused, watch)
    }

    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.receive(connection)
    }

    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.finish(connection)
    }

    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason> {
        self.inner.close(connection, within)
    }

    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.abort(connection)
    }

    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError> {
        self.inner.turn(wait)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.pollable()
    }

    fn next_turn_by(&self) -> Option<Time> {
        self.inner.next_turn_by()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
