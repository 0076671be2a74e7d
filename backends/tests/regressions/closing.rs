//! The end of a connection.

use crate::world::{BOTH, World, content, is_closed, pair, reached, reader};
use lastbyte::{
    AttachOptions, BackendKind, Choice, CloseOutcome, ConnectionId, Driver, DriverConfig, Event,
    FileRange, Payload, Reached, Restrictions, Stage, Watch,
};
use lastbyte_backends::SealedMemory;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No way to look meant that one was due at once, always: the turns spun.
#[test]
fn a_close_that_cannot_look_waits_quietly() {
    for kind in BOTH {
        let mut world = World::new(kind, "tcp-info,out-queue");
        let (near, far) = pair();
        let connection = world.attach(near).connection;
        world.close(connection);
        let (turns, events) = world.turns(Duration::from_millis(500));
        assert!(events.is_empty(), "{kind}: {events:?}");
        assert!(turns < 50, "{kind}: {turns} turns in half a second of waiting");
        drop(far);
        let events = world.until(is_closed);
        let last = events.last();
        let unconfirmed = CloseOutcome::Unconfirmed;
        assert!(
            matches!(last, Some(Event::Closed { outcome, .. }) if *outcome == unconfirmed),
            "{kind}: {events:?}"
        );
    }
}

/// Without a way to look, `Closed` came while the kernel still had the memory,
/// and its payload never.
#[test]
fn every_payload_is_released_before_closed() {
    for kind in BOTH {
        for without in ["tcp-info,out-queue", "tcp-info", "out-queue", ""] {
            let case = format!("{kind} without {without:?}");
            let mut world = World::new(kind, without);
            let (near, far) = pair();
            far.shutdown(Shutdown::Write).expect("the peer's end");
            let peer = reader(far, Duration::from_millis(200));
            let connection = world.attach(near).connection;
            world.submit(connection, content(300_000), Watch::ALL);
            world.submit(connection, content(100_000), Watch::NONE);
            world.close(connection);
            let events = world.until(is_closed);
            assert!(matches!(events.last(), Some(Event::Closed { .. })), "{case}: {events:?}");
            assert!(reached(&events, Stage::Failed).is_empty(), "{case}: {events:?}");
            let released = reached(&events, Stage::Released);
            let lengths: Vec<_> = released
                .iter()
                .map(|completion| match &completion.reached {
                    Reached::Released(lastbyte::Memory::Returned(payload)) => payload.len(),
                    other => panic!("{case}: {other:?}"),
                })
                .collect();
            assert_eq!(lengths.iter().sum::<u64>(), 400_000, "{case}");
            assert_eq!(lengths.len(), 2, "{case}");
            let counters = world.driver.counters();
            assert_eq!(counters.unreleased_bytes, 0, "{case}");
            assert_eq!(counters.pinned_bytes, 0, "{case}");
            assert_eq!(counters.leaked_bytes, 0, "{case}");
            assert_eq!(counters.connections, 0, "{case}");
            drop(world);
            assert_eq!(peer.join().expect("the peer").len(), 400_000, "{case}");
        }
    }
}

/// A ring takes the wish for input for fulfilled when some comes. A closing
/// connection that does not say again that it wants more is read from no more
/// after some pieces, and a peer that writes all before it reads waits for ever.
#[test]
fn a_closing_connection_goes_on_reading_whatever_comes() {
    for kind in [BackendKind::Epoll, BackendKind::Fallback, BackendKind::IoUring] {
        if lastbyte_backends::open(Choice::Only(kind), &Restrictions::default()).is_err() {
            continue;
        }
        let mut world = World::new(kind, "");
        let (near, mut far) = pair();
        let connection = world.attach(near).connection;
        world.driver.receive(connection).expect("an open connection");
        world.turns(Duration::from_millis(20));
        let payload = content(16 << 20);
        let len = payload.len();
        world.submit(connection, payload, Watch::ACKED);
        world.close(connection);
        let peer = std::thread::spawn(move || {
            for _ in 0..20 {
                far.write_all(b"a piece").expect("writes");
                std::thread::sleep(Duration::from_millis(10));
            }
            far.write_all(&content(16 << 20)).expect("writes");
            let mut all = Vec::new();
            far.read_to_end(&mut all).expect("reads");
            all.len()
        });
        let events = world.until(is_closed);
        let closed = events.last();
        assert!(
            matches!(closed, Some(Event::Closed { outcome: CloseOutcome::Graceful, .. })),
            "{kind}: {closed:?}"
        );
        assert_eq!(reached(&events, Stage::Acked).len(), 1, "{kind}");
        assert_eq!(peer.join().expect("the peer"), len, "{kind}");
    }
}

