//! C5, C8 and C9 for memory that the kernel has pinned once for all: the same
//! completions, the same bytes, and no buffer back before its time.

use super::{WATCHES, close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::peers::{End, Puppet, reader, reset};
use crate::rig::{PATIENCE, Rig};
use crate::sys::limits::{self, Resource};
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject, pattern};
use lastbyte::{
    BackendKind, ConnectionId, Facility, Method, NotRegistered, Payload, Pool, TransferId, Watch,
};
use std::time::{Duration, Instant};

/// Small enough for a container's limit on locked memory.
const SIZE: usize = 8 << 10;
const COUNT: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C05-registered-memory-is-reused-at-once",
            "buffers of a registered pool are refilled as soon as they come back; headers and \
             bodies of one pool, with every set of watched stages, arrive intact",
            reused_at_once,
        ),
        Case::new(
            "C05-registered-memory-outlives-its-registration",
            "unregistered, and its pool dropped, while a stalled peer lacks it: intact",
            outlives_registration,
        ),
        Case::new(
            "C05-registered-memory-survives-abort-and-reset",
            "buffers survive until the kernel lets go, and all come back to their pool",
            abort_and_reset,
        ),
        Case::new(
            "C05-registered-memory-survives-the-drop-of-the-driver",
            "what the peer still receives after the driver is gone is intact",
            driver_dropped,
        ),
        Case::new(
            "C08-what-cannot-be-registered-is-sent-all-the-same",
            "a pool that is not contiguous, one too many, one registered twice, one unregistered",
            refusals,
        ),
        Case::new(
            "C09-no-room-to-register-is-said",
            "beyond RLIMIT_MEMLOCK registering says ENOMEM, and the pool is sent all the same",
            no_room,
        ),
    ]
}

/// Registers `pool`, and says why not where this backend need not.
fn register(subject: &Subject, rig: &mut Rig, pool: &Pool) -> Result<Option<Lack>, Failure> {
    match (rig.driver().register(pool), why_not(subject)) {
        (Ok(()), None) => Ok(None),
        (Err(NotRegistered::Unsupported), Some(lack)) => Ok(Some(lack)),
        // All that this user has pinned counts, other processes included.
        (Err(NotRegistered::System { errno: libc::ENOMEM, .. }), None) => {
            let what = "room for registered memory (RLIMIT_MEMLOCK)".into();
            Ok(Some(Lack { what, errno: Some(libc::ENOMEM) }))
        }
        (got, lack) => Err(Failure::new(format!("registering gave {got:?}; lacking: {lack:?}"))),
    }
}

/// Why this backend need not register anything.
fn why_not(subject: &Subject) -> Option<Lack> {
    let kind = subject.backend().kind();
    if kind != BackendKind::IoUring {
        return Some(Lack::of(format!("registered memory: the {kind} backend has none")));
    }
    [Facility::ZeroCopy, Facility::UringZeroCopy, Facility::UringFixedBuffers]
        .into_iter()
        .find_map(|facility| subject.lacks(facility))
        // The end of a connection is held up for memory, and only a look tells
        // when it is otherwise done.
        .or_else(|| {
            subject.lacks(Facility::TcpInfo)?;
            subject.lacks(Facility::OutQueue)
        })
}

/// What was shown.
fn proof(lack: Option<Lack>) -> Proof {
    lack.map_or(Proof::full(), |lack| {
        Proof::substitute(lack, "the same payloads, pinned each time or copied, are intact")
    })
}

/// A payload of `buffers` of `pool`, each full of the pattern from `at` on.
fn payload(pool: &Pool, at: u64, buffers: usize) -> Payload {
    let mut payload = Payload::new();
    for n in 0..buffers {
        let mut buffer = pool.take();
        buffer.spare().fill(0xEE);
        // A first one that is short is a header.
        let len = if n == 0 && buffers > 1 { 200 } else { SIZE };
        buffer.fill_from(&pattern::bytes(at + payload.len(), len));
        payload.push(buffer);
    }
    payload
}

fn send(
    rig: &mut Rig,
    connection: ConnectionId,
    pool: &Pool,
    buffers: usize,
    watch: Watch,
) -> Result<TransferId, Failure> {
    let payload = payload(pool, rig.position(connection), buffers);
    Ok(rig.submit(connection, payload, watch, None)?)
}

