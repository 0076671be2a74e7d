//! C10: each step of handing keys to the kernel is refused in turn, by the kernel
//! itself (seccomp). Whatever fails, nothing leaves in the clear.
//!
//! A filter holds for the rest of its thread's life, so each step is refused in a
//! thread of its own.

use super::expect_nothing_held;
use crate::failure::{Failure, ensure};
use crate::peers::{End, RecordPeer, wire_to_end};
use crate::rig::{PATIENCE, Rig};
use crate::sys::process::{self, KeyCall};
use crate::tls::{DATA, HANDSHAKE, HELLO, KEY_UPDATE_REQUESTED, Known, VERSIONS};
use crate::wire::{Pair, Wire};
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, CloseOutcome, FailReason, OffloadWish, TlsCipher, TlsFailure, TlsVersion,
    Transport, Watch,
};
use std::io::Write;
use std::net::Shutdown;

pub(super) fn cases() -> Vec<Case> {
    [
        Case::new(
            "C10-nothing-plain-when-the-kernel-refuses-a-key",
            "a hand-over that fails before the first key goes on in user space or ends, typed; \
             one that fails after it is a reset",
            refused_at_hand_over,
        ),
        Case::new(
            "C10-nothing-plain-when-the-kernel-refuses-the-next-key",
            "a key that cannot be changed when it has to be ends the connection",
            refused_at_rekey,
        ),
    ]
    .map(Case::over_tls)
    .to_vec()
}

const LEN: usize = 50_000;

fn known(version: TlsVersion) -> Known {
    Known::new(version, TlsCipher::Aes128Gcm)
}

/// What has to come of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    UserSpace,
    NotOffloaded,
    Reset,
}

fn refused_at_hand_over(subject: &Subject) -> Result<Proof, Failure> {
    use OffloadWish::{Prefer, Require};
    for version in VERSIONS {
        // Where the kernel would not have been given these keys, and over user
        // TLS, the calls are not even made.
        let hands_over = subject.knowing(&known(version)).transport() == Transport::KernelTls;
        let steps = [
            (KeyCall::Ulp, Then::NotOffloaded),
            (KeyCall::SetTransmit, Then::NotOffloaded),
            (KeyCall::GetTransmit, Then::Reset),
            (KeyCall::SetReceive, Then::Reset),
        ];
        for (step, then) in steps {
            let is_early = then == Then::NotOffloaded;
            let wishes = match (hands_over, is_early) {
                (true, true) => &[(Prefer, Then::UserSpace), (Require, Then::NotOffloaded)][..],
                (true, false) => &[(Prefer, Then::Reset), (Require, Then::Reset)],
                (false, _) => &[(Prefer, Then::UserSpace)],
            };
            for &(wish, then) in wishes {
                let subject = if hands_over {
                    subject.declined(&known(version), wish)
                } else {
                    subject.knowing_whole(&known(version))
                };
                in_a_thread(|| hand_over(&subject, version, step, then)).map_err(|failure| {
                    failure.while_doing(format!("{version:?}, {step:?} refused, {wish:?}"))
                })?;
            }
        }
    }
    Ok(Proof::full())
}

fn in_a_thread(case: impl FnOnce() -> Result<(), Failure> + Send) -> Result<(), Failure> {
    std::thread::scope(|scope| scope.spawn(case).join())
        .unwrap_or_else(|_| Err(Failure::new("it panicked")))
}

