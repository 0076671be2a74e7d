//! Sockets that are attached before they are connected: connecting has its time, and
//! the handshake has its own.

use crate::world::{
    World, is_closed, options, outcome_in, plain, provider, reached, server_config,
};
use lastbyte::{
    AttachOptions, BackendKind, CloseOutcome, ConnectionId, DriverConfig, Event, FailReason, Stage,
    TlsFailure, TlsRole, Watch,
};
use lastbyte_backends::tls::TlsTerms;
use rustls::{ServerConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const HANDSHAKE: Duration = Duration::from_millis(300);

/// A listener whose queue is full, and who waits in it: whoever connects is not
/// answered, and asks again after a second (`include/net/tcp.h`, `TCP_TIMEOUT_INIT`).
fn full() -> (TcpListener, TcpStream) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    // One connection more than it says may wait (`sk_acceptq_is_full`).
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, first)
}

/// A world, and a client in it that begins to connect.
fn connect(listener: &TcpListener, stall_timeout: Duration) -> (World, ConnectionId) {
    let mut options = options();
    options.handshake_timeout = HANDSHAKE;
    let inner = plain(BackendKind::Epoll);
    let provider = provider(&TlsTerms::default());
    let mut world = World::with(inner, provider, options, &DriverConfig::default());
    let socket = lastbyte_backends::connect(listener.local_addr().unwrap()).unwrap();
    let mut attach = AttachOptions::default();
    attach.stall_timeout = Some(stall_timeout);
    let role = TlsRole::Client { server_name: "localhost".to_owned() };
    let attached = world.driver.attach_tls(socket, &attach, &role).unwrap();
    (world, attached.connection)
}

#[test]
fn who_does_not_connect_has_the_time_for_that_and_fails_by_it() {
    let (listener, _first) = full();
    let stall = Duration::from_millis(1500);
    let began = Instant::now();
    let (mut world, _) = connect(&listener, stall);
    assert_eq!(world.outcome(), CloseOutcome::Failed(FailReason::Timeout));
    assert!(began.elapsed() >= stall, "after {:?}", began.elapsed());
}

#[test]
fn who_connects_late_has_all_of_the_handshakes_time() {
    let (listener, first) = full();
    let (mut world, id) = connect(&listener, Duration::from_secs(60));
    world.driver.submit(id, b"hello".to_vec().into(), Watch::ACKED).unwrap();
    let began = Instant::now();
    while began.elapsed() < 2 * HANDSHAKE {
        assert!(world.turn().is_empty(), "something happens without a connection");
    }
    let peer = thread::spawn(move || {
        drop(first);
        drop(listener.accept().unwrap());
        let stream = listener.accept().unwrap().0;
        let tls = ServerConnection::new(server_config()).unwrap();
        let (mut stream, mut got) = (StreamOwned::new(tls, stream), [0; 5]);
        stream.read_exact(&mut got).map(|()| (got, stream))
    });
    let events = world
        .until(|events| !reached(events, Stage::Acked).is_empty() || events.iter().any(is_closed));
    assert!(!events.iter().any(is_closed), "{events:?}");
    assert_eq!(&peer.join().unwrap().unwrap().0, b"hello");
}

/// Somebody who is connected and says nothing has no more time than before.
#[test]
fn who_is_connected_has_no_more_than_the_handshakes_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut world, _) = connect(&listener, Duration::from_secs(60));
    let _silent = listener.accept().unwrap();
    let events = world.until(|events| events.iter().any(is_closed));
    assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })), "{events:?}");
    let timeout = FailReason::from(TlsFailure::HandshakeTimeout);
    assert_eq!(outcome_in(&events), CloseOutcome::Failed(timeout));
}

/// A deadline for closing holds while connecting too.
#[test]
fn closing_does_not_wait_for_a_connection() {
    let (listener, _first) = full();
    let (mut world, id) = connect(&listener, Duration::from_secs(60));
    world.driver.submit(id, b"hello".to_vec().into(), Watch::ACKED).unwrap();
    world.driver.close(id, Duration::from_millis(50)).unwrap();
    assert_eq!(world.outcome(), CloseOutcome::Failed(FailReason::Timeout));
}