/// Looks before the close had doubled the pause of those after it, to five seconds.
#[test]
fn what_is_acknowledged_after_a_close_is_told_soon() {
    for (kind, without) in [(BackendKind::Fallback, ""), (BackendKind::Epoll, "timestamps")] {
        let mut world = World::new(kind, without);
        let (near, mut far) = pair();
        let connection = world.attach(near).connection;
        world.submit(connection, content(300_000), Watch::ALL);
        world.turns(Duration::from_millis(300));
        world.close(connection);
        let events = world.turns(Duration::from_millis(50)).1;
        assert!(!is_closed(&events), "{kind}: {events:?}");
        far.read_exact(&mut vec![0; 300_000]).expect("reads");
        let began = Instant::now();
        let events = world.until(is_closed);
        assert_eq!(reached(&events, Stage::Acked).len(), 1, "{kind}: {events:?}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{kind}: told after {took:?}");
    }
}

/// The clock was read when others had nothing more to do, which may be never.
#[test]
fn a_close_ends_in_time_whatever_peers_send() {
    for kind in BOTH {
        let mut world = World::new(kind, "");
        let mut floods = Vec::new();
        for _ in 0..3 {
            let (near, far) = pair();
            let connection = world.attach(near).connection;
            world.submit(connection, content(8 << 20), Watch::NONE);
            world.driver.close(connection, Duration::from_millis(300)).expect("closes");
            floods.push(std::thread::spawn(move || {
                let much = content(1 << 20);
                while (&far).write_all(&much).is_ok() {}
            }));
        }
        let began = Instant::now();
        world.until(|events| events.iter().filter(|event| is_end(event)).count() == 3);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{kind}: closed after {took:?}");
        for flood in floods {
            flood.join().expect("ends with its connection");
        }
    }
}

/// A delivery waited until the kernel had let go of each connection that was over,
/// which takes it long where another thread has started the operations.
#[test]
fn a_delivery_does_not_wait_for_what_another_thread_has_started() {
    const MANY: usize = 20;
    for &kind in lastbyte_backends::BUILT {
        let (sender, events) = std::sync::mpsc::channel();
        let starts = std::thread::spawn(move || start_many(kind, MANY, sender));
        let (mut driver, ids, peers) = starts.join().expect("starts");
        let mut took = Vec::new();
        let mut closed = Vec::new();
        for id in &ids {
            driver.abort(*id).expect("an open connection");
            let began = Instant::now();
            driver.deliver();
            driver.turn(Some(Duration::ZERO)).expect("turns");
            took.push(began.elapsed());
        }
        let end = Instant::now() + Duration::from_secs(20);
        while closed.len() < MANY {
            assert!(Instant::now() < end, "{kind}: {} of {MANY} are closed", closed.len());
            driver.turn(Some(Duration::from_millis(100))).expect("turns");
            closed.extend(events.try_iter().filter_map(|event| match event {
                Event::Closed { connection, .. } => Some(connection),
                _ => None,
            }));
        }
        closed.sort_unstable_by_key(|id| id.slot());
        assert_eq!(closed, ids, "{kind}");
        // The median, for a busy machine may hold up some.
        took.sort_unstable();
        assert!(took[MANY / 2] < Duration::from_millis(4), "{kind}: {took:?}");
        for mut peer in peers {
            let error = peer.read(&mut [0]).expect_err("it was reset");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{kind}");
        }
        assert_eq!(driver.counters().connections, 0, "{kind}");
    }
}

