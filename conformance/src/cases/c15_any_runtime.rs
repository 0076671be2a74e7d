//! C15: turned by anybody, moved anywhere, and fair.

use super::close_and_compare;
use crate::failure::{Failure, ensure};
use crate::peers::reader;
use crate::rig::{PATIENCE, Rig};
use crate::sys::poll;
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use bytes::Bytes;
use lastbyte::{AttachOptions, Driver, DriverConfig, Payload, Watch};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C15-a-driver-moves-with-its-connections",
            "a movable driver with transfers under way goes on in another thread",
            moves,
        ),
        Case::new(
            "C15-woken-in-a-foreign-loop",
            "each wake-up makes the descriptor readable, not only the first",
            woken_there,
        ),
        Case::new(
            "C15-turned-by-a-foreign-loop",
            "its descriptor and its deadline are all that another event loop needs",
            foreign_loop,
        ),
        Case::new(
            "C15-delivered-by-a-call",
            "what a submission has brought about is delivered without a turn, and once",
            delivered_by_a_call,
        )
        .over_each_transport(),
        Case::new(
            "C15-woken-from-another-thread",
            "a waker ends a wait, and one that came too soon is not lost",
            woken,
        ),
        Case::new(
            "C15-a-huge-transfer-starves-nobody",
            "a short transfer ends while a huge one is under way, within a few turns",
            starves_nobody,
        ),
        Case::new(
            "C15-a-turn-is-bounded",
            "one turn accepts and receives no more than it was told to",
            turn_is_bounded,
        ),
        Case::new(
            "C15-drivers-know-nothing-of-each-other",
            "drivers in several threads work side by side, and names do not cross",
            side_by_side,
        ),
        Case::new(
            "C15-a-listener-comes-back",
            "unlisten stops accepting and returns a listener that works",
            unlisten,
        ),
        Case::new(
            "C15-a-turn-without-waiting-returns",
            "a turn that may not wait does not, and nothing happens twice",
            does_not_wait,
        ),
    ]
}

