//! C5: memory that the kernel may still read is not touched.
//!
//! Every payload is guarded: its memory is overwritten as it is freed, so a
//! release that comes too early shows as wrong bytes at the peer.

use super::{close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::{End, Puppet, Stalling, reader, reset};
use crate::rig::{PATIENCE, Rig};
use crate::wire::Wire;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, DriverConfig, Method, Payload, Pool, Transport, Watch, event_channel,
};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C05-freed-at-once-after-release",
            "a payload is overwritten as soon as it comes back, and the peer sees none of that",
            freed_at_once,
        )
        .over_each_transport(),
        Case::new(
            "C05-reused-at-once-after-release",
            "one pooled buffer is refilled as soon as it comes back, and nothing mixes",
            reused_at_once,
        )
        .over_each_transport(),
        Case::new(
            "C05-alive-while-the-peer-stalls",
            "with zero copy nothing is released that the kernel has not let go of",
            alive_while_stalled,
        )
        .over_each_transport(),
        Case::new(
            "C05-alive-through-abort-and-reset",
            "payloads survive until the kernel lets go, and then all come back",
            abort_and_reset,
        )
        .over_each_transport(),
        Case::new(
            "C05-alive-through-the-drop-of-the-driver",
            "what the peer still receives after the driver is gone is intact",
            driver_dropped,
        )
        .over_each_transport(),
        Case::new(
            "C05-alive-through-a-panic-in-the-sink",
            "a sink that panics while the driver is dropped frees nothing early",
            sink_panics_at_drop,
        )
        .over_each_transport(),
        Case::new(
            "C05-mixed-segments-arrive-intact",
            "megabytes from memory, pool and files, cut everywhere, byte for byte",
            mixed_segments,
        )
        .over_each_transport(),
    ]
}

fn freed_at_once(subject: &Subject) -> Result<Proof, Failure> {
    for mut rig in [Rig::eager(subject)?, Rig::new(subject)?] {
        let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
        let peer = reader(peer)?;
        for len in [1_500_000, 300_000, 70_000, 4000, 3_000_000] {
            rig.send(connection, len, Watch::ACKED)?;
            // The next one is submitted while this one is on its way.
            rig.turn(Duration::ZERO)?;
        }
        rig.settle()?;
        expect_nothing_held(&mut rig)?;
        close_and_compare(&mut rig, connection, peer)?;
    }
    Ok(Proof::full())
}