fn reused_at_once(subject: &Subject) -> Result<Proof, Failure> {
    let pool = Pool::contiguous(SIZE, COUNT);
    let mut rig = Rig::eager(subject)?;
    let lack = register(subject, &mut rig, &pool)?;
    let registered = rig.driver().counters().registered_bytes;
    let expected = if lack.is_some() { 0 } else { (SIZE * COUNT) as u64 };
    ensure!(registered == expected, "{registered} bytes are said to be registered");
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = reader(peer)?;
    for watch in WATCHES.into_iter().cycle().take(40) {
        for buffers in [1, COUNT] {
            let transfer = send(&mut rig, connection, &pool, buffers, watch)?;
            rig.until("the buffers to come back", |record| {
                record.told(connection, transfer).released.is_some()
            })?;
            ensure!(pool.idle() == COUNT, "released, but not back in the pool");
        }
    }
    rig.settle()?;
    expect_nothing_held(&mut rig)?;
    let counters = rig.driver().counters();
    let (sent, zero_copied) = (counters.sent_registered_bytes, counters.method(Method::ZeroCopy));
    // A short send is taken up again with what is left of it.
    ensure!(
        lack.is_some() || sent >= zero_copied,
        "of {zero_copied} bytes by zero copy, {sent} were registered"
    );
    ensure!(lack.is_some() == (sent == 0), "{sent} bytes were sent out of registered memory");
    close_and_compare(&mut rig, connection, peer)?;
    Ok(proof(lack))
}

fn outlives_registration(subject: &Subject) -> Result<Proof, Failure> {
    const TRANSFERS: usize = 24;
    let pool = Pool::contiguous(SIZE, COUNT * TRANSFERS);
    let mut rig = Rig::eager(subject)?;
    let lack = register(subject, &mut rig, &pool)?;
    let wire = Wire { peer_window: Some(16 << 10), ..Wire::default() };
    let (connection, peer) = rig.connect(subject, wire)?;
    let mut puppet = Puppet::new(peer)?;
    for n in 0..TRANSFERS {
        send(&mut rig, connection, &pool, COUNT, Watch::ALL)?;
        if n % 3 == 0 {
            rig.turn(Duration::ZERO)?;
        }
    }
    // Some of it is with the kernel by now, some was not even handed over.
    rig.driver().unregister(&pool);
    let still = rig.driver().counters().registered_bytes;
    ensure!(still == 0, "{still} bytes are said to be registered");
    drop(pool);
    let deadline = Instant::now() + PATIENCE;
    while !rig.record.is_settled() {
        ensure!(Instant::now() < deadline, "stuck");
        puppet.read(64 << 10)?;
        rig.turn(Duration::from_millis(1))?;
    }
    while puppet.read(64 << 10)? > 0 {}
    rig.settle()?;
    puppet.seen.expect(rig.position(connection), End::Left)?;
    expect_nothing_held(&mut rig)?;
    Ok(proof(lack))
}

fn abort_and_reset(subject: &Subject) -> Result<Proof, Failure> {
    let pool = Pool::contiguous(SIZE, COUNT);
    let mut rig = Rig::eager(subject)?;
    let lack = register(subject, &mut rig, &pool)?;
    for abort in [true, false] {
        let wire = Wire { peer_window: Some(4096), ..Wire::default() };
        let (connection, peer) = rig.connect(subject, wire)?;
        let mut puppet = Puppet::new(peer)?;
        for _ in 0..COUNT {
            send(&mut rig, connection, &pool, 1, Watch::ALL)?;
        }
        rig.linger(Duration::from_millis(20))?;
        puppet.read(2000)?;
        if abort {
            rig.driver().abort(connection)?;
        }
        puppet.seen.expect_intact()?;
        let left = (!abort).then(|| reset(puppet.into_far_end()));
        left.transpose()?;
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
        expect_nothing_held(&mut rig)?;
        ensure!(pool.idle() == COUNT, "only {} of {COUNT} buffers came back", pool.idle());
    }
    Ok(proof(lack))
}

