//! What acknowledgements rest on.

use crate::world::{ACK_STAMPS, BOTH, NAMED_STAMPS, World, pair, reached, reader, set_stamps};
use lastbyte::{
    AttachOptions, BackendKind, Choice, Event, Evidence, RefuseReason, Restrictions, Stage,
    StageEvidence, Watch,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Stamps that waited in the error queue were taken for stamps of our bytes.
#[test]
fn stamps_of_a_former_owner_acknowledge_nothing_of_ours() {
    for without in ["", "timestamp-id-tcp"] {
        let mut world = World::new(BackendKind::Epoll, without);
        let (mut near, mut far) = pair();
        set_stamps(&near, ACK_STAMPS);
        near.write_all(b"0123456789").expect("writes");
        std::thread::sleep(Duration::from_millis(100));
        // Its stamp waits. Now the window closes, and the rest waits in the send
        // buffer, with more stamps to come.
        for _ in 0..10 {
            near.write_all(&[1; 30_000]).expect("writes");
        }
        set_stamps(&near, NAMED_STAMPS);
        near.write_all(&[1; 50_000]).expect("writes");
        let connection = world.attach(near).connection;
        world.submit(connection, &b"12345678"[..], Watch::ALL);
        world.submit(connection, vec![2; 92], Watch::ALL);
        let (_, mut events) = world.turns(Duration::from_millis(200));
        // Some of the older stamps come.
        let mut older = vec![0; 150_000];
        far.read_exact(&mut older).expect("reads");
        events.extend(world.turns(Duration::from_millis(200)).1);
        for stage in [Stage::Transmitted, Stage::Acked] {
            let early = reached(&events, stage);
            assert!(early.is_empty(), "{without:?}: what the peer has not read: {early:?}");
        }
        let peer = reader(far, Duration::ZERO);
        let events = world.until(|events| reached(events, Stage::Acked).len() == 2);
        let order: Vec<_> = reached(&events, Stage::Acked)
            .iter()
            .map(|completion| completion.transfer.number())
            .collect();
        assert_eq!(order, [0, 1], "{without:?}");
        world.close(connection);
        world.until(crate::world::is_closed);
        drop(world);
        assert_eq!(peer.join().expect("the peer").len(), 200_010 + 100, "{without:?}");
    }
}

/// An accepted socket counted as fresh though its user had written to it, so that
/// the peer's acknowledgement of that passed for that of our bytes.
#[test]
fn what_was_written_before_attaching_acknowledges_nothing() {
    for kind in [BackendKind::IoUring, BackendKind::Epoll, BackendKind::Fallback] {
        if kind == BackendKind::IoUring && !has_rings() {
            continue;
        }
        let mut world = World::new(kind, "");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut far = TcpStream::connect(listener.local_addr().expect("an address")).expect("far");
        world.driver.listen(listener).expect("listens");
        let accepted = world.until(|events| !events.is_empty()).remove(0);
        let Event::Accepted { socket, .. } = accepted else { panic!("{accepted:?}") };
        // More than the window takes, less than the send buffer.
        let early = socket.stream().write(&vec![7; 1 << 20]).expect("writes");
        let attached = world.driver.attach(socket, &AttachOptions::default()).expect("attaches");
        world.submit(attached.connection, &b"lastbyte"[..], Watch::ALL);
        let (_, events) = world.turns(Duration::from_millis(400));
        let told = reached(&events, Stage::Acked);
        assert!(told.is_empty(), "{kind}: what the peer has not read: {told:?}");
        let peer = std::thread::spawn(move || {
            far.read_exact(&mut vec![0; early + 8]).expect("reads");
            far
        });
        let stages = world.until(|events| reached(events, Stage::Acked).len() == 1);
        assert_eq!(reached(&stages, Stage::Acked).len(), 1, "{kind}");
        drop(peer.join());
    }
}

fn has_rings() -> bool {
    lastbyte_backends::open(Choice::Only(BackendKind::IoUring), &Restrictions::none()).is_ok()
}

/// What was still under way from before was not counted, so that its
/// acknowledgement passed for that of our bytes.
#[test]
fn a_socket_with_unknown_bytes_under_way_is_given_back() {
    for kind in BOTH {
        let mut world = World::new(kind, "out-queue");
        let (mut near, mut far) = pair();
        near.write_all(&[1; 400_000]).expect("writes");
        let options = AttachOptions::default();
        let refused = world.driver.attach(near.into(), &options).expect_err("bytes under way");
        assert!(matches!(refused.reason, RefuseReason::System { .. }), "{kind}: {refused:?}");
        assert_eq!(world.driver.counters().connections, 0, "{kind}");

        // It is the same socket, unharmed, and welcome when they have arrived.
        far.read_exact(&mut vec![0; 400_000]).expect("reads");
        let mut socket = refused.value;
        let started = Instant::now();
        let connection = loop {
            match world.driver.attach(socket, &options) {
                Ok(attached) => break attached.connection,
                Err(refused) => socket = refused.value,
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{kind}: never acknowledged");
            std::thread::sleep(Duration::from_millis(5));
        };
        world.submit(connection, &b"12345678"[..], Watch::ACKED);
        world.until(|events| !reached(events, Stage::Acked).is_empty());
        let mut ours = [0; 8];
        far.read_exact(&mut ours).expect("reads");
        assert_eq!(&ours, b"12345678", "{kind}");
    }
}

/// Every sixteenth submission looked, and dated by that what a stamp was there
/// for.
#[test]
fn a_look_leaves_exact_stamps_their_transfers() {
    const COUNT: usize = 40;
    let mut world = World::new(BackendKind::Epoll, "");
    let (near, far) = pair();
    let peer = reader(far, Duration::ZERO);
    let attached = world.attach(near);
    if attached.stages.acked != StageEvidence::Kernel {
        return;
    }
    for _ in 0..COUNT {
        world.submit(attached.connection, &b"12345678"[..], Watch::ACKED);
        std::thread::sleep(Duration::from_millis(2));
    }
    let events: Vec<Event> = world.until(|events| reached(events, Stage::Acked).len() == COUNT);
    let inexact: Vec<_> = reached(&events, Stage::Acked)
        .into_iter()
        .filter(|completion| completion.evidence != Evidence::Kernel)
        .collect();
    assert!(inexact.is_empty(), "{} of {COUNT}: {inexact:?}", inexact.len());
    assert_eq!(world.driver.counters().stamps_recovered, 0);
    world.close(attached.connection);
    world.until(crate::world::is_closed);
    drop(world);
    assert_eq!(peer.join().expect("the peer").len(), COUNT * 8);
}
