//! Rings whose queues are far too short for what goes through them.

use super::selector::RingSelector;
use crate::facilities::Facilities;
use crate::sockets::driver::SocketDriver;
use crate::sockets::share_of_turn;
use crate::sys::ring::Wish;
use lastbyte::{
    AttachOptions, BackendKind, CloseOutcome, Driver, DriverConfig, Event, EventQueue, Facility,
    Payload, Reached, Received, Restrictions, Watch,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 48;
const ROUNDS: usize = 20;

/// Places for submissions and for completions.
const SHORT: (u32, u32) = (2, 4);

/// A driver over such a ring, or `None` where there are no rings.
fn driver(
    disabled: &str,
    (entries, completions): (u32, u32),
    queue: &EventQueue,
) -> Option<Box<dyn Driver>> {
    let restrictions: Restrictions = disabled.parse().unwrap();
    let report = crate::report(&restrictions);
    if !report.has(Facility::IoUring) {
        eprintln!("no rings here: {:?}", report.support(Facility::IoUring));
        return None;
    }
    let facilities = Facilities::of(&report, BackendKind::IoUring);
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 1;
    let wish = Wish { entries, completions, deferred: facilities.ring.deferred };
    let limit = share_of_turn(&config);
    let selector = RingSelector::with_queues(&config, facilities.ring, wish, limit).unwrap();
    Some(Box::new(SocketDriver::new(selector, queue.sink(), config, facilities)))
}

/// How long the answer to client `n` is in each round.
fn len_of_answer(n: usize, round: usize) -> usize {
    1000 + n * 97 + round % 20 * 1009
}

/// Asks for, and checks, answers; says when it has seen the end.
fn client(address: std::net::SocketAddr, n: usize, rounds: usize) {
    let mut socket = TcpStream::connect(address).unwrap();
    for round in 0..rounds {
        socket.write_all(&[u8::try_from(n).unwrap()]).unwrap();
        let mut answer = vec![0; len_of_answer(n, round)];
        socket.read_exact(&mut answer).unwrap();
        assert!(answer.iter().all(|byte| usize::from(*byte) == n), "wrong bytes for {n}");
    }
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

/// Everything happens, once, whatever the queues do.
fn everything_through_queues(
    disabled: &str,
    places: (u32, u32),
    connections: usize,
    all_rounds: usize,
) {
    let queue = EventQueue::default();
    let Some(mut driver) = driver(disabled, places, &queue) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    driver.listen(listener).unwrap();
    let clients: Vec<_> = (0..connections)
        .map(|n| std::thread::spawn(move || client(address, n, all_rounds)))
        .collect();
    let mut rounds = HashMap::new();
    let (mut acked, mut released, mut closed) = (0, 0, 0);
    let began = Instant::now();
    while closed < connections {
        assert!(began.elapsed() < PATIENCE, "stuck: {acked} acked, {closed} closed: {driver:?}");
        driver.turn(Some(Duration::from_millis(100))).unwrap();
        while let Some(event) = queue.pop() {
            match event {
                Event::Accepted { socket, .. } => {
                    let attached = driver.attach(socket, &AttachOptions::default()).unwrap();
                    driver.receive(attached.connection).unwrap();
                }
                Event::Received { connection, received: Received::Data(data), .. } => {
                    let round = rounds.entry(connection).or_insert(0);
                    assert_eq!(data.len(), 1);
                    let len = len_of_answer(usize::from(data[0]), *round);
                    *round += 1;
                    let payload = Payload::from(vec![data[0]; len]);
                    driver.submit(connection, payload, Watch::ACKED).unwrap();
                    driver.receive(connection).unwrap();
                }
                Event::Received { connection, received: Received::End, .. } => {
                    driver.close(connection, PATIENCE).unwrap();
                }
                Event::Transfer(completion) => match completion.reached {
                    Reached::Acked => acked += 1,
                    Reached::Released(_) => released += 1,
                    other => panic!("{other:?}"),
                },
                Event::Closed { outcome, .. } => {
                    assert_eq!(outcome, CloseOutcome::Graceful);
                    closed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!((acked, released), (connections * all_rounds, connections * all_rounds));
    let counters = driver.counters();
    assert_eq!((counters.unreleased_bytes, counters.leaked_bytes), (0, 0));
    if places == SHORT {
        let full = (counters.submissions_full, counters.completions_full);
        assert!(full.0 > 0 && full.1 > 0, "the queues were never full: {full:?}");
    }
}

#[test]
fn everything_happens_once_through_short_queues() {
    everything_through_queues("", SHORT, CONNECTIONS, ROUNDS);
}

#[test]
fn everything_happens_once_through_short_queues_that_fill_by_themselves() {
    everything_through_queues("uring-taskrun", SHORT, CONNECTIONS, ROUNDS);
}

#[test]
fn everything_happens_once_through_short_queues_by_readiness() {
    let disabled = "uring-receive,uring-timestamps,uring-send,uring-accept";
    everything_through_queues(disabled, SHORT, CONNECTIONS, ROUNDS);
}

/// Linux 6.18 counts a completion that it has not written when a stamp would be
/// the last of a round and one completion was unread when the round began.
#[test]
fn a_completion_that_was_never_written_is_not_taken_for_one() {
    everything_through_queues("", (8, 16), 4, 10_000);
}

/// What has ended is not received from, nor polled, once more with each turn until its
/// turn comes: a thousand resets at once take a few operations each, not hundreds.
fn many_ends_take_few_operations(disabled: &str) {
    const MANY: u16 = 1000;
    const PLACES: u32 = 64;
    let queue = EventQueue::default();
    let Some(mut driver) = driver(disabled, (PLACES, 4096), &queue) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut peers = Vec::new();
    for _ in 0..MANY {
        peers.push(TcpStream::connect(address).unwrap());
        let (own, _) = listener.accept().unwrap();
        let attached = driver.attach(own.into(), &AttachOptions::default()).unwrap();
        driver.receive(attached.connection).unwrap();
    }
    for _ in 0..8 {
        driver.turn(Some(Duration::ZERO)).unwrap();
    }
    let before = driver.counters().submissions_full;
    for peer in peers {
        socket2::Socket::from(peer).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let began = Instant::now();
    let mut closed = 0;
    while closed < MANY {
        assert!(began.elapsed() < PATIENCE, "stuck after {closed}: {driver:?}");
        driver.turn(Some(Duration::from_millis(100))).unwrap();
        while let Some(event) = queue.pop() {
            closed += u16::from(matches!(event, Event::Closed { .. }));
        }
    }
    let full = driver.counters().submissions_full - before;
    let most = u64::from(MANY) * 4 / u64::from(PLACES);
    assert!(full <= most, "{} operations for {MANY} ends", full * u64::from(PLACES));
}

#[test]
fn many_resets_take_few_operations() {
    many_ends_take_few_operations("");
}

#[test]
fn many_resets_take_few_operations_by_readiness() {
    many_ends_take_few_operations("uring-receive,uring-timestamps");
}

/// Whether `peer` has a byte to read within a little while.
fn is_answered(mut peer: &TcpStream) -> bool {
    peer.set_nonblocking(true).unwrap();
    (0..100).any(|_| {
        let read = peer.read(&mut [0]);
        if read.is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        matches!(read, Ok(1))
    })
}

/// Answers leave while other requests still wait to be told. A queue that fills up is
/// handed over because of that, so this one has room for all.
fn answers_leave_during_a_backlog(disabled: &str) {
    const MANY: usize = 1000;
    let queue = EventQueue::default();
    let Some(mut driver) = driver(disabled, (4096, 8192), &queue) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut peers = HashMap::new();
    for _ in 0..MANY {
        let peer = TcpStream::connect(address).unwrap();
        let (own, _) = listener.accept().unwrap();
        let connection = driver.attach(own.into(), &AttachOptions::default()).unwrap().connection;
        driver.receive(connection).unwrap();
        peers.insert(connection, peer);
    }
    for _ in 0..8 {
        driver.turn(Some(Duration::ZERO)).unwrap();
    }
    for mut peer in peers.values() {
        peer.write_all(&[1]).unwrap();
    }
    let mut told_in = Vec::new();
    let (mut told, mut turns) = (0, 0);
    let began = Instant::now();
    while told < MANY * 3 / 4 {
        assert!(began.elapsed() < PATIENCE, "{told} told: {driver:?}");
        driver.turn(Some(Duration::from_millis(100))).unwrap();
        turns += 1;
        while let Some(event) = queue.pop() {
            if let Event::Received { connection, .. } = event {
                told += 1;
                told_in.push((turns, connection));
                driver.submit(connection, Payload::from(vec![1]), Watch::NONE).unwrap();
            }
        }
    }
    assert!(told < MANY, "all of {MANY} were told at once");
    told_in.retain(|(turn, _)| turn + 3 <= turns);
    assert!(!told_in.is_empty(), "{told} of {MANY} were told in {turns} turns");
    for (turn, connection) in told_in {
        let is_answered = is_answered(&peers[&connection]);
        assert!(is_answered, "what turn {turn} told has no answer after {turns}");
    }
}

#[test]
fn answers_leave_while_requests_wait() {
    answers_leave_during_a_backlog("");
}

#[test]
fn answers_leave_while_requests_wait_on_a_ring_that_fills_by_itself() {
    answers_leave_during_a_backlog("uring-taskrun");
}

/// Dropping a driver in the middle of everything lets go of everything.
#[test]
fn dropping_ends_what_is_under_way_and_frees_or_counts() {
    let queue = EventQueue::default();
    let Some(mut driver) = driver("", SHORT, &queue) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(TcpStream::connect(address).unwrap());
        let (own, _) = listener.accept().unwrap();
        let attached = driver.attach(own.into(), &AttachOptions::default()).unwrap();
        driver.receive(attached.connection).unwrap();
        for _ in 0..4 {
            let payload = Payload::from(vec![7; 1 << 20]);
            driver.submit(attached.connection, payload, Watch::ALL).unwrap();
        }
    }
    for _ in 0..20 {
        driver.turn(Some(Duration::from_millis(1))).unwrap();
    }
    // Some of it is with the kernel and waits for peers that do not read, some
    // was started and not even submitted.
    drop(driver);
    let (mut released, mut closed) = (0, 0);
    while let Some(event) = queue.pop() {
        match event {
            Event::Transfer(completion) => {
                released += usize::from(matches!(completion.reached, Reached::Released(_)));
            }
            Event::Closed { .. } => closed += 1,
            _ => {}
        }
    }
    assert_eq!((released, closed), (32, 8));
    drop(peers);
}