fn moves(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::movable(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = reader(peer)?;
    rig.send(connection, 100_000, Watch::ALL)?;
    rig.turn(Duration::from_millis(1))?;
    for _ in 0..10 {
        rig.send(connection, 300_000, Watch::ALL)?;
    }
    let there = std::thread::spawn(move || -> Result<_, Failure> {
        rig.turn(Duration::from_millis(1))?;
        rig.send(connection, 1000, Watch::ALL)?;
        Ok(rig)
    });
    let mut rig = there.join().map_err(|_| Failure::new("panicked in the other thread"))??;
    // And back again.
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn foreign_loop(subject: &Subject) -> Result<Proof, Failure> {
    turned_there(Rig::movable(subject)?, subject)?;
    turned_there(Rig::new(subject)?, subject)
}

fn turned_there<D: Driver + ?Sized>(mut rig: Rig<D>, subject: &Subject) -> Result<Proof, Failure> {
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    if rig.driver().pollable().is_none() {
        let peer = reader(peer)?;
        rig.send(connection, 500_000, Watch::ALL)?;
        rig.settle()?;
        close_and_compare(&mut rig, connection, peer)?;
        let lack = Lack::of("a descriptor to poll: this backend has none");
        return Ok(Proof::substitute(lack, "it is turned by its own thread"));
    }
    let mut answering = peer.second()?;
    let peer = reader(peer)?;
    rig.driver().receive(connection)?;
    for _ in 0..5 {
        rig.send(connection, 300_000, Watch::ALL)?;
    }
    let turns = foreign(&mut rig, |rig| rig.record.is_settled())?;
    answering.write_all(b"and now?")?;
    foreign(&mut rig, |rig| rig.record.line(connection).inputs > 0)?;
    // With nothing to do it is not readable for long.
    let began = Instant::now();
    let mut idle = 0;
    while began.elapsed() < Duration::from_millis(60) {
        idle += u32::from(poll_once(&mut rig, Duration::from_millis(20))?);
        rig.turn(Duration::ZERO)?;
    }
    ensure!(idle < 20, "readable {idle} times, with nothing to do");
    drop(answering);
    rig.driver().close(connection, PATIENCE)?;
    foreign(&mut rig, |rig| rig.record.is_closed(connection))?;
    peer.join()?.expect(1_500_000, crate::peers::End::Finished)?;
    Ok(Proof::noting(format!("{turns} turns for 1.5 MB")))
}

/// Turns only when the descriptor is readable, the deadline has come, or the
/// last turn said that there is more; never waits inside of a turn.
fn foreign<D: Driver + ?Sized>(
    rig: &mut Rig<D>,
    done: impl Fn(&Rig<D>) -> bool,
) -> Result<u32, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut turns = 0;
    let mut more = true;
    while !done(rig) {
        ensure!(
            Instant::now() < deadline,
            "not readable and no deadline: stuck after {turns} turns"
        );
        if !more {
            poll_once(rig, PATIENCE)?;
        }
        more = rig.turn(Duration::ZERO)?.more;
        turns += 1;
    }
    Ok(turns)
}

fn poll_once<D: Driver + ?Sized>(rig: &mut Rig<D>, most: Duration) -> Result<bool, Failure> {
    let now = rig.now();
    let wait = rig.driver().next_turn_by().map_or(most, |by| by.since(now).min(most));
    let Some(pollable) = rig.driver().pollable() else {
        return Err(Failure::new("the descriptor has gone"));
    };
    Ok(poll::readable(pollable, wait)?)
}

fn woken_there(subject: &Subject) -> Result<Proof, Failure> {
    told_of_wakes(Rig::movable(subject)?, subject)?;
    told_of_wakes(Rig::new(subject)?, subject)
}

fn told_of_wakes<D: Driver + ?Sized>(mut rig: Rig<D>, subject: &Subject) -> Result<Proof, Failure> {
    if rig.driver().pollable().is_none() {
        let lack = Lack::of("a descriptor to poll: this backend has none");
        return Ok(Proof::substitute(lack, "it is woken where it waits, in a turn"));
    }
    // Something else that could make it readable is under way.
    let (connection, _peer) = rig.connect(subject, Wire::default())?;
    rig.driver().receive(connection)?;
    for nth in 1..=20 {
        // Until there is nothing to do.
        loop {
            let is_readable = poll_once(&mut rig, Duration::ZERO)?;
            let by = rig.driver().next_turn_by();
            let is_due = by.is_some_and(|by| by <= rig.now());
            if !is_readable && !is_due {
                break;
            }
            rig.turn(Duration::ZERO)?;
        }
        let waker = rig.driver().waker();
        let waking = std::thread::spawn(move || waker.wake());
        let Some(pollable) = rig.driver().pollable() else {
            return Err(Failure::new("the descriptor has gone"));
        };
        // Not the deadline: it alone has to tell.
        let told = poll::readable(pollable, Duration::from_secs(5))?;
        waking.join().map_err(|_| Failure::new("the waking thread panicked"))?;
        ensure!(told, "wake-up {nth} was not told");
    }
    Ok(Proof::full())
}

fn delivered_by_a_call(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let (mut by_calls, mut by_turns) = (0, 0);
    for _ in 0..200 {
        rig.send(connection, 100, Watch::ALL)?;
        let told = rig.driver().deliver();
        let now = rig.now();
        ensure!(rig.take_events(now) == told, "{told} events were said to be delivered");
        by_calls += told;
        ensure!(rig.driver().deliver() == 0, "delivered again");
        by_turns += rig.turn(Duration::ZERO)?.delivered;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    // A ring begins nothing before a turn.
    Ok(Proof::noting(format!("{by_calls} events by calls, {by_turns} by turns meanwhile")))
}

fn woken(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let waker = rig.driver().waker();
    // Too soon, twice.
    waker.wake();
    waker.wake();
    rig.driver().turn(None)?;
    for longest in [None, Some(Duration::MAX)] {
        let other = rig.driver().waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            other.wake();
        });
        let began = Instant::now();
        rig.driver().turn(longest)?;
        let waited = began.elapsed();
        thread.join().map_err(|_| Failure::new("waking panicked"))?;
        let enough = waited >= Duration::from_millis(5);
        ensure!(enough, "{longest:?} to wait, nothing new, and it was {waited:?}");
    }
    // What else is asked of the driver meanwhile does not use a wake-up up.
    let listener = rig.driver().listen(TcpListener::bind("127.0.0.1:0")?)?;
    rig.turn(Duration::from_millis(1))?;
    waker.wake();
    drop(rig.driver().unlisten(listener));
    let began = Instant::now();
    rig.driver().turn(Some(PATIENCE))?;
    ensure!(began.elapsed() < PATIENCE / 2, "a wake-up was lost to another call");
    // A waker may outlive its driver.
    drop(rig);
    waker.wake();
    Ok(Proof::full())
}

