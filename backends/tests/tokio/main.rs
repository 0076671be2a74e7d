//! Futures over every backend of this build.

mod ends;
mod failing;
mod faulty;
mod halves;
mod room;

use bytes::Bytes;
use lastbyte::{
    AttachOptions, Backend, BackendKind, Choice, CloseOutcome, DriverConfig, Facility, FailReason,
    NotRegistered, Payload, Pool, RefuseReason, Restrictions, Stage, Watch,
};
use lastbyte_backends::tokio::{Connection, Ended, Handle, Listener, spawn};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const CLOSE: Duration = Duration::from_secs(10);

/// Every backend, each with a runtime of one thread and one of two.
fn everywhere() -> impl Iterator<Item = (Arc<dyn Backend>, tokio::runtime::Runtime)> {
    use tokio::runtime::Builder;
    lastbyte_backends::BUILT.iter().flat_map(|&kind| {
        let backend = lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()).unwrap();
        [Builder::new_current_thread(), Builder::new_multi_thread()].map(|mut builder| {
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            (Arc::clone(&backend), runtime)
        })
    })
}

/// Runs `test` on each of them.
fn on_each_backend<F>(test: impl Fn(Arc<dyn Backend>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for (backend, runtime) in everywhere() {
        let kind = backend.kind();
        let task = runtime.spawn(test(backend));
        runtime
            .block_on(async { timeout(PATIENCE, task).await })
            .unwrap_or_else(|_| panic!("{kind}: hangs"))
            .unwrap();
    }
}

/// A connection, and its peer.
/// What a thread keeps for itself is dropped when little else is left of it.
#[test]
fn a_connection_can_be_dropped_by_a_thread_that_ends() {
    use std::cell::RefCell;
    thread_local! {
        static KEPT: RefCell<Option<Connection>> = const { RefCell::new(None) };
    }
    for (backend, runtime) in everywhere() {
        let handle = runtime.block_on(async { handle(&*backend) });
        let (connection, mut peer) = runtime.block_on(pair(&handle));
        let thread = std::thread::spawn(move || {
            KEPT.with_borrow_mut(|kept| *kept = Some(connection));
            // Whatever asking takes of the thread begins after that, and ends before.
            KEPT.with_borrow(|kept| {
                drop(kept.as_ref().unwrap().send(b"x".to_vec().into(), Watch::NONE).unwrap());
            });
        });
        thread.join().unwrap();
        let mut seen = Vec::new();
        let end = runtime.block_on(async {
            tokio::task::spawn_blocking(move || peer.read_to_end(&mut seen).map(|_| seen)).await
        });
        assert_eq!(end.unwrap().unwrap(), b"x");
    }
}

async fn pair(handle: &Handle) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut listener = handle.listen(listener).unwrap();
    let socket = listener.accept().await.unwrap();
    (handle.attach(socket, &AttachOptions::default()).unwrap(), peer)
}

fn handle(backend: &dyn Backend) -> Handle {
    spawn(backend, &DriverConfig::default()).unwrap()
}

/// Memory that says when it is dropped.
struct Tracked(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

fn tracked(len: usize) -> (Payload, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    let memory = Bytes::from_owner(Tracked(vec![7; len], Arc::clone(&dropped)));
    (Payload::from(memory), dropped)
}

#[test]
fn stages_are_awaited_in_any_order_and_closing_tells_the_outcome() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, mut peer) = pair(&handle).await;
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        let mut transfer = connection.send(vec![1; 300_000].into(), Watch::ALL).unwrap();
        let acked = transfer.acked().await.unwrap();
        let queued = transfer.queued().await.unwrap();
        assert!(queued.at.monotonic <= acked.at.monotonic);
        assert_eq!(transfer.released().await.unwrap().stage(), Stage::Released);
        assert_eq!(transfer.next().await.unwrap().stage(), Stage::Transmitted);
        assert!(transfer.next().await.is_none());
        assert!(matches!(transfer.acked().await, Err(Ended::NotTold)));
        assert_eq!(connection.close(CLOSE).await, CloseOutcome::Graceful);
        assert_eq!(reader.join().unwrap(), 300_000);
    });
}

