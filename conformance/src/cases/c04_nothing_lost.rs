//! C4: what the peer acknowledged is told, even if the kernel's notice is lost.

use super::{acks_shown, close_and_compare};
use crate::failure::{Failure, ensure};
use crate::far_end::Records;
use crate::material::{Kind, Material};
use crate::peers::{Flooding, Puppet, reader, reset};
use crate::record::Happened;
use crate::rig::Rig;
use crate::wire::Wire;
use crate::witness::Witness;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{AttachOptions, Evidence, Facility, StageEvidence, Transport, Watch};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C04-acked-though-unread-input-fills-the-socket",
            "stamps that vanish because nobody reads the peer's flood are made up for",
            unread_input,
        )
        .over_each_transport(),
        Case::new(
            "C04-acked-after-a-burst-without-a-turn",
            "more stamps than an error queue holds, and every transfer is told",
            burst,
        )
        .over_each_transport(),
        Case::new(
            "C04-stamps-come-whatever-others-asked-for",
            "transfers one by one that want the same stamps, then others, then none, of each kind",
            one_by_one,
        )
        .over_each_transport(),
        Case::new(
            "C04-acked-though-the-peer-reset-afterwards",
            "what was acknowledged before a reset is Acked, not Failed",
            reset_afterwards,
        )
        .over_each_transport(),
        Case::new(
            "C04-failed-says-how-much-was-acked",
            "a transfer cut off in the middle says exactly what the peer's TCP took",
            acked_bytes,
        )
        .over_each_transport(),
    ]
}

fn unread_input(subject: &Subject) -> Result<Proof, Failure> {
    const TRANSFERS: usize = 40;
    let mut rig = Rig::new(subject)?;
    let wire = Wire { own_window: Some(4096), ..Wire::default() };
    let (connection, peer) = rig.connect(subject, wire)?;
    let flood = Flooding::start(peer)?;
    let mut before = 0;
    let mut still = 0;
    rig.until_outside("the flood to fill every buffer", |_| {
        still = if flood.written() == before { still + 1 } else { 0 };
        before = flood.written();
        before > 0 && still > 20
    })?;
    for _ in 0..TRANSFERS {
        rig.send(connection, 2000, Watch::ACKED)?;
    }
    rig.settle()?;
    let recovered = rig.driver().counters().stamps_recovered;
    let bracketed = rig
        .record
        .transfers()
        .filter_map(|told| told.acked)
        .filter(|acked| !matches!(acked.evidence, Evidence::Kernel));
    let bracketed = bracketed.count();
    let support = rig.record.line(connection).support.acked;
    if support == StageEvidence::Kernel {
        ensure!(
            recovered as usize <= bracketed,
            "{recovered} stamps were made up for, but only {bracketed} completions say so"
        );
    }
    // Closing has to get rid of the flood, too.
    flood.stop();
    rig.driver().close(connection, crate::rig::PATIENCE)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.until_outside("the peer to finish", |_| flood.is_done())?;
    let len = rig.position(connection);
    flood.join()?.expect(len, crate::peers::End::Finished)?;
    match acks_shown(&rig, connection) {
        Proof::Full { .. } => Ok(Proof::noting(format!(
            "{bracketed} of {TRANSFERS} by looking, {recovered} lost stamps"
        ))),
        proof => Ok(proof),
    }
}

fn burst(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..1000 {
        rig.send(connection, 150, Watch::ACKED)?;
    }
    // The peer acknowledges all of it while nobody looks at the error queue.
    std::thread::sleep(Duration::from_millis(60));
    rig.settle()?;
    let recovered = rig.driver().counters().stamps_recovered;
    close_and_compare(&mut rig, connection, peer)?;
    match acks_shown(&rig, connection) {
        Proof::Full { .. } => Ok(Proof::noting(format!("{recovered} lost stamps made up for"))),
        proof => Ok(proof),
    }
}

