//! C1: each watched stage once, one end, one release.

use super::{WATCHES, close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::peers::{Puppet, Stalling, reader, resetting};
use crate::rig::Rig;
use crate::sys::limits;
use crate::wire::Wire;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, CompletionSink, ConnectionId, DriverConfig, Event, FailReason, RefuseReason,
    StageEvidence, Watch, event_channel,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C01-exactly-once-whatever-is-watched",
            "every set of watched stages is told in full, once, and nothing else is",
            whatever_is_watched,
        )
        .over_each_transport(),
        Case::new(
            "C01-exactly-once-when-the-peer-resets",
            "transfers in every state end once when the peer resets",
            peer_resets,
        )
        .over_each_transport(),
        Case::new(
            "C01-exactly-once-when-aborted",
            "transfers in every state end once as Cancelled when the user aborts",
            aborted,
        )
        .over_each_transport(),
        Case::new(
            "C01-exactly-once-when-the-close-deadline-passes",
            "transfers that a close could not finish end once as Timeout",
            close_deadline,
        )
        .over_each_transport(),
        Case::new(
            "C01-exactly-once-when-the-driver-is-dropped",
            "dropping a driver with transfers in every state ends and releases all of them",
            driver_dropped,
        )
        .over_each_transport(),
        Case::new(
            "C01-a-slot-rests-until-its-owners-end-was-taken-in",
            "whoever keeps a table by slots does not lose what is told last of a connection",
            slots_rest,
        )
        .over_each_transport(),
        Case::new(
            "C01-exactly-once-when-the-sink-panics",
            "a panic in the sink costs the event at hand and no other",
            sink_panics,
        )
        .over_each_transport(),
        Case::new(
            "C01-released-when-nobody-listens",
            "payloads are freed although the sink drops every event",
            nobody_listens,
        )
        .over_each_transport(),
        Case::new(
            "C01-thousands-of-transfers",
            "4,000 transfers on one connection, as fast as they are taken, each end once",
            thousands_of_transfers,
        )
        .over_each_transport(),
        Case::new(
            "C01-thousands-of-connections",
            "2,000 connections at once, each with a transfer of its own",
            thousands_of_connections,
        ),
    ]
}

fn whatever_is_watched(subject: &Subject) -> Result<Proof, Failure> {
    for mut rig in [Rig::new(subject)?, Rig::eager(subject)?] {
        let (connection, peer) = rig.connect(subject, Wire::default())?;
        let peer = reader(peer)?;
        for len in [1, 1000, 70_000, 400_000] {
            for watch in WATCHES {
                rig.send(connection, len, watch)?;
            }
            rig.settle()?;
        }
        // Whatever comes now comes twice.
        rig.linger(Duration::from_millis(30))?;
        expect_nothing_held(&mut rig)?;
        close_and_compare(&mut rig, connection, peer)?;
    }
    Ok(Proof::full())
}

/// Transfers that end up acknowledged, queued, half written and not started,
/// as the peer takes only some of them.
fn in_every_state(rig: &mut Rig, connection: ConnectionId) -> Result<(), Failure> {
    for n in 0..24 {
        rig.send(connection, 60_000 + n, WATCHES[n % WATCHES.len()])?;
    }
    Ok(())
}

/// Every transfer ended well or failed for that reason; at least one failed.
fn expect_failed(rig: &Rig, reason: impl Fn(&FailReason) -> bool) -> Result<(), Failure> {
    let mut failed = 0;
    for told in rig.record.transfers() {
        if let Some(failure) = &told.failed {
            failed += 1;
            ensure!(reason(&failure.reason), "failed with {:?}", failure.reason);
        }
    }
    ensure!(failed > 0, "nothing failed, so nothing was shown");
    Ok(())
}

fn peer_resets(subject: &Subject) -> Result<Proof, Failure> {
    for bytes in [0, 1, 300_000] {
        let mut rig = Rig::eager(subject)?;
        let (connection, peer) = rig.connect(subject, narrow_both())?;
        in_every_state(&mut rig, connection)?;
        let peer = resetting(peer, bytes)?;
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
        expect_failed(&rig, |reason| {
            use FailReason::{Reset, System};
            matches!(reason, Reset | System { .. })
        })?;
        peer.join()?.expect_intact()?;
        expect_nothing_held(&mut rig)?;
    }
    Ok(Proof::full())
}

fn aborted(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, narrow_both())?;
    let peer = Stalling::after(peer, 200_000)?;
    in_every_state(&mut rig, connection)?;
    rig.linger(Duration::from_millis(30))?;
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    expect_failed(&rig, |reason| *reason == FailReason::Cancelled)?;
    expect_nothing_held(&mut rig)?;
    peer.join()?.expect_intact()?;
    Ok(Proof::full())
}