fn reused_at_once(subject: &Subject) -> Result<Proof, Failure> {
    const LEN: usize = 256 << 10;
    let pool = Pool::new(LEN, 1);
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = reader(peer)?;
    let mut addresses = std::collections::HashSet::new();
    for _ in 0..24 {
        let mut buffer = pool.take();
        buffer.spare().fill(0xEE);
        buffer.fill_from(&pattern::bytes(rig.position(connection), LEN));
        addresses.insert(buffer.as_ptr() as usize);
        let transfer = rig.submit(connection, buffer.into(), Watch::NONE, None)?;
        rig.until("the buffer to come back", |record| {
            record.told(connection, transfer).released.is_some()
        })?;
        ensure!(pool.idle() == 1, "released, but not back in its pool");
    }
    ensure!(addresses.len() == 1, "it was not the same buffer each time");
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn alive_while_stalled(subject: &Subject) -> Result<Proof, Failure> {
    const LEN: usize = 128 << 10;
    let mut rig = Rig::eager(subject)?;
    let wire = Wire { peer_window: Some(64 << 10), ..Wire::default() };
    let (connection, peer) = rig.connect(subject, wire)?;
    let mut puppet = Puppet::new(peer)?;
    let before = rig.driver().counters().method(Method::ZeroCopy);
    for _ in 0..12 {
        rig.send(connection, LEN, Watch::ALL)?;
    }
    rig.linger(Duration::from_millis(80))?;
    let zero_copied = rig.driver().counters().method(Method::ZeroCopy) - before;
    let pinned = rig.driver().counters().pinned_bytes;
    ensure!(zero_copied == 0 || pinned > 0, "{zero_copied} bytes zero-copied, none of them pinned");
    // What the peer's kernel does not hold, the own kernel may have to read.
    let held = puppet.held()?;
    for told in rig.record.transfers().filter(|told| told.end > held + LEN as u64) {
        let released = told.released.is_some_and(|released| {
            matches!(released.method, Method::ZeroCopy | Method::ZeroCopyRefused)
        });
        ensure!(!released, "zero-copied up to {}, released while the peer has {held}", told.end);
    }
    let deadline = Instant::now() + PATIENCE;
    while !rig.record.is_settled() {
        ensure!(Instant::now() < deadline, "stuck");
        puppet.read(64 << 10)?;
        rig.turn(Duration::from_millis(1))?;
    }
    while puppet.read(64 << 10)? > 0 {}
    rig.settle()?;
    puppet.seen.expect(12 * LEN as u64, End::Left)?;
    expect_nothing_held(&mut rig)?;
    Ok(subject.lacks(lastbyte::Facility::ZeroCopy).map_or(Proof::full(), |lack| {
        Proof::substitute(lack, "copied payloads come back early, and the peer's bytes are intact")
    }))
}

fn abort_and_reset(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let material = Material::new(4 << 20)?;
    for abort in [true, false] {
        let (connection, peer) = rig.connect(subject, Wire::default())?;
        let mut puppet = Puppet::new(peer)?;
        for n in 0..16 {
            rig.send(connection, 100_000, Watch::ALL)?;
            let kind = if n % 2 == 0 { Kind::File } else { Kind::Pooled };
            rig.send_kind(connection, &material, kind, 50_000, Watch::ALL)?;
        }
        rig.linger(Duration::from_millis(20))?;
        puppet.read(150_000)?;
        if abort {
            rig.driver().abort(connection)?;
        }
        puppet.seen.expect_intact()?;
        let left = (!abort).then(|| reset(puppet.into_far_end()));
        left.transpose()?;
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
        expect_nothing_held(&mut rig)?;
    }
    Ok(Proof::full())
}

fn driver_dropped(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let stalling = Stalling::after(peer, 10_000)?;
    for _ in 0..10 {
        rig.send(connection, 150_000, Watch::ALL)?;
    }
    rig.linger(Duration::from_millis(20))?;
    rig.drop_driver()?;
    let alive = rig.record.transfers().filter(|told| !told.leaked);
    let alive = alive.filter_map(|told| told.canary.as_ref()).filter(|canary| canary.is_alive());
    ensure!(alive.count() == 0, "a payload outlives its driver without being leaked");
    let seen = stalling.join()?;
    seen.expect_intact()?;
    ensure!(seen.end == End::Reset, "a dropped driver looks like {:?}", seen.end);
    Ok(Proof::full())
}

fn sink_panics_at_drop(subject: &Subject) -> Result<Proof, Failure> {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    let (to, events) = event_channel();
    let mut left = 3_u32;
    let sink = lastbyte::SinkFn(move |event| {
        left = left.saturating_sub(1);
        // Once only: a second panic during the first one's unwinding would be
        // the sink's own fault.
        if left == 1 {
            resume_unwind(Box::new("the sink panics on purpose"));
        }
        lastbyte::CompletionSink::complete(&mut to.clone(), event);
    });
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 1;
    let mut rig = Rig::over(subject, subject.backend().driver(&config, Box::new(sink))?, events);
    rig.record.events_may_be_missing = true;
    let pair = Wire::default().pair(subject)?;
    let (connection, peer) = rig.join(subject, pair, &AttachOptions::default())?;
    let stalling = Stalling::after(peer, 10_000)?;
    for _ in 0..10 {
        rig.send(connection, 150_000, Watch::NONE)?;
    }
    let canaries: Vec<_> = rig.record.transfers().filter_map(|told| told.canary.clone()).collect();
    drop(catch_unwind(AssertUnwindSafe(|| drop(rig))));
    stalling.join()?.expect_intact()?;
    let alive = canaries.iter().filter(|canary| canary.is_alive()).count();
    ensure!(alive < canaries.len(), "not one payload was given back");
    Ok(Proof::full())
}

fn mixed_segments(subject: &Subject) -> Result<Proof, Failure> {
    // Under TLS much of it is spent on encryption, which is not the point.
    let is_plain = subject.transport() == Transport::Plain;
    let total = if is_plain { 16 << 20 } else { 4 << 20 };
    let material = Material::new(total)?;
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = reader(peer)?;
    let mut at = 0;
    let mut n = 0_usize;
    while at < total {
        let mut payload = Payload::new();
        for (kind, share) in [
            (Kind::Memory, 3000),
            (Kind::File, 91_111),
            (Kind::Pooled, 40_000),
            (Kind::SealedMemory, 70_001),
            (Kind::Memory, 1),
        ] {
            let len = (share * (1 + n % 13)).min(total - at);
            n += 1;
            payload.push(material.segment(kind, at as u64, len));
            at += len;
        }
        rig.submit(connection, payload, Watch::ACKED, None)?;
        rig.turn(Duration::ZERO)?;
    }
    rig.settle()?;
    expect_nothing_held(&mut rig)?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}
