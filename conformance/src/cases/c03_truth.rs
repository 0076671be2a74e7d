//! C3: never acknowledged before the peer's TCP has the last byte.
//!
//! The peer is a puppet: it runs in the case's own thread, so between two steps
//! nothing moves, and what its kernel holds is known to the byte. A second
//! opinion is the sending kernel's own account. Both count bytes of the wire:
//! under TLS the peer says which of those a transfer ended with, and it counts
//! records as they open, with a library that is not the one under test.

use super::acks_shown;
use crate::failure::{Failure, ensure};
use crate::far_end::Records;
use crate::material::{Kind, Material};
use crate::peers::{End, Puppet, RecordPeer};
use crate::rig::Rig;
use crate::sys::tcp;
use crate::tls::{CIPHERS, DATA, HANDSHAKE, KEY_UPDATE_REQUESTED, Known, VERSIONS};
use crate::wire::Wire;
use crate::witness::Witness;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{AttachOptions, ConnectionId, Facility, StageEvidence, TlsVersion, Watch};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let truth = |name, proves, scene: Scene| {
        Case::new(name, proves, move |subject| told_the_truth(subject, &scene))
            .over_each_transport()
    };
    let plain_truth = |name, proves, scene: Scene| {
        Case::new(name, proves, move |subject| told_the_truth(subject, &scene))
    };
    vec![
        truth(
            "C03-no-ack-beyond-a-closed-window",
            "with a stalled peer only what its window took is acknowledged, the rest as it reads",
            Scene { wire: Wire::narrow(), lens: &[500; 30], ..Scene::default() },
        ),
        truth(
            "C03-no-ack-before-the-last-byte",
            "one transfer far larger than every buffer is not acknowledged before its last byte",
            Scene {
                wire: Wire { peer_window: Some(64 << 10), ..Wire::narrow_sender() },
                lens: &[4 << 20],
                ..Scene::default()
            },
        ),
        truth(
            "C03-truth-by-zero-copy",
            "as under a closed window, with zero copy",
            Scene { eager: true, lens: &[90_000; 12], ..Scene::default() },
        ),
        truth(
            "C03-truth-on-an-active-opener",
            "offsets are right on the side that connected, where the kernel counts the SYN",
            Scene {
                wire: Wire { active: true, ..Wire::narrow() },
                lens: &[1, 1, 4000, 1, 9000],
                ..Scene::default()
            },
        ),
        truth(
            "C03-truth-over-ipv6",
            "evidence is read on IPv6 sockets too",
            Scene {
                wire: Wire { v6: true, ..Wire::narrow() },
                lens: &[1, 4000, 1, 9000],
                ..Scene::default()
            },
        ),
        truth(
            "C03-truth-of-what-shares-records-and-segments",
            "payloads of one byte to three records, files and control records between them",
            Scene {
                wire: Wire { peer_window: Some(16 << 10), ..Wire::narrow_sender() },
                kinds: &[Kind::Memory, Kind::HeaderAndFile, Kind::Pooled, Kind::File],
                lens: &[
                    1, 16_384, 16_383, 16_385, 3, 40_000, 700, 33_000, 1, 1, 50_000, 16_384, 9,
                    20_000, 32_768, 5,
                ],
                ..Scene::default()
            },
        ),
        plain_truth(
            "C03-truth-when-attached-with-bytes-under-way",
            "bytes written before attaching, and not yet acknowledged, do not shift offsets",
            Scene {
                wire: Wire::narrow(),
                lens: &[1, 300, 4000, 1],
                written_before: 12_000,
                ..Scene::default()
            },
        ),
        Case::new(
            "C03-exact-on-the-wire-of-each-version-and-cipher",
            "the peer counts ciphertext: Acked is the last byte of the last record, with TLS 1.2 \
             and 1.3, each cipher, partial sends, files and control records",
            exact_on_the_wire,
        )
        .over_tls(),
    ]
}

/// What is sent, and over what.
#[derive(Clone, Copy, Default)]
struct Scene {
    wire: Wire,
    eager: bool,
    written_before: usize,
    lens: &'static [usize],
    /// What the payloads are made of, in turn; memory if this is empty.
    kinds: &'static [Kind],
}

