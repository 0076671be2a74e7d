//! C12: one direction can end while the other goes on.

use super::{close_and_compare, expect_graceful, expect_let_go};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::peers::{End, Stalling, answering, half_closing, resetting};
use crate::rig::Rig;
use crate::tls;
use crate::wire::Wire;
use crate::{Case, Proof, Subject};
use lastbyte::{
    AttachOptions, CloseOutcome, ConnectionId, FailReason, Payload, RefuseReason, Transport, Watch,
};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C12-finish-ends-one-direction",
            "what was accepted is sent, then the end; the peer's answer to that is received",
            one_direction,
        )
        .over_each_transport(),
        Case::new(
            "C12-finish-before-anything",
            "a direction on which nothing was sent ends, before a handshake behind it",
            before_anything,
        )
        .over_each_transport(),
        Case::new(
            "C12-finish-after-the-peers-end",
            "with both directions ended every stage is still told, and nobody is kept busy",
            after_the_peer,
        )
        .over_each_transport(),
        Case::new(
            "C12-finish-does-not-outlast-the-close",
            "a peer that never reads is reset when the deadline of a close passes",
            cut_short,
        )
        .over_each_transport(),
        Case::new(
            "C12-finish-and-then-a-reset",
            "a peer that resets after the end was asked for ends the connection",
            reset_after,
        )
        .over_each_transport(),
    ]
}

fn one_direction(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    for _ in 0..10 {
        rig.send(connection, 200_000, Watch::ALL)?;
    }
    rig.driver().finish(connection)?;
    rig.driver().finish(connection)?;
    expect_refused(&mut rig, connection)?;
    let answer: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let peer = answering(peer, answer.clone())?;
    receive_to_the_end(&mut rig, connection)?;
    let line = rig.record.line(connection);
    ensure!(line.input == answer, "{} bytes of the answer came", line.input.len());
    ensure!(!line.truncated, "the answer was taken for cut off");
    peer.join()?.expect(rig.position(connection), End::Finished)?;
    rig.settle()?;
    let failed = rig.record.transfers().filter(|told| told.failed.is_some()).count();
    ensure!(failed == 0, "{failed} transfers failed");
    expect_refused(&mut rig, connection)?;
    // Neither direction has anything more to say.
    rig.expect_calm()?;
    ensure!(!rig.record.is_closed(connection), "closed without being asked to");
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    ensure!(rig.driver().finish(connection).is_err(), "a connection that is gone finished");
    expect_let_go(&mut rig)?;
    Ok(Proof::full())
}

fn before_anything(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let pair = Wire::default().pair(subject)?;
    let connection = rig.attach(pair.own, &AttachOptions::default())?;
    rig.driver().finish(connection)?;
    expect_refused(&mut rig, connection)?;
    let far: FarEnd = match subject.transport() {
        Transport::Plain => pair.peer.into(),
        _ => rig.shake_hands(FarEnd::tls(pair.peer, tls::client()?))?,
    };
    let peer = answering(far, b"and yet".to_vec())?;
    receive_to_the_end(&mut rig, connection)?;
    ensure!(rig.record.line(connection).input == b"and yet", "another answer came");
    peer.join()?.expect(0, End::Finished)?;
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    Ok(Proof::full())
}

fn after_the_peer(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = half_closing(peer, b"please")?;
    receive_to_the_end(&mut rig, connection)?;
    for len in [1, 1_000_000, 1] {
        rig.send(connection, len, Watch::ALL)?;
    }
    rig.driver().finish(connection)?;
    rig.settle()?;
    rig.expect_calm()?;
    ensure!(!rig.record.is_closed(connection), "closed without being asked to");
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn cut_short(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 5_000_000, Watch::ACKED)?;
    rig.driver().finish(connection)?;
    rig.linger(Duration::from_millis(20))?;
    rig.driver().close(connection, Duration::from_millis(150))?;
    rig.until("the deadline", |record| record.is_closed(connection))?;
    expect_failed(&rig, connection, FailReason::Timeout)?;
    let seen = stalling.join()?;
    seen.expect_intact()?;
    ensure!(seen.end == End::Reset, "the peer saw {:?}", seen.end);
    Ok(Proof::full())
}

fn reset_after(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    rig.send(connection, 5_000_000, Watch::ALL)?;
    rig.driver().finish(connection)?;
    let peer = resetting(peer, 100_000)?;
    rig.until("the connection to end", |record| record.is_closed(connection))?;
    expect_failed(&rig, connection, FailReason::Reset)?;
    rig.settle()?;
    peer.join()?.expect_intact()?;
    expect_let_go(&mut rig)?;
    Ok(Proof::full())
}

/// Asks for input until there is no more.
fn receive_to_the_end(rig: &mut Rig, connection: ConnectionId) -> Result<(), Failure> {
    while !rig.record.line(connection).ended {
        let before = rig.record.line(connection).inputs;
        rig.driver().receive(connection)?;
        rig.until("input", |record| {
            let line = record.line(connection);
            line.ended || line.inputs > before
        })?;
    }
    Ok(())
}

/// Whoever has said that nothing more comes cannot add to it, and keeps the payload.
fn expect_refused(rig: &mut Rig, connection: ConnectionId) -> Result<(), Failure> {
    let late = rig.driver().submit(connection, Payload::from(&b"late"[..]), Watch::ALL);
    let Err(refused) = late else {
        return Err(Failure::new("a transfer was taken behind the end"));
    };
    ensure!(refused.reason == RefuseReason::Closing, "refused: {}", refused.reason);
    ensure!(refused.value.len() == 4, "another payload came back");
    Ok(())
}

fn expect_failed(rig: &Rig, connection: ConnectionId, why: FailReason) -> Result<(), Failure> {
    let closed = rig.record.line(connection).closed.clone();
    ensure!(closed == Some(CloseOutcome::Failed(why)), "closed as {closed:?}");
    Ok(())
}
