//! C10: after the handshake no plaintext byte reaches the wire.
//!
//! The peer knows the keys, and opens with a record layer of its own whatever it
//! is sent: a byte that is not of a record that opens fails the case.

use super::expect_nothing_held;
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::{End, RecordPeer, reset, wire_to_end};
use crate::rig::{PATIENCE, Rig};
use crate::tls::{CIPHERS, DATA, HANDSHAKE, KEY_UPDATE_REQUESTED, Known, VERSIONS};
use crate::wire::Wire;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{AttachOptions, CloseOutcome, FailReason, TlsCipher, TlsFailure, TlsVersion, Watch};
use std::io::Write;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    [
        Case::new(
            "C10-every-byte-is-a-record-that-opens",
            "payloads of every kind, partial sends and changed keys: nothing else is on the wire",
            every_byte,
        ),
        Case::new(
            "C10-nothing-plain-when-a-handshake-fails",
            "what was submitted before a handshake that fails never leaves",
            handshake_fails,
        ),
        Case::new(
            "C10-nothing-plain-through-resets-and-aborts",
            "connections cut off at any point have sent whole records, and part of one",
            cut_off,
        ),
        Case::new(
            "C10-nothing-plain-when-the-driver-is-dropped",
            "a driver that is dropped with transfers in every state leaves no plaintext behind",
            driver_dropped,
        ),
    ]
    .map(Case::over_tls)
    .to_vec()
}

const KINDS: [Kind; 5] =
    [Kind::Memory, Kind::HeaderAndFile, Kind::Pooled, Kind::SealedMemory, Kind::File];

fn every_byte(subject: &Subject) -> Result<Proof, Failure> {
    const LENGTHS: [usize; 6] = [1, 16_384, 50_000, 16_385, 300, 120_000];
    let material = Material::new(3 << 20)?;
    for version in VERSIONS {
        for cipher in CIPHERS {
            let known = Known::new(version, cipher);
            let subject = subject.knowing(&known);
            let mut rig = Rig::eager(&subject)?;
            let wire = Wire { peer_window: Some(32 << 10), ..Wire::narrow_sender() };
            let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
            for (n, kind) in KINDS.into_iter().cycle().take(15).enumerate() {
                let len = LENGTHS[n % LENGTHS.len()];
                rig.send_kind(connection, &material, kind, len, Watch::ALL)?;
                if version == TlsVersion::Tls13 && n % 5 == 4 {
                    peer.send(HANDSHAKE, &KEY_UPDATE_REQUESTED)?;
                    peer.sealing.update();
                    peer.send(DATA, b"x")?;
                    rig.driver().receive(connection)?;
                }
                rig.turn(Duration::from_millis(1))?;
                peer.read(9000)?;
            }
            rig.driver().close(connection, PATIENCE)?;
            peer.read_to_end(&mut rig)?;
            peer.expect_all(rig.position(connection))
                .map_err(|failure| failure.while_doing(format!("{version:?} with {cipher:?}")))?;
            drop(peer);
            rig.until("the connection to close", |record| record.is_closed(connection))?;
            rig.settle()?;
            expect_nothing_held(&mut rig)?;
        }
    }
    Ok(Proof::full())
}