fn close_deadline(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, narrow_both())?;
    let peer = Stalling::after(peer, 100_000)?;
    in_every_state(&mut rig, connection)?;
    rig.driver().close(connection, Duration::from_millis(100))?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    expect_failed(&rig, |reason| *reason == FailReason::Timeout)?;
    expect_nothing_held(&mut rig)?;
    peer.join()?.expect_intact()?;
    Ok(Proof::full())
}

fn slots_rest(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let mut slots = Vec::new();
    for _ in 0..50 {
        let old = Wire::default().pair(subject)?;
        let connection = rig.attach(old.own, &AttachOptions::default())?;
        rig.driver().abort(connection)?;
        // Before the end is delivered, and while it waits to be taken in.
        let before = Wire::default().pair(subject)?;
        let before = rig.attach(before.own, &AttachOptions::default())?;
        rig.driver().turn(Some(Duration::ZERO))?;
        let meanwhile = Wire::default().pair(subject)?;
        let meanwhile = rig.attach(meanwhile.own, &AttachOptions::default())?;
        for newer in [before, meanwhile] {
            let slot = newer.slot();
            ensure!(slot != connection.slot(), "{newer} is in the slot of {connection} already");
            slots.push(slot);
        }
        let now = rig.now();
        rig.take_events(now);
        rig.driver().abort(before)?;
        rig.driver().abort(meanwhile)?;
        rig.until("the end of all", |record| {
            [connection, before, meanwhile].iter().all(|id| record.is_closed(*id))
        })?;
    }
    // They are given out again all the same.
    let highest = slots.iter().max().copied().unwrap_or_default();
    ensure!(highest < 12, "slot {highest}, with three connections at a time");
    Ok(Proof::full())
}

fn driver_dropped(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let mut peers = Vec::new();
    for bytes in [0, 1, 500_000] {
        let (connection, peer) = rig.connect(subject, narrow_both())?;
        peers.push(Stalling::after(peer, bytes)?);
        in_every_state(&mut rig, connection)?;
    }
    let (idle, idle_peer) = rig.connect(subject, Wire::default())?;
    let idle_peer = reader(idle_peer)?;
    rig.send(idle, 100, Watch::ACKED)?;
    rig.linger(Duration::from_millis(30))?;
    let (fresh, fresh_peer) = rig.connect(subject, Wire::default())?;
    let fresh_peer = reader(fresh_peer)?;
    rig.send(fresh, 500_000, Watch::ALL)?;
    rig.drop_driver()?;
    expect_failed(&rig, |reason| *reason == FailReason::Closed)?;
    let leaked = rig.record.transfers().filter(|told| told.leaked).count();
    ensure!(leaked == 0, "{leaked} payloads were leaked on a kernel that lets go at once");
    let alive = rig.record.transfers().filter_map(|told| told.canary.as_ref());
    ensure!(alive.filter(|canary| canary.is_alive()).count() == 0, "payloads outlive the driver");
    for peer in peers {
        peer.join()?.expect_intact()?;
    }
    idle_peer.join()?.expect_intact()?;
    fresh_peer.join()?.expect_intact()?;
    Ok(Proof::full())
}

/// Panics at every seventh event, without a word on stderr.
struct Faulty {
    to: Sender<Event>,
    seen: u32,
}

impl CompletionSink for Faulty {
    fn complete(&mut self, event: Event) {
        self.seen += 1;
        if self.seen.is_multiple_of(7) {
            resume_unwind(Box::new("the sink panics on purpose"));
        }
        self.to.complete(event);
    }
}

fn sink_panics(subject: &Subject) -> Result<Proof, Failure> {
    const TRANSFERS: usize = 40;
    let (to, events) = event_channel();
    let sink = Box::new(Faulty { to, seen: 0 });
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 1;
    let driver = subject.backend().driver(&config, sink)?;
    let mut rig = Rig::over(subject, driver, events);
    rig.record.events_may_be_missing = true;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..TRANSFERS {
        rig.send(connection, 20_000, Watch::ALL)?;
    }
    let deadline = Instant::now() + crate::rig::PATIENCE;
    let (mut panics, mut events) = (0, 0);
    while events + panics < TRANSFERS * 4 {
        ensure!(Instant::now() < deadline, "{events} events and {panics} panics, then nothing");
        let wait = Some(Duration::from_millis(50));
        match catch_unwind(AssertUnwindSafe(|| rig.driver().turn(wait).map(drop))) {
            Ok(turned) => turned?,
            Err(_) => panics += 1,
        }
        let now = rig.now();
        events += rig.take_events(now);
        rig.check()?;
    }
    ensure!(panics > 0, "the panic did not leave turn");
    let counters = rig.driver().counters();
    ensure!(counters.unreleased_bytes == 0, "{counters:?}");
    // Dropping an event drops its payload.
    let alive = rig.record.transfers().filter_map(|told| told.canary.as_ref());
    ensure!(alive.filter(|canary| canary.is_alive()).count() == 0, "payloads were lost, not freed");
    let len = rig.position(connection);
    drop(catch_unwind(AssertUnwindSafe(|| rig.drop_driver())));
    let seen = peer.join()?;
    seen.expect_intact()?;
    // Where nothing tells of acknowledgement, dropping the driver may have cut
    // off what was still under way.
    let unknown = rig.record.line(connection).support.acked == StageEvidence::Unavailable;
    let got = seen.stream.received();
    ensure!(got == len || unknown, "the peer got {got} of {len} bytes");
    Ok(Proof::full())
}

