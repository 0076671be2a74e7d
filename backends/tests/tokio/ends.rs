//! How a connection begins, and how one direction of it ends.

use crate::{CLOSE, handle, on_each_backend, pair};
use lastbyte::{AttachOptions, Backend, CloseOutcome, FailReason, Payload, RefuseReason, Watch};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

const MUCH: usize = 2 << 20;

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let (mut connection, mut peer) = pair(&handle).await;
        connection.connected().await.expect("it was connected when it was attached");
        let mut transfer = connection.send(vec![7; MUCH].into(), Watch::ACKED).unwrap();
        connection.finish();
        connection.finish();
        let late = connection.send(Payload::from(&b"late"[..]), Watch::ACKED).unwrap_err();
        assert_eq!((late.reason, late.value.len()), (RefuseReason::Closing, 4));
        let peer = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            peer.write_all(b"and yet").unwrap();
            all.len()
        });
        let mut answer = Vec::new();
        while let Some(data) = connection.receive().await.unwrap() {
            answer.extend_from_slice(&data);
        }
        assert_eq!(answer, b"and yet");
        drop(transfer.acked().await.unwrap());
        assert_eq!(peer.join().unwrap(), MUCH);
        assert_eq!(connection.close(CLOSE).await, CloseOutcome::Graceful);
    });
}

#[test]
fn what_is_sent_while_connecting_is_sent() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = lastbyte_backends::connect(listener.local_addr().unwrap()).unwrap();
        let connection = handle.attach(socket, &AttachOptions::default()).unwrap();
        let mut transfer = connection.send(vec![7; MUCH].into(), Watch::ACKED).unwrap();
        let peer = thread::spawn(move || {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all.len()
        });
        for _ in 0..2 {
            connection.connected().await.unwrap();
        }
        drop(transfer.acked().await.unwrap());
        assert_eq!(connection.close(CLOSE).await, CloseOutcome::Graceful);
        assert_eq!(peer.join().unwrap(), MUCH);
    });
}

#[test]
fn whoever_waits_for_a_connection_hears_that_there_is_none() {
    on_each_backend(async |backend: Arc<dyn Backend>| {
        let handle = handle(&*backend);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        // It was said to connect, and does not.
        let socket = lastbyte::Socket::connecting(socket.unwrap().into());
        let connection = match handle.attach(socket, &AttachOptions::default()) {
            Ok(connection) => connection,
            Err(refused) => panic!("{refused}"),
        };
        let expected = FailReason::System { doing: "connect", errno: libc::ENOTCONN };
        let heard = connection.connected().await;
        assert_eq!(heard, Err(CloseOutcome::Failed(expected)));
    });
}
