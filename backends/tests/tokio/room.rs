//! Waiting for room after a refusal.

use crate::{PATIENCE, beside_each_backend, elsewhere, handle, on_each_backend, pair, tracked};
use lastbyte::{
    AttachOptions, Backend, CloseOutcome, DriverConfig, FailReason, Limit, Payload, RefuseReason,
    Refused, Watch,
};
use lastbyte_backends::tokio::{Connection, Handle, Sender, Transfer, spawn};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::timeout;

/// More than the sockets of both sides hold.
const MUCH: usize = 32 << 20;

async fn pair_with(handle: &Handle, options: &AttachOptions) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (socket, _) = listener.accept().unwrap();
    (handle.attach(socket.into(), options).unwrap(), peer)
}

/// A driver whose connections together may have no more than `MUCH`.
fn narrow(backend: &dyn Backend) -> Handle {
    let mut config = DriverConfig::default();
    config.max_memory = MUCH as u64;
    spawn(backend, &config).unwrap()
}

fn limit<T>(refused: &Refused<T>) -> Option<Limit> {
    match refused.reason {
        RefuseReason::BackPressure { limit, .. } => Some(limit),
        _ => None,
    }
}

/// Whether there is nothing to be told for a while.
async fn waits(sender: &Sender) -> bool {
    timeout(Duration::from_millis(30), sender.writable()).await.is_err()
}

async fn send(sender: &Sender, mut payload: Payload) -> Transfer {
    loop {
        let refused = match sender.send(payload, Watch::ACKED) {
            Ok(transfer) => return transfer,
            Err(refused) => refused,
        };
        assert!(limit(&refused).is_some(), "{refused}");
        payload = refused.value;
        sender.writable().await.unwrap();
    }
}

fn reads_all(mut peer: TcpStream) -> tokio::task::JoinHandle<usize> {
    tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all.len()
    })
}

#[test]
fn a_connection_that_was_refused_nothing_is_writable() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, _peer) = pair(&handle).await;
        assert_eq!(connection.writable().await, Ok(()));
        drop(connection.send(vec![1; MUCH].into(), Watch::NONE).unwrap());
        let refused = connection.send(Payload::new(), Watch::NONE).unwrap_err();
        assert_eq!(refused.reason, RefuseReason::Empty);
        assert_eq!(connection.writable().await, Ok(()), "this will not change");
    });
}

#[test]
fn the_end_of_a_transfer_makes_room_on_its_connection() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let mut few = AttachOptions::default();
        few.max_transfers = 1;
        let mut little = AttachOptions::default();
        little.max_memory = MUCH as u64;
        for (options, full) in
            [(few, Limit::ConnectionTransfers), (little, Limit::ConnectionMemory)]
        {
            for watch in [Watch::NONE, Watch::ACKED] {
                let (connection, peer) = pair_with(&handle, &options).await;
                let (sender, _receiver) = connection.into_split();
                drop(sender.send(vec![1; MUCH].into(), watch).unwrap());
                let refused = sender.send(vec![2; 1000].into(), watch).unwrap_err();
                assert_eq!((limit(&refused), refused.value.len()), (Some(full), 1000));
                assert!(waits(&sender).await, "{full:?}: nothing has ended");
                let reading = reads_all(peer);
                // All that wait on it are told.
                let (one, other) = tokio::join!(sender.writable(), sender.writable());
                assert_eq!((one, other), (Ok(()), Ok(())));
                drop(send(&sender, refused.value).await.acked().await.unwrap());
                assert_eq!(sender.close(PATIENCE).await, CloseOutcome::Graceful);
                assert_eq!(reading.await.unwrap(), MUCH + 1000);
            }
        }
    });
}

