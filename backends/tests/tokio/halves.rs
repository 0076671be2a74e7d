//! Connections that are used in both directions at once.

use crate::{CLOSE, PATIENCE, handle, on_each_backend, pair};
use lastbyte::{Backend, CloseOutcome, Payload, Watch};
use lastbyte_backends::tokio::{Connection, Receiver, Sender};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::time::timeout;

/// More than the sockets of both sides hold.
const MUCH: usize = 16 << 20;

fn content(seed: u8) -> Vec<u8> {
    (0..251).cycle().skip(usize::from(seed)).take(MUCH).collect()
}

async fn receive_all(receiver: &mut Receiver) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = receiver.receive().await.unwrap() {
        all.extend_from_slice(&data);
    }
    all
}

/// A peer that reads nothing before it has sent all, and then everything.
fn stubborn(mut peer: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        peer.write_all(&content(1)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    })
}

#[test]
fn one_task_receives_while_it_sends() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (mut connection, peer) = pair(&handle).await;
        let peer = stubborn(peer);
        let (sender, receiver) = connection.split();
        let send = async {
            for part in content(2).chunks(1 << 20) {
                let mut transfer = sender.send(part.to_vec().into(), Watch::ACKED).unwrap();
                drop(transfer.acked().await.unwrap());
            }
        };
        let ((), received) = tokio::join!(send, receive_all(receiver));
        assert!(received == content(1), "other bytes arrived here");
        assert_eq!(connection.close(CLOSE).await, CloseOutcome::Graceful);
        assert!(peer.join().unwrap() == content(2), "other bytes arrived there");
    });
}

#[test]
fn several_tasks_send_while_another_receives() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, peer) = pair(&handle).await;
        let peer = stubborn(peer);
        let (sender, mut receiver) = connection.into_split();
        let sender = Arc::new(sender);
        let receiving = tokio::spawn(async move { (receive_all(&mut receiver).await, receiver) });
        let sending: Vec<_> = (0..4)
            .map(|n| {
                let sender = Arc::clone(&sender);
                tokio::spawn(async move {
                    let mut transfer = sender.send(vec![n; 1 << 20].into(), Watch::ACKED).unwrap();
                    drop(transfer.acked().await.unwrap());
                })
            })
            .collect();
        for task in sending {
            task.await.unwrap();
        }
        let (received, _receiver) = receiving.await.unwrap();
        assert!(received == content(1), "other bytes arrived here");
        let sender = Arc::into_inner(sender).unwrap();
        assert_eq!(sender.close(CLOSE).await, CloseOutcome::Graceful);
        let all = peer.join().unwrap();
        assert_eq!(all.len(), 4 << 20);
        let whole = all.chunks(1 << 20).all(|part| part.iter().all(|&byte| byte == part[0]));
        assert!(whole, "payloads are mixed");
    });
}

/// Whether nothing comes, and no end, for a while.
async fn is_open(peer: &TcpStream) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.set_nonblocking(true).unwrap();
    let seen = peer.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    peer.set_nonblocking(false).unwrap();
    seen
}

async fn has_ended(mut peer: TcpStream) -> bool {
    let read = tokio::task::spawn_blocking(move || peer.read(&mut [0]).unwrap());
    timeout(PATIENCE / 2, read).await.expect("it is still open").unwrap() == 0
}

#[test]
fn a_connection_is_closed_when_both_halves_are_dropped() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (connection, mut peer) = pair(&handle).await;
        let (sender, mut receiver) = connection.into_split();
        drop(sender);
        assert!(is_open(&peer).await);
        peer.write_all(b"hello").unwrap();
        assert_eq!(&*receiver.receive().await.unwrap().unwrap(), b"hello");
        drop(receiver);
        assert!(has_ended(peer).await);

        let (connection, mut peer) = pair(&handle).await;
        let (sender, receiver) = connection.into_split();
        drop(receiver);
        assert!(is_open(&peer).await);
        let mut transfer = sender.send(b"hello".to_vec().into(), Watch::ACKED).unwrap();
        drop(transfer.acked().await.unwrap());
        peer.read_exact(&mut [0; 5]).unwrap();
        drop(sender);
        assert!(has_ended(peer).await);
    });
}

#[test]
fn a_receiver_hears_that_the_connection_was_closed_or_reset() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        for close in [true, false] {
            let (connection, peer) = pair(&handle).await;
            let (sender, mut receiver) = connection.into_split();
            let waiting = tokio::spawn(async move {
                let told = receiver.receive().await.unwrap_err();
                assert_eq!(receiver.receive().await.unwrap_err(), told, "the same each time");
                told
            });
            tokio::task::yield_now().await;
            let told = if close {
                let closing = tokio::spawn(sender.close(CLOSE));
                assert!(has_ended(peer).await);
                let told = closing.await.unwrap();
                assert_eq!(told, CloseOutcome::Graceful);
                told
            } else {
                sender.abort();
                CloseOutcome::Failed(lastbyte::FailReason::Cancelled)
            };
            assert_eq!(waiting.await.unwrap(), told);
        }
    });
}

/// Carries what comes on one connection to another, until it ends.
async fn carry(from: &mut Receiver, to: &Sender) {
    while let Some(data) = from.receive().await.unwrap() {
        let mut transfer = to.send(Payload::from(data), Watch::QUEUED).unwrap();
        drop(transfer.queued().await.unwrap());
    }
}

#[test]
fn a_proxy_carries_both_directions_at_once() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (mut one, client) = pair(&handle).await;
        let (mut other, server) = pair(&handle).await;
        let proxy = tokio::spawn(async move {
            let (to_client, from_client) = one.split();
            let (to_server, from_server) = other.split();
            tokio::join!(carry(from_client, to_server), carry(from_server, to_client));
            let close = |connection: Connection| connection.close(CLOSE);
            tokio::join!(close(one), close(other))
        });
        let exchange = |mut peer: TcpStream, seed: u8| {
            thread::spawn(move || {
                let mut writing = peer.try_clone().unwrap();
                let writer = thread::spawn(move || {
                    writing.write_all(&content(seed)).unwrap();
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                writer.join().unwrap();
                all
            })
        };
        let (client, server) = (exchange(client, 1), exchange(server, 2));
        let outcomes = proxy.await.unwrap();
        assert_eq!(outcomes, (CloseOutcome::Graceful, CloseOutcome::Graceful));
        assert!(client.join().unwrap() == content(2), "other bytes reached the client");
        assert!(server.join().unwrap() == content(1), "other bytes reached the server");
    });
}

#[test]
fn halves_can_be_moved_and_shared() {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Sender>();
    is_shareable::<Receiver>();
    is_shareable::<Connection>();
}