/// A backend may ask for stamps once for many transfers; what others want must
/// not take one away.
fn one_by_one(subject: &Subject) -> Result<Proof, Failure> {
    const KINDS: [Kind; 4] = [Kind::Memory, Kind::HeaderAndFile, Kind::Pooled, Kind::File];
    let material = Material::new(4 << 20)?;
    let (mut all, mut exact, mut announced) = (0, 0, StageEvidence::Kernel);
    let sealed_by_kernel = subject.directions().transmit == Transport::KernelTls;
    for (alike, other) in [
        (Watch::ACKED, Watch::ALL),
        (Watch::ACKED, Watch::QUEUED),
        (Watch::ALL, Watch::ACKED),
        (Watch::TRANSMITTED, Watch::NONE),
    ] {
        // Of each stage, of those that are like the ones before and of the others.
        let mut stamps = [[Stamps::default(); 2]; 2];
        for kind in KINDS {
            let mut rig = Rig::new(subject)?;
            let (connection, peer) = rig.connect(subject, Wire::default())?;
            let peer = reader(peer)?;
            for (kind, len, is_other) in [
                (Kind::Memory, 700, false),
                (Kind::Memory, 4000, false),
                (kind, 20_000, false),
                (kind, 200_000, false),
                (Kind::Memory, 700, false),
                (kind, 300, true),
                (Kind::Memory, 700, false),
                (kind, 90_000, true),
                (Kind::Memory, 700, false),
            ] {
                let watch = if is_other { other } else { alike };
                let transfer = rig.send_kind(connection, &material, kind, len, watch)?;
                rig.settle()?;
                let told = rig.record.told(connection, transfer);
                let [transmitted, acked] = &mut stamps[usize::from(is_other)];
                transmitted.count(told.transmitted);
                acked.count(told.acked);
            }
            announced = rig.record.line(connection).support.acked;
            close_and_compare(&mut rig, connection, peer)?;
            if announced == StageEvidence::Unavailable {
                return Ok(acks_shown(&rig, connection));
            }
        }
        for Stamps { wanted, by_kernel: stamped } in stamps.into_iter().flatten() {
            // A very busy machine makes up for stamps that are only late, and where
            // the kernel seals some cannot be had.
            ensure!(
                stamped * 2 >= wanted || sealed_by_kernel || announced != StageEvidence::Kernel,
                "{stamped} of {wanted} by stamp, of {alike:?} with {other:?} in between"
            );
            (all, exact) = (all + wanted, exact + stamped);
        }
    }
    if announced != StageEvidence::Kernel {
        let lack = subject.lacks(Facility::Timestamps);
        let lack = lack.unwrap_or_else(|| Lack::of("stamps, for this connection"));
        return Ok(Proof::substitute(lack, format!("{all} stages in brackets instead")));
    }
    Ok(Proof::noting(format!("{exact} of {all} by stamp")))
}

/// Completions of one stage.
#[derive(Clone, Copy, Default)]
struct Stamps {
    wanted: usize,
    by_kernel: usize,
}

impl Stamps {
    fn count(&mut self, stage: Option<Happened>) {
        if let Some(stage) = stage {
            self.wanted += 1;
            self.by_kernel += usize::from(stage.evidence == Evidence::Kernel);
        }
    }
}

fn reset_afterwards(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let pair = Wire::default().pair(subject)?;
    let witness = Witness::new(&pair.own);
    let (connection, peer) = rig.join(subject, pair, &AttachOptions::default())?;
    let mut puppet = Puppet::new(peer)?;
    let written = |rig: &mut Rig| rig.driver().counters().bytes.iter().sum::<u64>();
    let before = written(&mut rig);
    for _ in 0..3 {
        rig.send(connection, 10_000, Watch::ALL)?;
    }
    // Some backends write when they are turned.
    while written(&mut rig) < before + 30_000 {
        rig.turn(Duration::ZERO)?;
    }
    let mut waited = Duration::ZERO;
    let is_acked = |records: &Records| {
        let Ok(acked) = witness.as_ref().map(Witness::acked) else { return true };
        acked.is_ok_and(|acked| records.wire_end(30_000).is_some_and(|end| end <= acked))
    };
    while puppet.seen.stream.received() < 30_000 || !is_acked(puppet.records()) {
        puppet.read(30_000)?;
        ensure!(waited < crate::rig::PATIENCE, "30 kB do not cross the loopback device");
        std::thread::sleep(Duration::from_millis(1));
        waited += Duration::from_millis(1);
    }
    drop(witness);
    reset(puppet.into_far_end())?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    if rig.record.line(connection).support.acked != StageEvidence::Unavailable {
        let failed = rig.record.transfers().find_map(|told| told.failed.as_ref());
        ensure!(failed.is_none(), "acknowledged, then told as failed: {failed:?}");
    }
    Ok(acks_shown(&rig, connection))
}

fn acked_bytes(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, narrow_both())?;
    let mut puppet = Puppet::new(peer)?;
    let transfer = rig.send(connection, 4 << 20, Watch::ALL)?;
    // Under TLS acknowledgement is looked after once a mebibyte.
    let is_plain = subject.transport() == Transport::Plain;
    let slack = if is_plain { 0 } else { 1 << 20 };
    while puppet.seen.stream.received() < 200_000 + slack {
        puppet.read(10_000)?;
        rig.turn(Duration::from_millis(1))?;
    }
    // Let everything under way arrive.
    let mut held = 0;
    while puppet.held()? != held {
        held = puppet.held()?;
        rig.linger(Duration::from_millis(60))?;
    }
    let records = puppet.records().clone();
    reset(puppet.into_far_end())?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    let Some(failure) = rig.record.told(connection, transfer).failed.clone() else {
        return Err(Failure::new("cut off, but not failed"));
    };
    let proof = acks_shown(&rig, connection);
    if let Proof::Full { .. } = proof {
        let acked = failure.acked_bytes;
        ensure!(acked <= held, "{acked} bytes acked, but the peer's kernel had {held}");
        if subject.lacks(lastbyte::Facility::TcpInfo).is_some() {
            return Ok(proof);
        }
        ensure!(
            acked == held || !is_plain,
            "{acked} bytes acked, but the peer's kernel took {held}"
        );
        let least = records.stream_in(held);
        ensure!(acked + slack >= least, "{acked} bytes acked, but the peer had {least}");
    }
    Ok(proof)
}

/// A bounded window, too: an ordinary one grows while the peer reads, on some
/// kernels so far that nothing is left under way.
fn narrow_both() -> Wire {
    Wire { peer_window: Some(64 << 10), ..Wire::narrow_sender() }
}