/// What is left of a connection that had more to do concerns neither its successor,
/// nor the turns to come.
#[test]
fn who_ends_with_more_to_do_leaves_nothing_behind() {
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let mut far_ends = Vec::new();
        for round in 0..5 {
            let ids: Vec<_> = (0..100)
                .map(|_| {
                    let (near, far) = pair();
                    far_ends.push(far);
                    let connection = world.attach(near).connection;
                    world.driver.receive(connection).expect("an open connection");
                    connection
                })
                .collect();
            if round == 4 {
                for far in far_ends.iter_mut().rev().take(ids.len()) {
                    far.write_all(b"input").expect("writes");
                }
                let got = |event: &&Event| matches!(event, Event::Received { .. });
                world.until(|events| events.iter().filter(got).count() == ids.len());
            }
            for id in &ids {
                world.driver.abort(*id).expect("an open connection");
            }
            world.until(|events| events.iter().filter(|event| is_end(event)).count() == ids.len());
        }
        let (turns, events) = world.turns(Duration::from_millis(500));
        assert!(events.is_empty(), "{kind}: {events:?}");
        assert!(turns < 50, "{kind}: {turns} turns in half a second of nothing");
    }
}

type Started = (Box<dyn Driver + Send>, Vec<ConnectionId>, Vec<TcpStream>);

/// A driver of connections that wait for input.
fn start_many(kind: BackendKind, many: usize, to: std::sync::mpsc::Sender<Event>) -> Started {
    let backend = lastbyte_backends::open(Choice::Only(kind), &Restrictions::none());
    let backend = backend.expect("opens");
    let driver = backend.movable_driver(&DriverConfig::default(), Box::new(to));
    let mut driver = driver.expect("a driver");
    let (mut ids, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..many {
        let (near, far) = pair();
        let attached = driver.attach(near.into(), &AttachOptions::default()).expect("attaches");
        driver.receive(attached.connection).expect("an open connection");
        ids.push(attached.connection);
        peers.push(far);
    }
    for _ in 0..5 {
        driver.turn(Some(Duration::from_millis(1))).expect("turns");
    }
    (driver, ids, peers)
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Closed { .. })
}

/// The reset rested on the last descriptor's being closed. While somebody else had one
/// the peer went on getting what was told to have failed, and what was written to a file
/// after its owner had it back.
#[test]
fn an_end_resets_a_socket_that_somebody_else_has_too() {
    const LEN: usize = 8 << 20;
    // What the kernel has been lent was always fetched back.
    let mut copies = DriverConfig::default();
    copies.zero_copy_threshold = u64::MAX;
    for &kind in lastbyte_backends::BUILT {
        for aborts in [true, false] {
            for of_file in [false, true] {
                let case = format!("{kind}, aborted: {aborts}, of a file: {of_file}");
                let mut world = World::configured(kind, "", &copies);
                let (near, far) = pair();
                let clone = near.try_clone().expect("another descriptor");
                let connection = world.attach(near).connection;
                world.submit(connection, payload(LEN, of_file), Watch::ALL);
                world.turns(Duration::from_millis(50));
                if aborts {
                    world.driver.abort(connection).expect("an open connection");
                } else {
                    let soon = Duration::from_millis(50);
                    world.driver.close(connection, soon).expect("an open connection");
                }
                let events = world.until(is_closed);
                assert_eq!(reached(&events, Stage::Failed).len(), 1, "{case}: {events:?}");
                let (got, end) = read_to_error(far);
                assert_eq!(end, ErrorKind::ConnectionReset, "{case}: after {got} bytes");
                assert!(got < LEN / 2, "{case}: {got} bytes");
                drop(clone);
            }
        }
    }
}

fn payload(len: usize, of_file: bool) -> Payload {
    if of_file {
        let file = SealedMemory::filled(len, &content(251)).expect("sealed memory");
        FileRange::new(Arc::new(file), 0, len as u64).into()
    } else {
        content(len).into()
    }
}

/// How much comes before there is no more, and why there is no more.
fn read_to_error(mut far: TcpStream) -> (usize, ErrorKind) {
    far.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let (mut got, mut piece) = (0, vec![0; 1 << 16]);
    loop {
        match far.read(&mut piece) {
            Ok(0) => return (got, ErrorKind::UnexpectedEof),
            Ok(n) => got += n,
            Err(error) => return (got, error.kind()),
        }
    }
}