fn handshake_fails(subject: &Subject) -> Result<Proof, Failure> {
    let timed = subject.adjusted(|options| {
        options.handshake_timeout = Duration::from_millis(150);
    })?;
    let not_tls: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 100],
        &[22, 3, 1, 0, 5, 9, 0, 0, 1, 9],
        // Two messages in one record, of which the first is refused.
        &[22, 3, 1, 0, 11, 1, 0, 0, 2, 3, 3, 1, 0, 0, 1, 9],
        // One that goes on in another record, and does not come to an end.
        &[22, 3, 1, 0, 2, 1, 0, 22, 3, 1, 0, 3, 0, 9, 3],
        &[23, 3, 3, 0, 1, 1],
        &[22, 3, 1],
        b"",
    ];
    for said in not_tls {
        let mut rig = Rig::new(&timed)?;
        let pair = Wire::default().pair(&timed)?;
        let connection = rig.attach(pair.own, &AttachOptions::default())?;
        let secret = rig.send(connection, 50_000, Watch::ALL)?;
        (&pair.peer).write_all(said)?;
        let (wire, _) = wire_to_end(&mut rig, &pair.peer)?;
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
        // Nothing, or one alert.
        ensure!(
            wire.is_empty() || (wire.len() == 7 && wire[..2] == [21, 3]),
            "after {said:?} came {wire:?}"
        );
        let closed = rig.record.line(connection).closed.clone();
        ensure!(
            matches!(
                closed,
                Some(CloseOutcome::Failed(FailReason::Tls(
                    TlsFailure::Handshake { .. }
                        | TlsFailure::HandshakeTimeout
                        | TlsFailure::PeerViolation { .. }
                )))
            ),
            "after {said:?} it closed as {closed:?}"
        );
        let told = rig.record.told(connection, secret);
        let acked = told.failed.as_ref().map(|failure| failure.acked_bytes);
        ensure!(acked == Some(0), "what was never sent is told as {:?}", told.failed);
        expect_nothing_held(&mut rig)?;
    }
    Ok(Proof::full())
}

fn cut_off(subject: &Subject) -> Result<Proof, Failure> {
    let material = Material::new(2 << 20)?;
    let mut sent = 0;
    for n in 0..24_usize {
        let version = VERSIONS[n % 2];
        let known = Known::new(version, CIPHERS[n % 3]);
        let subject = subject.knowing(&known);
        let mut rig = if n % 4 < 2 { Rig::eager(&subject)? } else { Rig::new(&subject)? };
        let (connection, mut peer) =
            RecordPeer::join(&mut rig, &subject, &known, Wire::narrow_sender())?;
        for kind in KINDS {
            rig.send_kind(connection, &material, kind, 3000 * n + 40_000, Watch::ALL)?;
        }
        for _ in 0..n {
            rig.turn(Duration::ZERO)?;
            peer.read(7000)?;
        }
        match n % 3 {
            0 => rig.driver().abort(connection)?,
            1 => reset(peer.socket.try_clone()?)?,
            // It breaks TLS, and is told so.
            _ => peer.send_raw(&[23, 3, 3, 0, 30, 0, 0, 0])?,
        }
        if n % 3 == 1 {
            // The reset is sent when the last of the two is closed.
            let RecordPeer { socket, .. } = &peer;
            reset(socket.try_clone()?)?;
            peer.expect_intact()?;
            sent += peer.content().len();
            drop(peer);
        } else {
            if n % 3 == 2 {
                rig.driver().receive(connection)?;
                peer.finish()?;
                rig.driver().close(connection, Duration::from_millis(300))?;
            }
            peer.read_to_end(&mut rig)?;
            peer.expect_intact()?;
            sent += peer.content().len();
        }
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
        expect_nothing_held(&mut rig)?;
    }
    ensure!(sent > 0, "nothing was ever sent, so nothing is shown");
    Ok(Proof::full())
}

fn driver_dropped(subject: &Subject) -> Result<Proof, Failure> {
    let known = Known::new(subject.version(), TlsCipher::Aes128Gcm);
    let subject = subject.knowing(&known);
    let mut rig = Rig::eager(&subject)?;
    let mut peers = Vec::new();
    for n in 0..4_usize {
        let (connection, mut peer) =
            RecordPeer::join(&mut rig, &subject, &known, Wire::narrow_sender())?;
        for _ in 0..4 {
            rig.send(connection, 150_000, Watch::ALL)?;
        }
        for _ in 0..n * 3 {
            rig.turn(Duration::ZERO)?;
            peer.read(20_000)?;
        }
        peers.push(peer);
    }
    rig.drop_driver()?;
    for mut peer in peers {
        let deadline = Instant::now() + PATIENCE;
        while peer.end == End::Left {
            ensure!(Instant::now() < deadline, "a dropped driver's connection goes on");
            peer.read(1 << 20)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.expect_intact()?;
        // Whatever is behind the last whole record is the beginning of one.
        let tail = pattern::bytes(peer.content().len() as u64, 8);
        ensure!(!peer.holds(&tail), "plaintext on the wire");
    }
    Ok(Proof::full())
}