fn told_the_truth(subject: &Subject, scene: &Scene) -> Result<Proof, Failure> {
    let mut rig = if scene.eager { Rig::eager(subject)? } else { Rig::new(subject)? };
    let pair = match scene.wire.pair(subject) {
        Err(error) if scene.wire.v6 => {
            // No IPv6 here: the same over IPv4.
            let v4 = Scene { wire: Wire { v6: false, ..scene.wire }, ..*scene };
            told_the_truth(subject, &v4)?;
            let lack = crate::Lack::refused("IPv6 on the loopback device", &error);
            return Ok(Proof::substitute(lack, "the same over IPv4"));
        }
        pair => pair?,
    };
    let written = write_before(&pair.own, scene.written_before)?;
    let witness = Witness::new(&pair.own).ok();
    let (connection, peer) = rig.join(subject, pair, &AttachOptions::default())?;
    rig.set_position(connection, written);
    let mut puppet = Puppet::new(peer)?;
    let material = Material::new(scene.lens.iter().sum())?;
    let mut kinds = scene.kinds.iter().cycle();
    for len in scene.lens {
        match kinds.next() {
            Some(kind) => rig.send_kind(connection, &material, *kind, *len, Watch::ALL)?,
            None => rig.send(connection, *len, Watch::ALL)?,
        };
    }
    let end = rig.position(connection);
    let mut sightings = Sightings { witness, base: written, seen: Vec::new() };

    // The peer does not read: whatever is acknowledged now fits its window.
    let stalled = Instant::now() + Duration::from_millis(60);
    while Instant::now() < stalled {
        rig.turn(Duration::from_millis(2))?;
        sightings.look(&rig, connection, puppet.held()?)?;
    }
    ensure!(puppet.held()? < end, "all of it fits the window, so nothing is shown");

    // Now it reads, a little at a time.
    let deadline = Instant::now() + crate::rig::PATIENCE;
    let step = usize::try_from(end / 40).unwrap_or(usize::MAX).max(400);
    while !rig.record.is_settled() || puppet.seen.stream.received() < end {
        ensure!(
            Instant::now() < deadline,
            "the peer has {} of {end} bytes, and {:?} is still open",
            puppet.held()?,
            rig.record.transfers().find(|told| !told.is_over())
        );
        puppet.read(step)?;
        rig.turn(Duration::from_millis(1))?;
        sightings.look(&rig, connection, puppet.held()?)?;
    }
    sightings.compare(puppet.records())?;
    rig.settle()?;
    puppet.seen.expect_intact()?;
    Ok(acks_shown(&rig, connection))
}