fn hand_over(
    subject: &Subject,
    version: TlsVersion,
    step: KeyCall,
    then: Then,
) -> Result<(), Failure> {
    let mut rig = Rig::eager(subject)?;
    let Pair { own, peer } = Wire::default().pair(subject)?;
    let connection = rig.attach(own, &AttachOptions::default())?;
    rig.send(connection, LEN, Watch::ALL)?;
    process::refuse_key_call(step, libc::ENOMEM)?;
    (&peer).write_all(&HELLO)?;
    if then == Then::UserSpace {
        rig.driver().close(connection, PATIENCE)?;
    }
    let (wire, end) = wire_to_end(&mut rig, &peer)?;
    peer.shutdown(Shutdown::Both).ok();
    drop(peer);
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    let closed = rig.record.line(connection).closed.clone();
    ensure!(wire.len() >= Known::ANSWERED, "the handshake was answered with {wire:?}");
    let (content, others) = opened(&known(version), &wire[Known::ANSWERED..])?;
    match (then, closed) {
        (Then::UserSpace, Some(CloseOutcome::Graceful)) => {
            ensure!(content == pattern::bytes(0, LEN), "{} bytes came instead", content.len());
        }
        (
            Then::NotOffloaded,
            Some(CloseOutcome::Failed(FailReason::Tls(TlsFailure::NotOffloaded { .. }))),
        ) => {
            ensure!(content.is_empty(), "{} bytes came", content.len());
        }
        (
            Then::Reset,
            Some(CloseOutcome::Failed(FailReason::Tls(TlsFailure::OffloadBroken {
                errno: libc::ENOMEM,
                ..
            }))),
        ) => {
            ensure!(end == End::Reset, "it ended {end:?}");
            ensure!(content.is_empty() && others == 0, "something came after the handshake");
        }
        (_, closed) => {
            return Err(Failure::new(format!("{then:?} was to come, and it closed as {closed:?}")));
        }
    }
    expect_nothing_held(&mut rig)
}

/// The payload in these records, and how many others there are. Whatever does not
/// open is an error.
fn opened(known: &Known, mut wire: &[u8]) -> Result<(Vec<u8>, usize), Failure> {
    let mut opening = known.opening();
    let (mut content, mut others) = (Vec::new(), 0);
    while let Some(record) = opening.open(wire)? {
        wire = &wire[record.len..];
        if record.kind == DATA {
            content.extend_from_slice(&record.content);
        } else {
            others += 1;
        }
    }
    ensure!(wire.is_empty(), "{} bytes that are no whole record", wire.len());
    Ok((content, others))
}

fn refused_at_rekey(subject: &Subject) -> Result<Proof, Failure> {
    let known = known(TlsVersion::Tls13);
    let subject = subject.knowing_whole(&known);
    for step in [KeyCall::SetTransmit, KeyCall::GetTransmit, KeyCall::SetReceive] {
        in_a_thread(|| rekey(&subject, &known, step))
            .map_err(|failure| failure.while_doing(format!("{step:?} refused")))?;
    }
    Ok(Proof::full())
}

/// The peer changes its key, and wants ours changed.
fn rekey(subject: &Subject, known: &Known, step: KeyCall) -> Result<(), Failure> {
    let mut rig = Rig::eager(subject)?;
    let wire = Wire { peer_window: Some(32 << 10), ..Wire::narrow_sender() };
    let (connection, mut peer) = RecordPeer::join(&mut rig, subject, known, wire)?;
    process::refuse_key_call(step, libc::ENOMEM)?;
    if subject.transport() == Transport::KernelTls && step != KeyCall::GetTransmit {
        // Much of it is still to be sealed when the key has to be changed. (What
        // asks for the record's number is asked after each send, too.)
        rig.send(connection, 20 * LEN, Watch::ALL)?;
    }
    peer.send(HANDSHAKE, &KEY_UPDATE_REQUESTED)?;
    peer.sealing.update();
    peer.send(DATA, b"with the next key")?;
    rig.driver().receive(connection)?;
    if subject.transport() == Transport::KernelTls {
        peer.read_to_end(&mut rig)?;
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        let closed = rig.record.line(connection).closed.clone();
        ensure!(
            matches!(
                closed,
                Some(CloseOutcome::Failed(FailReason::Tls(TlsFailure::OffloadBroken {
                    errno: libc::ENOMEM,
                    ..
                })))
            ),
            "it closed as {closed:?}"
        );
        let input = &rig.record.line(connection).input;
        ensure!(input.is_empty(), "{} bytes were received", input.len());
        // All that came has opened, or it would have been said.
        peer.expect_intact()?;
        ensure!(peer.content().len() < 20 * LEN, "all of it was sent");
    } else {
        // Nothing of it is the kernel's business.
        let told = |record: &crate::record::Record| !record.line(connection).input.is_empty();
        rig.until("the peer's bytes", told)?;
        rig.send(connection, LEN, Watch::ALL)?;
        rig.driver().close(connection, PATIENCE)?;
        peer.read_to_end(&mut rig)?;
        peer.expect_all(rig.position(connection))?;
        drop(peer);
        rig.until("the connection to close", |record| record.is_closed(connection))?;
    }
    rig.settle()?;
    expect_nothing_held(&mut rig)
}