fn nobody_listens(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    rig.record.events_may_be_missing = true;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    rig.drop_events();
    for _ in 0..20 {
        rig.send(connection, 50_000, Watch::ALL)?;
    }
    let deadline = Instant::now() + crate::rig::PATIENCE;
    while rig.driver().counters().unreleased_bytes > 0 {
        ensure!(Instant::now() < deadline, "payloads are never released");
        rig.driver().turn(Some(Duration::from_millis(20)))?;
    }
    // What is released may still wait for delivery.
    while rig.driver().turn(Some(Duration::from_millis(20)))?.delivered > 0 {}
    let canaries = rig.record.transfers().filter_map(|told| told.canary.clone());
    let alive = canaries.filter(crate::canary::Canary::is_alive).count();
    ensure!(alive == 0, "{alive} payloads still exist");
    drop(rig);
    peer.join()?.expect_intact()?;
    Ok(Proof::full())
}

fn thousands_of_transfers(subject: &Subject) -> Result<Proof, Failure> {
    const TRANSFERS: usize = 4000;
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let mut refusals = 0;
    for n in 0..TRANSFERS {
        let len = 1 + n * 7919 % 3000;
        let watch = WATCHES[n % WATCHES.len()];
        let mut payload = pattern::bytes(rig.position(connection), len).into();
        loop {
            match rig.submit(connection, payload, watch, None) {
                Ok(_) => break,
                Err(refused) => {
                    ensure!(
                        matches!(refused.reason, RefuseReason::BackPressure { .. }),
                        "refused: {}",
                        refused.reason
                    );
                    refusals += 1;
                    payload = refused.value;
                    rig.turn(crate::rig::PATIENCE)?;
                }
            }
        }
    }
    rig.settle()?;
    expect_nothing_held(&mut rig)?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::noting(format!("{refusals} times back-pressure")))
}

fn thousands_of_connections(subject: &Subject) -> Result<Proof, Failure> {
    const WANTED: usize = 2000;
    // Two ends each, and other cases run beside this one.
    let allowed = usize::try_from(limits::raise_descriptors()?).unwrap_or(usize::MAX) / 8;
    let count = WANTED.min(allowed);
    let mut rig = Rig::new(subject)?;
    let mut puppets = Vec::new();
    let listening = Wire::default().listen(subject)?;
    for n in 0..count {
        let pair = listening.pair()?;
        let connection = rig.attach(pair.own, &AttachOptions::default())?;
        rig.send(connection, 200 + n % 1000, Watch::ALL)?;
        puppets.push((connection, Puppet::new(pair.peer)?));
    }
    let connections = rig.driver().counters().connections;
    ensure!(connections == count as u64, "{connections} connections are counted, not {count}");
    rig.settle()?;
    for (connection, puppet) in &mut puppets {
        puppet.read(2000)?;
        puppet.seen.expect_intact()?;
        let (got, sent) = (puppet.seen.stream.received(), rig.position(*connection));
        ensure!(got == sent, "{connection}: the peer got {got} of {sent} bytes");
        rig.driver().close(*connection, crate::rig::PATIENCE)?;
    }
    let ids: Vec<_> = puppets.into_iter().map(|(connection, _)| connection).collect();
    rig.until("all connections to close", |record| ids.iter().all(|id| record.is_closed(*id)))?;
    expect_nothing_held(&mut rig)?;
    super::expect_let_go(&mut rig)?;
    if count < WANTED {
        return Ok(Proof::noting(format!("{count} connections: RLIMIT_NOFILE allows no more")));
    }
    Ok(Proof::full())
}

/// A bounded window, too: an ordinary one grows while the peer reads, on some
/// kernels so far that nothing is left under way.
fn narrow_both() -> Wire {
    Wire { peer_window: Some(64 << 10), ..Wire::narrow_sender() }
}
