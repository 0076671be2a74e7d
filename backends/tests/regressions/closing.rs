//! The end of a connection.

use crate::world::{BOTH, World, content, is_closed, pair, reached, reader};
use lastbyte::{BackendKind, Choice, CloseOutcome, Event, Reached, Restrictions, Stage, Watch};
use std::io::{Read, Write};
use std::net::Shutdown;
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

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Closed { .. })
}
