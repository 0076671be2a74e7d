//! C3: never acknowledged before the peer's TCP has the last byte.
//!
//! The peer is a puppet: it runs in the case's own thread, so between two steps
//! nothing moves, and what its kernel holds is known to the byte. A second
//! opinion is the sending kernel's own account.

use super::acks_shown;
use crate::failure::{Failure, ensure};
use crate::peers::Puppet;
use crate::rig::Rig;
use crate::sys::tcp;
use crate::wire::Wire;
use crate::witness::Witness;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{AttachOptions, ConnectionId, StageEvidence, Watch};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let truth = |name, proves, scene: Scene| {
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
            "C03-truth-when-attached-with-bytes-under-way",
            "bytes written before attaching, and not yet acknowledged, do not shift offsets",
            Scene {
                wire: Wire::narrow(),
                lens: &[1, 300, 4000, 1],
                written_before: 12_000,
                ..Scene::default()
            },
        ),
    ]
}

/// What is sent, and over what.
#[derive(Clone, Copy, Default)]
struct Scene {
    wire: Wire,
    eager: bool,
    written_before: usize,
    lens: &'static [usize],
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
    let witness = Witness::new(&pair.own);
    let connection = rig.attach(pair.own, &AttachOptions::default())?;
    rig.set_position(connection, written);
    let mut puppet = Puppet::new(pair.peer)?;
    for len in scene.lens {
        rig.send(connection, *len, Watch::ALL)?;
    }
    let end = rig.position(connection);

    // The peer does not read: whatever is acknowledged now fits its window.
    let stalled = Instant::now() + Duration::from_millis(60);
    while Instant::now() < stalled {
        rig.turn(Duration::from_millis(2))?;
        compare(&rig, connection, &puppet, witness.as_ref().ok(), written)?;
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
        compare(&rig, connection, &puppet, witness.as_ref().ok(), written)?;
    }
    rig.settle()?;
    puppet.seen.expect_intact()?;
    Ok(acks_shown(&rig, connection))
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

/// No transfer is told to be acknowledged that reaches beyond what the peer's
/// kernel holds, or beyond what the own kernel says.
fn compare(
    rig: &Rig,
    connection: ConnectionId,
    puppet: &Puppet,
    witness: Option<&Witness>,
    base: u64,
) -> Result<(), Failure> {
    let line = rig.record.line(connection);
    if line.support.acked == StageEvidence::Unavailable {
        return Ok(());
    }
    let Some(told) = line.transfers.iter().rev().find(|told| told.acked.is_some()) else {
        return Ok(());
    };
    let held = puppet.held()?;
    ensure!(told.end <= held, "acked up to {}, the peer's kernel has {held}", told.end);
    if let Some(witness) = witness {
        let acked = witness.acked()? + base;
        ensure!(told.end <= acked, "acked up to {}, TCP_INFO says {acked}", told.end);
    }
    Ok(())
}