#[test]
fn a_pool_is_registered_where_the_backend_can() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let pool = Pool::contiguous(64 << 10, 2);
        let can = backend.kind() == BackendKind::IoUring
            && backend.report().has(Facility::UringFixedBuffers)
            && backend.report().has(Facility::UringZeroCopy);
        let registered = handle.register(&pool);
        assert_eq!(registered, if can { Ok(()) } else { Err(NotRegistered::Unsupported) });
        let (connection, mut peer) = pair(&handle).await;
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        for content in [1, 2, 3] {
            let mut buffer = pool.take();
            buffer.fill_from(&[content; 64 << 10]);
            let mut transfer = connection.send(buffer.into(), Watch::ACKED).unwrap();
            drop(transfer.acked().await.unwrap());
            drop(transfer.released().await.unwrap());
            assert_eq!(pool.idle(), 2);
        }
        assert_eq!(handle.counters().sent_registered_bytes > 0, can);
        handle.unregister(&pool);
        assert_eq!(handle.counters().registered_bytes, 0);
        assert_eq!(connection.close(CLOSE).await, CloseOutcome::Graceful);
        let all = reader.join().unwrap();
        let expected = [1, 2, 3].map(|content| vec![content; 64 << 10]).concat();
        assert!(all == expected, "other bytes arrived");
    });
}

#[test]
fn input_that_comes_after_a_receive_was_dropped_is_the_next_ones() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (mut connection, mut peer) = pair(&handle).await;
        let early = timeout(Duration::from_millis(20), connection.receive()).await;
        assert!(early.is_err(), "nothing was sent");
        peer.write_all(b"one").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(&*connection.receive().await.unwrap().unwrap(), b"one");
        peer.write_all(b"two").unwrap();
        assert_eq!(&*connection.receive().await.unwrap().unwrap(), b"two");
        drop(peer);
        assert!(connection.receive().await.unwrap().is_none());
        assert!(connection.receive().await.unwrap().is_none());
    });
}

#[test]
fn a_dropped_transfer_keeps_its_memory_until_it_is_released() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, mut peer) = pair(&handle).await;
        let len = 64 << 20;
        let (payload, dropped) = tracked(len);
        drop(connection.send(payload, Watch::ACKED).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!dropped.load(Ordering::SeqCst), "the peer has not read yet");
        let closed = tokio::spawn(connection.close(CLOSE));
        let all = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let all = all.await.unwrap();
        assert!(all.len() == len && all.iter().all(|&byte| byte == 7));
        assert_eq!(closed.await.unwrap(), CloseOutcome::Graceful);
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_reset_ends_what_is_awaited() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (mut connection, peer) = pair(&handle).await;
        let (payload, dropped) = tracked(64 << 20);
        let mut transfer = connection.send(payload, Watch::ACKED).unwrap();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let Err(Ended::Failed(failure)) = transfer.acked().await else { panic!("it was reset") };
        assert_eq!(failure.reason, FailReason::Reset);
        drop(transfer.released().await.unwrap());
        assert!(dropped.load(Ordering::SeqCst));
        let outcome = connection.receive().await.unwrap_err();
        assert_eq!(outcome, CloseOutcome::Failed(FailReason::Reset));
    });
}

#[test]
fn how_a_connection_ended_is_told_as_often_as_it_is_asked() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let reset = CloseOutcome::Failed(FailReason::Reset);
        for close in [false, true] {
            let (mut connection, peer) = pair(&handle).await;
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            assert_eq!(connection.receive().await.unwrap_err(), reset);
            if !close {
                assert_eq!(connection.receive().await.unwrap_err(), reset);
                assert_eq!(connection.receive().await.unwrap_err(), reset);
            }
            let refused = connection.send(b"late".as_slice().into(), Watch::NONE).unwrap_err();
            assert_eq!(refused.value.len(), 4);
            assert_eq!(connection.close(CLOSE).await, reset);
        }
    });
}