fn exact_on_the_wire(subject: &Subject) -> Result<Proof, Failure> {
    const KINDS: [Kind; 4] = [Kind::Memory, Kind::HeaderAndFile, Kind::Pooled, Kind::File];
    const LENGTHS: [usize; 9] = [1, 16_384, 700, 40_000, 16_385, 3, 33_000, 16_383, 90_000];
    const TRANSFERS: usize = 27;
    let material = Material::new(LENGTHS.iter().sum::<usize>() * TRANSFERS / LENGTHS.len())?;
    let mut looks = 0;
    for version in VERSIONS {
        for cipher in CIPHERS {
            let known = Known::new(version, cipher);
            let subject = subject.knowing(&known);
            let mut rig = Rig::new(&subject)?;
            let wire = Wire { peer_window: Some(16 << 10), ..Wire::narrow_sender() };
            let pair = wire.pair(&subject)?;
            let witness = Witness::new(&pair.own).ok();
            let (connection, mut peer) = RecordPeer::join_pair(&mut rig, pair, &known, &[])?;
            let mut sightings = Sightings { witness, base: 0, seen: Vec::new() };
            for n in 0..TRANSFERS {
                let (kind, len) = (KINDS[n % KINDS.len()], LENGTHS[n % LENGTHS.len()]);
                rig.send_kind(connection, &material, kind, len, Watch::ALL)?;
                if n % 4 == 1 && version == TlsVersion::Tls13 {
                    // The answer is a control record between two transfers.
                    peer.send(HANDSHAKE, &KEY_UPDATE_REQUESTED)?;
                    peer.sealing.update();
                    peer.send(DATA, b"?")?;
                    rig.driver().receive(connection)?;
                }
                // Some one by one, some together.
                let deadline = Instant::now() + crate::rig::PATIENCE;
                while n % 3 == 0 && !rig.record.is_settled() {
                    ensure!(Instant::now() < deadline, "a transfer does not end");
                    rig.turn(Duration::from_millis(1))?;
                    sightings.look(&rig, connection, peer.held()?)?;
                    peer.read(5000)?;
                }
            }
            rig.driver().close(connection, crate::rig::PATIENCE)?;
            let deadline = Instant::now() + crate::rig::PATIENCE;
            while peer.end == End::Left {
                ensure!(Instant::now() < deadline, "the end does not come");
                rig.turn(Duration::from_millis(1))?;
                if !rig.record.is_closed(connection) {
                    sightings.look(&rig, connection, peer.held()?)?;
                }
                peer.read(5000)?;
            }
            peer.expect_all(rig.position(connection))?;
            looks += sightings.seen.len();
            sightings
                .compare(&peer.account)
                .map_err(|failure| failure.while_doing(format!("{version:?} with {cipher:?}")))?;
        }
    }
    let known = subject.lacks(Facility::TcpInfo).is_none();
    ensure!(looks > TRANSFERS || !known, "only {looks} acknowledgements were looked at");
    Ok(Proof::noting(format!("{looks} acknowledgements compared")))
}

/// Fills the socket up to `len` bytes of the pattern; says how far that went.
fn write_before(mut socket: &std::net::TcpStream, len: usize) -> Result<u64, Failure> {
    socket.set_nonblocking(true)?;
    let bytes = pattern::bytes(0, len);
    let mut written = 0;
    while written < len {
        match socket.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    if len > 0 {
        let open = tcp::unacknowledged(socket).unwrap_or(0);
        ensure!(open > 0, "nothing is under way, so nothing is shown");
    }
    Ok(written as u64)
}

/// What was told to be acknowledged, and what was so, time after time.
#[derive(Debug)]
struct Sightings {
    witness: Option<Witness>,
    /// Bytes written before there was a driver.
    base: u64,
    seen: Vec<Sighting>,
}

/// The most that was told at one time, in bytes of the stream, and bytes of the
/// wire that had really arrived.
#[derive(Debug)]
struct Sighting {
    told: u64,
    held: u64,
    acked: Option<u64>,
}

impl Sightings {
    /// The peer's kernel has had `held` bytes of the wire.
    fn look(&mut self, rig: &Rig, connection: ConnectionId, held: u64) -> Result<(), Failure> {
        let line = rig.record.line(connection);
        let last = line.transfers.iter().rev().find(|told| told.acked.is_some());
        let told = last.map_or(0, |told| told.end);
        let known = line.support.acked != StageEvidence::Unavailable;
        if !known || self.seen.last().is_some_and(|last| last.told == told) {
            return Ok(());
        }
        let acked = self.witness.as_ref().map(Witness::acked).transpose()?;
        let acked = acked.map(|acked| acked + self.base);
        self.seen.push(Sighting { told, held, acked });
        Ok(())
    }

    /// No transfer may have been told to be acknowledged whose last byte on the
    /// wire the peer's kernel did not hold, or the own kernel knows nothing of.
    fn compare(&self, records: &Records) -> Result<(), Failure> {
        for Sighting { told, held, acked } in &self.seen {
            let Some(end) = records.wire_end(*told) else {
                return Err(Failure::new(format!("acked up to {told}, and never sent")));
            };
            ensure!(end <= *held, "acked up to {end}, the peer's kernel has {held}");
            if let Some(acked) = acked {
                ensure!(end <= *acked, "acked up to {end}, TCP_INFO says {acked}");
            }
        }
        Ok(())
    }
}