#[test]
fn memory_of_another_connection_makes_room() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = narrow(&*backend);
        let (hog, _unread) = pair(&handle).await;
        let (connection, mut peer) = pair(&handle).await;
        let (sender, _receiver) = connection.into_split();
        drop(hog.send(vec![1; MUCH].into(), Watch::NONE).unwrap());
        let (payload, dropped) = tracked(1000);
        let refused = sender.send(payload, Watch::ACKED).unwrap_err();
        assert_eq!(limit(&refused), Some(Limit::DriverMemory));
        assert!(waits(&sender).await, "nothing was released");
        // What was given up waiting for is still here.
        assert!(!dropped.load(Ordering::SeqCst));
        let waiting = tokio::spawn(async move {
            let mut transfer = send(&sender, refused.value).await;
            drop(transfer.acked().await.unwrap());
            sender
        });
        tokio::task::yield_now().await;
        hog.abort();
        let sender = waiting.await.unwrap();
        peer.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(sender.writable().await, Ok(()));
    });
}

/// More than are told at once, and some that do not want to know any more.
#[test]
fn many_that_wait_for_memory_all_get_some() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = narrow(&*backend);
        let (hog, _unread) = pair(&handle).await;
        drop(hog.send(vec![1; MUCH].into(), Watch::NONE).unwrap());
        let mut waiting = Vec::new();
        // They do nothing that would have the driver turned until all are told.
        let all_told = Arc::new(Barrier::new(143));
        for n in 0..165 {
            let (connection, peer) = pair(&handle).await;
            let refused = connection.send(vec![n; 1000].into(), Watch::NONE).unwrap_err();
            assert_eq!(limit(&refused), Some(Limit::DriverMemory));
            let reading = reads_all(peer);
            match n % 15 {
                0 => drop((connection, refused)),
                1 => {
                    assert!(timeout(Duration::ZERO, connection.writable()).await.is_err());
                    waiting.push((tokio::spawn(connection.close(PATIENCE)), reading, 0));
                }
                _ => {
                    let all_told = Arc::clone(&all_told);
                    let sending = tokio::spawn(async move {
                        let (sender, _receiver) = connection.into_split();
                        sender.writable().await.unwrap();
                        all_told.wait().await;
                        drop(send(&sender, refused.value).await);
                        sender.close(PATIENCE).await
                    });
                    waiting.push((sending, reading, 1000));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        hog.abort();
        for (sending, reading, len) in waiting {
            assert_eq!(sending.await.unwrap(), CloseOutcome::Graceful);
            assert_eq!(reading.await.unwrap(), len);
        }
    });
}

/// What is released is taken by others again and again; whoever waits is told each
/// time, and gets it in the end.
#[test]
fn large_and_small_payloads_share_the_memory() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = narrow(&*backend);
        let mut tasks = Vec::new();
        for n in 0..8_usize {
            let (connection, peer) = pair(&handle).await;
            let reading = reads_all(peer);
            let len = (1 + n) << 20;
            tasks.push(tokio::spawn(async move {
                let (sender, _receiver) = connection.into_split();
                for _ in 0..6 {
                    drop(send(&sender, vec![1; len].into()).await);
                }
                assert_eq!(sender.close(PATIENCE).await, CloseOutcome::Graceful);
                assert_eq!(reading.await.unwrap(), 6 * len);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn whoever_waits_for_room_hears_that_the_connection_is_over() {
    beside_each_backend(|backend, runtime| {
        let (handle, hog, _unread, one, peer, other, _other_peer) = runtime.block_on(async {
            let handle = narrow(&*backend);
            let (hog, unread) = pair(&handle).await;
            drop(hog.send(vec![1; MUCH].into(), Watch::NONE).unwrap());
            let (one, peer) = pair(&handle).await;
            let (other, other_peer) = pair(&handle).await;
            for connection in [&one, &other] {
                let refused = connection.send(vec![1].into(), Watch::NONE).unwrap_err();
                assert_eq!(limit(&refused), Some(Limit::DriverMemory));
            }
            (handle, hog, unread, one, peer, other, other_peer)
        });
        // The memory stays as full as it is.
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let told = runtime.block_on(async { timeout(PATIENCE / 2, one.writable()).await });
        assert_eq!(told.expect("hangs"), Err(CloseOutcome::Failed(FailReason::Reset)));
        drop(runtime);
        elsewhere(async {
            let told = other.writable().await;
            assert_eq!(told, Err(CloseOutcome::Failed(FailReason::Closed)));
        });
        drop((handle, hog));
    });
}