#[test]
fn an_aborted_connection_fails_and_a_refusal_returns_the_payload() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, _peer) = pair(&handle).await;
        let refused = connection.send(Payload::new(), Watch::ACKED).unwrap_err();
        assert!(refused.value.is_empty());
        let (payload, dropped) = tracked(64 << 20);
        let mut transfer = connection.send(payload, Watch::ACKED).unwrap();
        connection.abort();
        let Err(Ended::Failed(failure)) = transfer.acked().await else { panic!("it was aborted") };
        assert_eq!(failure.reason, FailReason::Cancelled);
        drop(transfer.released().await.unwrap());
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_driver_whose_users_are_gone_finishes_and_ends() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, mut peer) = pair(&handle).await;
        let (payload, dropped) = tracked(1 << 20);
        drop(connection.send(payload, Watch::NONE).unwrap());
        drop((connection, handle));
        // Only the task is left, and the peer gets all of it.
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        assert_eq!(read.await.unwrap(), 1 << 20);
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(dropped.load(Ordering::SeqCst));
    });
}

/// Runs `test` with each of them in a thread of its own: what hangs, hangs there.
fn beside_each_backend(test: fn(Arc<dyn Backend>, tokio::runtime::Runtime)) {
    for (backend, runtime) in everywhere() {
        let kind = backend.kind();
        let (done, is_done) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            test(backend, runtime);
            done.send(()).unwrap_or_default();
        });
        let hangs = is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        assert!(!hangs, "{kind}: hangs");
        thread.join().unwrap();
    }
}

/// Runs `test` on another runtime than the one that turns the driver.
fn elsewhere(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await }).expect("it hangs");
}

#[test]
fn what_is_awaited_ends_with_the_runtime_that_turned_the_driver() {
    beside_each_backend(|backend, runtime| {
        let (handle, mut listener, mut connection, peer, transfer, dropped) =
            runtime.block_on(async {
                let handle = handle(&*backend);
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let listener = handle.listen(listener).unwrap();
                let (connection, peer) = pair(&handle).await;
                let (payload, dropped) = tracked(64 << 20);
                let transfer = connection.send(payload, Watch::ACKED).unwrap();
                (handle, listener, connection, peer, transfer, dropped)
            });
        let mut transfer = transfer;
        let before = handle.counters();
        drop(runtime);
        elsewhere(async {
            let Err(Ended::Failed(failure)) = transfer.acked().await else { panic!("it is over") };
            assert_eq!(failure.reason, FailReason::Closed);
            drop(transfer.released().await.unwrap());
            assert!(dropped.load(Ordering::SeqCst));
            let closed = CloseOutcome::Failed(FailReason::Closed);
            assert_eq!(connection.receive().await.unwrap_err(), closed);
            assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NotConnected);
            let refused = connection.send(b"late".as_slice().into(), Watch::NONE).unwrap_err();
            assert_eq!((refused.value.len(), refused.reason), (4, RefuseReason::DriverGone));
            let refused = handle.listen(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();
            assert_eq!(refused.reason, RefuseReason::DriverGone);
            let options = AttachOptions::default();
            let refused = handle.attach(peer.into(), &options).unwrap_err();
            assert_eq!(refused.reason, RefuseReason::DriverGone);
            let pool = Pool::contiguous(4096, 1);
            assert_eq!(handle.register(&pool), Err(NotRegistered::DriverGone));
            handle.unregister(&pool);
            assert!(handle.counters().bytes.iter().sum::<u64>() >= before.bytes.iter().sum());
            assert!(listener.unlisten().is_none());
            assert_eq!(connection.close(CLOSE).await, closed);
        });
    });
}

#[test]
fn a_driver_that_was_never_turned_ends_with_its_runtime_too() {
    beside_each_backend(|backend, runtime| {
        let entered = runtime.enter();
        let handle = handle(&*backend);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let options = AttachOptions::default();
        let mut connection = handle.attach(socket.into(), &options).unwrap();
        drop(entered);
        drop(runtime);
        elsewhere(async {
            let outcome = connection.receive().await.unwrap_err();
            assert_eq!(outcome, CloseOutcome::Failed(FailReason::Closed));
        });
    });
}