fn starves_nobody(subject: &Subject) -> Result<Proof, Failure> {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 400;
    let mut config = DriverConfig::default();
    config.write_burst = 256 << 10;
    config.zero_copy_threshold = u64::MAX;
    let mut rig = Rig::configured(subject, &config)?;
    let mut options = AttachOptions::default();
    options.max_memory = u64::MAX;
    let pair = Wire::default().pair(subject)?;
    let huge = rig.attach(pair.own, &options)?;
    let glutton = reader_of_anything(pair.peer)?;
    let piece = Bytes::from(vec![7; PIECE]);
    let mut payload = Payload::new();
    (0..PIECES).for_each(|_| payload.push(piece.clone()));
    let (short, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let long = rig.submit(huge, payload, Watch::ACKED, None)?;
    let mut most = 0;
    let mut rounds = 0;
    while rounds < 20 && !rig.record.told(huge, long).is_concluded() {
        let transfer = rig.send(short, 1000, Watch::ACKED)?;
        let mut turns = 0;
        while !rig.record.told(short, transfer).is_over() {
            // Only turns that did something are the driver's fault.
            let turn = rig.turn(Duration::from_millis(1))?;
            turns += u32::from(turn.more || turn.delivered > 0);
            ensure!(turns < 1000, "a short transfer takes more than {turns} turns");
        }
        most = most.max(turns);
        rounds += 1;
    }
    ensure!(rounds > 1, "the huge transfer ended before the first short one");
    rig.settle()?;
    close_and_compare(&mut rig, short, peer)?;
    rig.close(huge)?;
    let got = glutton.join().map_err(|_| Failure::new("the peer panicked"))??;
    ensure!(got == (PIECE * PIECES) as u64, "{got} bytes of the huge transfer arrived");
    Ok(Proof::noting(format!("{rounds} short transfers meanwhile, each within {most} turns")))
}

fn reader_of_anything(
    mut socket: TcpStream,
) -> Result<std::thread::JoinHandle<std::io::Result<u64>>, Failure> {
    let read = move || std::io::copy(&mut socket, &mut std::io::sink());
    Ok(std::thread::Builder::new().name("peer".into()).spawn(read)?)
}

fn turn_is_bounded(subject: &Subject) -> Result<Proof, Failure> {
    const CONNECTIONS: usize = 24;
    let mut config = DriverConfig::default();
    config.accept_burst = 3;
    config.events_per_turn = 4;
    let mut rig = Rig::configured(subject, &config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    rig.driver().listen(listener)?;
    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut peer = TcpStream::connect(address)?;
        peer.write_all(b"hello")?;
        peers.push(peer);
    }
    let mut connections = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while connections.len() < CONNECTIONS {
        ensure!(Instant::now() < deadline, "{} of {CONNECTIONS} accepted", connections.len());
        rig.turn(Duration::from_millis(50))?;
        let accepted = rig.record.accepted.len();
        ensure!(accepted <= 3, "{accepted} accepted in a turn, 3 may be");
        while let Some((_, socket)) = rig.record.accepted.pop_front() {
            connections.push(rig.attach(socket, &AttachOptions::default())?);
        }
    }
    for connection in &connections {
        rig.driver().receive(*connection)?;
    }
    let mut received = 0;
    while received < CONNECTIONS {
        ensure!(Instant::now() < deadline, "{received} of {CONNECTIONS} received");
        rig.turn(Duration::from_millis(50))?;
        let now: usize = connections.iter().map(|id| rig.record.line(*id).inputs).sum();
        ensure!(now - received <= 4, "{} received in a turn, 4 may be", now - received);
        received = now;
    }
    for (connection, peer) in connections.into_iter().zip(peers) {
        rig.driver().abort(connection)?;
        drop(peer);
    }
    rig.until("all connections to close", |record| {
        record.lines().all(|(_, line)| line.closed.is_some())
    })?;
    Ok(Proof::full())
}

fn side_by_side(subject: &Subject) -> Result<Proof, Failure> {
    let failures = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || -> Result<(), Failure> {
                    let mut rig = Rig::eager(subject)?;
                    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
                    let peer = reader(peer)?;
                    for _ in 0..10 {
                        rig.send(connection, 50_000 + n * 10_000, Watch::ALL)?;
                    }
                    rig.settle()?;
                    close_and_compare(&mut rig, connection, peer)
                })
            })
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for failure in failures {
        failure.map_err(|_| Failure::new("a driver panicked"))??;
    }
    Ok(Proof::full())
}

