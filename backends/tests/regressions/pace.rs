//! How often a driver turns while nothing happens.

use crate::world::{ACK_STAMPS, BOTH, World, content, is_closed, pair, reached, set_stamps};
use lastbyte::{AttachOptions, BackendKind, Event, Stage, StageEvidence, Watch};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The pause between two looks started at nothing, and doubled that.
#[test]
fn looks_at_an_unmoving_close_back_off() {
    for kind in BOTH {
        let mut world = World::new(kind, "");
        let (near, _far) = pair();
        let connection = world.attach(near).connection;
        world.submit(connection, content(400_000), Watch::ALL);
        world.close(connection);
        let events = world.until(|events| !reached(events, Stage::Queued).is_empty());
        assert!(reached(&events, Stage::Acked).is_empty(), "{kind}: {events:?}");
        // 3.5 ms apart would be nearly 300.
        let (turns, events) = world.turns(Duration::from_secs(1));
        assert!(turns < 120, "{kind}: {turns} turns in a second, {events:?}");
    }
}

/// As above: a stamp that did not come was looked for five times a second.
#[test]
fn looks_for_a_stamp_that_does_not_come_back_off() {
    let mut world = World::new(BackendKind::Epoll, "");
    let (near, _far) = pair();
    let attached = world.attach(near);
    if attached.stages.acked != StageEvidence::Kernel {
        return;
    }
    world.submit(attached.connection, content(400_000), Watch::ALL);
    world.turns(Duration::from_millis(2500));
    // 200 ms apart would be 13.
    let (turns, events) = world.turns(Duration::from_millis(2500));
    assert!(turns <= 7, "{turns} turns, {events:?}");
}

/// The fallback reads no stamps, and so never emptied the error queue that kept
/// its sockets ready.
#[test]
fn stamps_that_a_former_owner_wished_for_do_not_spin_the_fallback() {
    let mut world = World::new(BackendKind::Fallback, "");
    let (mut near, _far) = pair();
    set_stamps(&near, ACK_STAMPS);
    near.write_all(b"before").expect("writes");
    std::thread::sleep(Duration::from_millis(50));
    let connection = world.attach(near).connection;
    world.submit(connection, &b"12345678"[..], Watch::ALL);
    rests(&mut world);
}

/// As above: what is accepted inherits the listener's wishes.
#[test]
fn stamps_that_a_listener_wishes_for_do_not_spin_the_fallback() {
    let mut world = World::new(BackendKind::Fallback, "");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // A name for each stamp only a connected socket can have.
    set_stamps(&listener, ACK_STAMPS & !libc::SOF_TIMESTAMPING_OPT_ID);
    let address = listener.local_addr().expect("an address");
    world.driver.listen(listener).expect("listens");
    let _far = TcpStream::connect(address).expect("connects");
    let accepted = world.until(|events| !events.is_empty()).pop();
    let Some(Event::Accepted { socket, .. }) = accepted else { panic!("{accepted:?}") };
    let options = AttachOptions::default();
    let connection = world.driver.attach(socket, &options).expect("attaches").connection;
    world.submit(connection, &b"12345678"[..], Watch::ALL);
    rests(&mut world);
}

/// The one transfer is finished, and then nothing happens.
fn rests(world: &mut World) {
    world.until(|events| {
        !reached(events, Stage::Acked).is_empty() && !reached(events, Stage::Released).is_empty()
    });
    let (turns, events) = world.turns(Duration::from_millis(500));
    assert!(events.is_empty(), "{events:?}");
    assert!(turns < 50, "{turns} turns in half a second of nothing");
}

/// Progress was dated to when it was looked for, which was when it should have been
/// missed: a peer that had stopped at once got twice the time.
#[test]
fn a_stall_is_noticed_in_time() {
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let (near, _far) = pair();
        let mut options = AttachOptions::default();
        options.stall_timeout = Some(Duration::from_secs(2));
        let connection = world.driver.attach(near.into(), &options).expect("attaches").connection;
        let began = Instant::now();
        world.submit(connection, content(64 << 20), Watch::NONE);
        world.until(is_closed);
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2), "{kind}: only {took:?}");
        assert!(took < Duration::from_millis(3400), "{kind}: {took:?}");
    }
}

/// Two ends as `pair` makes them, of which the far one takes next to nothing until it
/// reads.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    listener.set_recv_buffer_size(4096).expect("a receive buffer");
    let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&anywhere.into()).expect("a port");
    listener.listen(1).expect("listens");
    let listener = TcpListener::from(listener);
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    (near, listener.accept().expect("accepts").0)
}

/// Each look that submissions brought about doubled the pause until the next, passed or
/// not: after some hundred within milliseconds a stamp that was lost was looked for
/// after five seconds.
#[test]
fn submissions_do_not_put_off_the_look_for_a_lost_stamp() {
    const COUNT: usize = 300;
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let (near, mut far) = narrow_pair();
        let mut options = AttachOptions::default();
        options.max_transfers = COUNT;
        let connection = world.driver.attach(near.into(), &options).expect("attaches").connection;
        for _ in 0..COUNT {
            world.submit(connection, content(1000), Watch::QUEUED | Watch::ACKED);
        }
        let peer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            far.read_exact(&mut vec![0; COUNT * 1000]).expect("reads");
            (far, Instant::now())
        });
        let mut events = world.until(|events| reached(events, Stage::Queued).len() == COUNT);
        // Nobody empties the error queue meanwhile, so the last stamps find no room.
        let (_far, arrived) = peer.join().expect("the peer");
        let acked = |events: &[Event]| reached(events, Stage::Acked).len();
        let before = acked(&events);
        events.extend(world.until(|events| before + acked(events) == COUNT));
        let took = arrived.elapsed();
        assert!(took < Duration::from_millis(2500), "{kind}: told after {took:?}");
    }
}

/// As above: that the peer had moved was seen when it should have been missed, and it
/// got twice the time.
#[test]
fn submissions_do_not_put_off_the_look_for_a_stall() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let (near, mut far) = pair();
        let mut options = AttachOptions::default();
        options.stall_timeout = Some(TIMEOUT);
        options.max_transfers = 1000;
        let connection = world.driver.attach(near.into(), &options).expect("attaches").connection;
        // No stamp comes before all of it has.
        world.submit(connection, content(400_000), Watch::ACKED);
        world.turns(Duration::from_millis(20));
        for _ in 0..300 {
            world.submit(connection, content(10), Watch::ACKED);
        }
        let peer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(600));
            far.read_exact(&mut vec![0; 120_000]).expect("reads");
            (far, Instant::now())
        });
        world.until(is_closed);
        let closed = Instant::now();
        let (_far, stopped) = peer.join().expect("the peer");
        let took = closed - stopped;
        assert!(took < TIMEOUT * 3 / 2, "{kind}: {took:?} after the peer stopped");
    }
}