/// Memory whose drop panics, and so the turn that drops it.
struct Panicking;

impl AsRef<[u8]> for Panicking {
    fn as_ref(&self) -> &[u8] {
        b"boo"
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as it is meant to");
    }
}

#[test]
fn what_is_awaited_ends_when_a_turn_panics() {
    beside_each_backend(|backend, runtime| {
        runtime.block_on(async {
            let handle = handle(&*backend);
            let (mut connection, _peer) = pair(&handle).await;
            let (payload, dropped) = tracked(64 << 20);
            let mut transfer = connection.send(payload, Watch::ACKED).unwrap();
            let (other, other_peer) = pair(&handle).await;
            // Behind what the peer does not read, so that it is still unsent when
            // nobody wants its news any more.
            drop(other.send(vec![1; 32 << 20].into(), Watch::NONE).unwrap());
            let payload = Payload::from(Bytes::from_owner(Panicking));
            drop(other.send(payload, Watch::NONE).unwrap());
            socket2::SockRef::from(&other_peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(other_peer);
            let closed = CloseOutcome::Failed(FailReason::Closed);
            assert_eq!(connection.receive().await.unwrap_err(), closed);
            let Err(Ended::Failed(failure)) = transfer.acked().await else { panic!("it is over") };
            assert_eq!(failure.reason, FailReason::Closed);
            drop(transfer.released().await.unwrap());
            assert!(dropped.load(Ordering::SeqCst));
            assert_eq!(connection.close(CLOSE).await, closed);
        });
    });
}

/// What a call brings about is delivered by that call, and so is the panic.
#[test]
fn a_panic_of_memory_that_a_call_drops_ends_nothing_else() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (other, _other_peer) = pair(&handle).await;
        drop(other.send(vec![1; 32 << 20].into(), Watch::NONE).unwrap());
        let payload = Payload::from(Bytes::from_owner(Panicking));
        drop(other.send(payload, Watch::NONE).unwrap());
        let aborted = catch_unwind(AssertUnwindSafe(|| other.abort()));
        // Or else by the turn that the call asks for, and then it ends that.
        let (connection, mut peer) = match aborted {
            Err(_) => pair(&handle).await,
            Ok(()) => return,
        };
        let mut transfer = connection.send(b"alive".as_slice().into(), Watch::ACKED).unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        drop(transfer.acked().await.unwrap());
    });
}

/// Memory whose drop asks something of its driver.
struct Asking(Handle, std::sync::mpsc::Sender<u64>);

impl AsRef<[u8]> for Asking {
    fn as_ref(&self) -> &[u8] {
        b"hello"
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.1.send(self.0.counters().connections).unwrap_or_default();
    }
}

#[test]
fn memory_that_is_dropped_may_ask_something_of_the_driver() {
    beside_each_backend(|backend, runtime| {
        runtime.block_on(async {
            let handle = handle(&*backend);
            let (connection, _peer) = pair(&handle).await;
            let (dropped, is_dropped) = std::sync::mpsc::channel();
            // Behind what the peer does not read, so that it is still unsent when
            // nobody wants its news any more.
            drop(connection.send(vec![1; 32 << 20].into(), Watch::NONE).unwrap());
            let payload = Payload::from(Bytes::from_owner(Asking(handle.clone(), dropped)));
            drop(connection.send(payload, Watch::NONE).unwrap());
            connection.abort();
            let asked = tokio::task::spawn_blocking(move || is_dropped.recv_timeout(PATIENCE / 2));
            assert!(asked.await.unwrap().is_ok());
        });
    });
}

/// Peers that come at once: less than the kernel has room for.
const CROWD: u8 = 120;

