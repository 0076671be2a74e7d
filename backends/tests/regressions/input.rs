//! Input, beside output.

use crate::world::{BOTH, World, pair, reader};
use lastbyte::{Event, Received, Stage, Watch};
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

fn is_ended(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Received { received: Received::End, .. }))
}

/// Only the first receive after the peer's end was answered.
#[test]
fn a_receive_after_the_end_is_answered() {
    for kind in BOTH {
        let mut world = World::new(kind, "");
        let (near, far) = pair();
        let connection = world.attach(near).connection;
        far.shutdown(Shutdown::Write).expect("the peer's end");
        for _ in 0..3 {
            world.driver.receive(connection).expect("an open connection");
            let events = world.until(is_ended);
            assert_eq!(events.len(), 1, "{kind}: {events:?}");
        }
    }
}

/// A turn that had something to deliver looked at no socket, so whoever
/// submitted at each delivery had the driver to himself.
#[test]
fn submitting_at_each_delivery_starves_nobody() {
    for kind in BOTH {
        let mut world = World::new(kind, "");
        let (near, far) = pair();
        let sink = reader(far, Duration::ZERO);
        let busy = world.attach(near).connection;
        let (near, mut other_far) = pair();
        let other = world.attach(near).connection;
        world.driver.receive(other).expect("an open connection");
        world.turns(Duration::from_millis(20));

        world.submit(busy, &b"once more"[..], Watch::QUEUED);
        other_far.write_all(b"hello").expect("writes");
        let started = Instant::now();
        let mut turns = 0;
        let mut heard = false;
        while !heard {
            for event in world.turn(Duration::from_millis(100)) {
                match event {
                    Event::Received { connection, .. } => {
                        assert_eq!(connection, other, "{kind}");
                        heard = true;
                    }
                    Event::Transfer(completion) if completion.stage() == Stage::Released => {
                        world.submit(busy, &b"once more"[..], Watch::QUEUED);
                    }
                    _ => {}
                }
            }
            turns += 1;
            let enough = turns > 1000 && started.elapsed() > Duration::from_secs(2);
            assert!(!enough, "{kind}: nothing of the other connection in {turns} turns");
        }
        drop(world);
        // It is reset, so how much the sink has read does not matter.
        drop(sink);
    }
}

/// A read stops in front of urgent data, short of what there is behind it; that was
/// taken for all there is.
#[test]
fn what_follows_urgent_data_is_received() {
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let (near, far) = pair();
        let connection = world.attach(near).connection;
        let far = socket2::SockRef::from(&far);
        far.send(b"ABC").expect("sends");
        far.send_out_of_band(b"!").expect("sends");
        far.send(b"DEF").expect("sends");
        std::thread::sleep(Duration::from_millis(50));
        let mut got = Vec::new();
        while got.len() < 6 {
            world.driver.receive(connection).expect("an open connection");
            for event in world.until(|events| !events.is_empty()) {
                let Event::Received { received: Received::Data(data), .. } = event else {
                    panic!("{kind}: {event:?}");
                };
                got.extend_from_slice(&data);
            }
        }
        assert_eq!(got, b"ABCDEF", "{kind}");
    }
}
