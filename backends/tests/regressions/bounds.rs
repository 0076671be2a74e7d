//! Bounds that bind nothing.

use crate::world::{World, content, is_closed, pair, reached};
use lastbyte::{AttachOptions, DriverConfig, Event, Received, Stage, Watch};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

fn boundless() -> DriverConfig {
    let mut config = DriverConfig::default();
    config.max_connections = u32::MAX;
    config.max_memory = u64::MAX;
    config.receive_buffer = usize::MAX;
    config.receive_ahead = u64::MAX;
    config.events_per_turn = usize::MAX;
    config.write_burst = u64::MAX;
    config.accept_burst = usize::MAX;
    config.zero_copy_threshold = u64::MAX;
    config
}

/// Room for as many events as a turn may handle, and buffers as long as they may be,
/// were asked for as they stood: a panic, or an end of the process.
#[test]
fn a_driver_without_bounds_is_made_and_works() {
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::configured(kind, "", &boundless());
        let (near, mut far) = pair();
        let mut options = AttachOptions::default();
        (options.max_memory, options.max_transfers) = (u64::MAX, usize::MAX);
        let connection = world.driver.attach(near.into(), &options).expect("attaches").connection;
        far.write_all(b"request").expect("writes");
        world.driver.receive(connection).expect("an open connection");
        let events = world.until(|events| !events.is_empty());
        let Event::Received { received: Received::Data(data), .. } = &events[0] else {
            panic!("{kind}: {events:?}");
        };
        assert_eq!(&data[..], b"request", "{kind}");
        world.submit(connection, content(100_000), Watch::ALL);
        let mut answer = vec![0; 100_000];
        let peer = std::thread::spawn(move || {
            far.read_exact(&mut answer).expect("reads");
            far.shutdown(Shutdown::Write).expect("the peer's end");
            (far, answer)
        });
        let events = world.until(|events| !reached(events, Stage::Acked).is_empty());
        assert!(reached(&events, Stage::Failed).is_empty(), "{kind}: {events:?}");
        world.driver.close(connection, Duration::MAX).expect("an open connection");
        world.until(is_closed);
        assert!(peer.join().expect("the peer").1 == content(100_000), "{kind}: other bytes");
    }
}