/// Many peers that the driver has had time to accept.
async fn crowd(address: SocketAddr, peers: u8) -> Vec<TcpStream> {
    let connect = move || (0..peers).map(|_| TcpStream::connect(address).unwrap()).collect();
    let peers = tokio::task::spawn_blocking(connect).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    peers
}

fn listen(handle: &Handle) -> (Listener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (handle.listen(socket).unwrap(), address)
}

fn hesitant(backend: &dyn Backend) -> Handle {
    let mut config = DriverConfig::default();
    config.accept_burst = 8;
    spawn(backend, &config).unwrap()
}

#[test]
fn connections_that_nobody_takes_wait_in_the_kernel() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = hesitant(&*backend);
        let (listener, address) = listen(&handle);
        let mut peers = crowd(address, CROWD).await;
        peers.append(&mut crowd(address, 40).await);
        let listener = listener.unlisten().unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).collect();
        // 64 and a burst. A ring's kernel accepts all that are there in one go, but
        // not those that come when it was stopped.
        let is_ring = backend.kind() == BackendKind::IoUring;
        let most = if is_ring { usize::from(CROWD) } else { 64 + 8 };
        let accepted = peers.len() - waiting.len();
        assert!(accepted <= most, "{accepted} were accepted");
        // Those were closed, and only those.
        let mut closed = 0;
        for peer in &mut peers {
            peer.set_nonblocking(true).unwrap();
            let left = Instant::now() + PATIENCE / 2;
            let is_waiting =
                |(_, address): &(_, SocketAddr)| *address == peer.local_addr().unwrap();
            if !waiting.iter().any(is_waiting) {
                while peer.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
                {
                    assert!(Instant::now() < left, "one that was accepted is still open");
                }
                closed += 1;
            }
        }
        assert_eq!(closed, accepted);
    });
}

#[test]
fn connections_that_had_to_wait_are_all_accepted_in_the_end() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = hesitant(&*backend);
        let (mut listener, address) = listen(&handle);
        let peers = crowd(address, CROWD).await;
        let mut expected: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        let mut accepted = Vec::new();
        for n in 0..CROWD {
            // Now and then it had time to be crowded again.
            if n % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let early = timeout(Duration::ZERO, listener.accept()).await;
                accepted.extend(early.into_iter().map(|socket| socket.unwrap()));
            }
            if accepted.len() == usize::from(CROWD) {
                break;
            }
            accepted.push(listener.accept().await.unwrap());
        }
        let mut addresses: Vec<_> =
            accepted.iter().map(|socket| socket.stream().peer_addr().unwrap()).collect();
        addresses.sort();
        expected.sort();
        assert_eq!(addresses, expected);
        let more = timeout(Duration::from_millis(20), listener.accept()).await;
        assert!(more.is_err(), "accepted twice");
        drop(listener);
    });
}

#[test]
fn many_connections_are_served_at_once() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut listener = handle.listen(socket).unwrap();
        let clients = tokio::task::spawn_blocking(move || {
            let mut clients: Vec<_> =
                (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
            for (n, client) in clients.iter_mut().enumerate() {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.write_all(&[u8::try_from(n).unwrap()]).unwrap();
            }
            for (n, client) in clients.iter_mut().enumerate() {
                let mut all = Vec::new();
                client.read_to_end(&mut all).unwrap();
                assert_eq!(all, vec![u8::try_from(n).unwrap(); 10_000]);
            }
        });
        let mut servers = Vec::new();
        for _ in 0..100 {
            let socket = listener.accept().await.unwrap();
            let mut connection = handle.attach(socket, &AttachOptions::default()).unwrap();
            servers.push(tokio::spawn(async move {
                let byte = connection.receive().await.unwrap().unwrap()[0];
                let mut transfer =
                    connection.send(vec![byte; 10_000].into(), Watch::ACKED).unwrap();
                drop(transfer.acked().await.unwrap());
                connection.close(CLOSE).await
            }));
        }
        clients.await.unwrap();
        for server in servers {
            assert_eq!(server.await.unwrap(), CloseOutcome::Graceful);
        }
        assert!(listener.unlisten().is_some());
    });
}