fn unlisten(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let id = rig.driver().listen(listener)?;
    let first = TcpStream::connect(address)?;
    rig.until("a connection", |record| !record.accepted.is_empty())?;
    let Some((listened, socket)) = rig.record.accepted.pop_front() else {
        return Err(Failure::new("no connection"));
    };
    ensure!(listened == id, "accepted by another listener");
    let peer = socket.peer();
    ensure!(peer.is_none() || peer == Some(first.local_addr()?), "accepted from {peer:?}");
    // An accepted socket is complete: request, response, end.
    let connection = rig.attach(socket, &AttachOptions::default())?;
    rig.driver().receive(connection)?;
    (&first).write_all(b"hi")?;
    rig.until("the request", |record| record.line(connection).inputs > 0)?;
    let reading = reader(first)?;
    rig.send(connection, 70_000, Watch::ALL)?;
    rig.settle()?;
    close_and_compare(&mut rig, connection, reading)?;

    let Some(listener) = rig.driver().unlisten(id) else {
        return Err(Failure::new("the listener is gone"));
    };
    ensure!(rig.driver().unlisten(id).is_none(), "given back twice");
    let mut second = TcpStream::connect(address)?;
    rig.linger(Duration::from_millis(30))?;
    ensure!(rig.record.accepted.is_empty(), "accepted by a listener that was taken away");
    listener.set_nonblocking(false)?;
    let (mut socket, _) = listener.accept()?;
    socket.set_nonblocking(false)?;
    socket.write_all(b"x")?;
    second.read_exact(&mut [0])?;
    Ok(Proof::full())
}

fn does_not_wait(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    rig.send(connection, 5000, Watch::ALL)?;
    rig.settle()?;
    let idle = |rig: &mut Rig| -> Result<Duration, Failure> {
        let began = Instant::now();
        let turn = rig.turn(Duration::ZERO)?;
        ensure!(turn.delivered == 0, "something came of nothing: {turn:?}");
        Ok(began.elapsed())
    };
    // If one of these waited for good, only the watchdog would end it. A busy
    // machine may be slow to come back to some, but not to half of them.
    let mut took = (0..51).map(|_| idle(&mut rig)).collect::<Result<Vec<_>, _>>()?;
    took.sort_unstable();
    let median = took[took.len() / 2];
    ensure!(median < Duration::from_millis(20), "a turn that may not wait takes {median:?}");
    for _ in 0..150 {
        idle(&mut rig)?;
    }
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}