fn driver_dropped(subject: &Subject) -> Result<Proof, Failure> {
    let pool = Pool::contiguous(SIZE, COUNT);
    let mut rig = Rig::eager(subject)?;
    let lack = register(subject, &mut rig, &pool)?;
    let wire = Wire { peer_window: Some(4096), ..Wire::default() };
    let (connection, peer) = rig.connect(subject, wire)?;
    let mut puppet = Puppet::new(peer)?;
    for _ in 0..COUNT {
        send(&mut rig, connection, &pool, 1, Watch::ALL)?;
    }
    rig.linger(Duration::from_millis(20))?;
    rig.drop_driver()?;
    // What came back is at once something else's.
    let leaked = rig.record.transfers().filter(|told| told.leaked).count();
    ensure!(pool.idle() + leaked == COUNT, "{} idle and {leaked} leaked", pool.idle());
    for _ in 0..pool.idle() {
        pool.take().spare().fill(0xEE);
    }
    drop(pool);
    while puppet.read(64 << 10)? > 0 {}
    puppet.seen.expect_intact()?;
    Ok(proof(lack))
}

fn refusals(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let apart = rig.driver().register(&Pool::new(SIZE, COUNT));
    ensure!(apart == Err(NotRegistered::NotContiguous), "a pool in pieces: {apart:?}");
    let pool = Pool::contiguous(SIZE, COUNT);
    rig.driver().unregister(&pool);
    let lack = register(subject, &mut rig, &pool)?;
    register(subject, &mut rig, &pool)?;
    let expected = if lack.is_some() { 0 } else { (SIZE * COUNT) as u64 };
    let registered = rig.driver().counters().registered_bytes;
    ensure!(registered == expected, "registered twice: {registered} bytes");
    if lack.is_none() {
        let more: Vec<_> = (0..1000).map(|_| Pool::contiguous(1, 1)).collect();
        let refused = more.iter().map(|pool| rig.driver().register(pool)).find_map(Result::err);
        // Each takes a page of what may be locked.
        let (most, enough) = (more.len(), rig.driver().counters().registered_bytes - expected + 1);
        ensure!(
            match refused {
                Some(NotRegistered::TooMany { allowed }) => allowed as u64 == enough,
                Some(NotRegistered::System { errno, .. }) => errno == libc::ENOMEM,
                _ => false,
            },
            "of {most} pools, registering one gave {refused:?}"
        );
        more.iter().for_each(|pool| rig.driver().unregister(pool));
        rig.driver().unregister(&pool);
        let left = rig.driver().counters().registered_bytes;
        ensure!(left == 0, "{left} bytes stay registered");
        ensure!(rig.driver().register(&pool).is_ok(), "no room after others have gone");
    }
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for pool in [&pool, &Pool::new(SIZE, COUNT)] {
        for _ in 0..4 {
            send(&mut rig, connection, pool, COUNT, Watch::ALL)?;
            rig.settle()?;
        }
    }
    expect_nothing_held(&mut rig)?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(proof(lack))
}

fn no_room(subject: &Subject) -> Result<Proof, Failure> {
    /// No test allocates more than that, touched or not.
    const MOST: u64 = 1 << 30;
    // The privilege is this thread's alone, and so is the lack of it.
    limits::give_up_pinning()?;
    let (limit, _) = limits::limits(Resource::PinnedMemory)?;
    let count = usize::try_from(limit.min(MOST))? / SIZE + 1;
    let pool = Pool::contiguous(SIZE, count);
    let mut rig = Rig::eager(subject)?;
    let registered = rig.driver().register(&pool);
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..8 {
        send(&mut rig, connection, &pool, COUNT, Watch::ALL)?;
        rig.settle()?;
    }
    expect_nothing_held(&mut rig)?;
    close_and_compare(&mut rig, connection, peer)?;
    if let Some(lack) = why_not(subject) {
        return Ok(proof(Some(lack)));
    }
    if limit > MOST {
        let lack = Lack::of(format!("a limit to run into: RLIMIT_MEMLOCK is {limit}"));
        return Ok(proof(Some(lack)));
    }
    let Err(error @ NotRegistered::System { errno: libc::ENOMEM, .. }) = registered else {
        return Err(Failure::new(format!(
            "registering {} bytes with a limit of {limit} gave {registered:?}",
            count * SIZE
        )));
    };
    let (text, sent) = (error.to_string(), rig.driver().counters().sent_registered_bytes);
    ensure!(text.contains("ulimit -l"), "'{text}' does not say what can be done");
    ensure!(sent == 0, "{sent} bytes went out of memory that is not registered");
    Ok(Proof::noting(text))
}
