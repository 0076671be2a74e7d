//! C12: a close loses nothing, and ends.

use super::{close_and_compare, expect_graceful};
use crate::failure::{Failure, ensure};
use crate::peers::{End, Flooding, Puppet, Stalling, half_closing, reader, sending_first};
use crate::rig::{PATIENCE, Rig};
use crate::wire::Wire;
use crate::{Case, Proof, Subject};
use lastbyte::{CloseOutcome, FailReason, RefuseReason, Watch};
use std::io::Write;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C12-close-sends-what-was-accepted",
            "transfers that are not even begun are sent, then FIN, and all is acknowledged",
            sends_what_was_accepted,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-of-an-idle-connection",
            "a connection on which nothing was sent ends with FIN",
            idle,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-with-unread-input-cuts-nothing-off",
            "input that nobody read does not turn the end into a reset",
            unread_input,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-while-the-peer-floods",
            "a peer that goes on sending gets every byte and no reset",
            flooding_peer,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-while-the-peer-sends-before-it-reads",
            "a peer that reads only after it has sent 6 MiB gets every byte and no reset",
            peer_sends_first,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-deadline-resets",
            "a peer that never reads is reset when the deadline passes",
            deadline,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-waits-for-the-acknowledgement",
            "a connection is not closed before the peer has everything",
            waits,
        )
        .over_each_transport(),
        Case::new(
            "C12-close-after-the-peer-half-closed",
            "a peer that finished first gets every byte",
            peer_half_closed,
        )
        .over_each_transport(),
        Case::new(
            "C12-a-peer-that-never-closes-is-let-go",
            "a peer that has everything and keeps its end open does not hold the connection",
            never_closes,
        )
        .over_each_transport(),
        Case::new(
            "C12-abort-resets",
            "an abort shows as a reset, and the outcome says who gave up",
            abort_resets,
        )
        .over_each_transport(),
    ]
}

fn sends_what_was_accepted(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let stalling = Stalling::after(peer, 1000)?;
    for _ in 0..20 {
        rig.send(connection, 200_000, Watch::ALL)?;
    }
    rig.driver().close(connection, PATIENCE)?;
    let len = rig.position(connection);
    let peer = stalling.resume();
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    expect_graceful(&rig, connection)?;
    let failed = rig.record.transfers().filter(|told| told.failed.is_some()).count();
    ensure!(failed == 0, "{failed} transfers failed in a graceful close");
    peer.join()?.expect(len, End::Finished)?;
    Ok(Proof::full())
}

fn idle(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    close_and_compare(&mut rig, connection, peer)?;
    super::expect_let_go(&mut rig)?;
    Ok(Proof::full())
}

fn unread_input(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, mut peer) = rig.connect(subject, Wire::default())?;
    peer.write_all(&[b'?'; 30_000])?;
    // The peer reads only after the end was sent: a reset would destroy what
    // it has not read yet.
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 100_000, Watch::ALL)?;
    rig.driver().close(connection, PATIENCE)?;
    rig.linger(Duration::from_millis(60))?;
    let len = rig.position(connection);
    let peer = stalling.resume();
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    peer.join()?.expect(len, End::Finished)?;
    expect_graceful(&rig, connection)?;
    Ok(Proof::full())
}

fn flooding_peer(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let flood = Flooding::start(peer)?;
    rig.send(connection, 500_000, Watch::ALL)?;
    rig.driver().close(connection, PATIENCE)?;
    rig.until_outside("the peer to read to the end", |_| flood.is_done())?;
    let len = rig.position(connection);
    flood.stop();
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    flood.join()?.expect(len, End::Finished)?;
    expect_graceful(&rig, connection)?;
    Ok(Proof::full())
}

fn peer_sends_first(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    // More than the buffers of both sockets hold: neither side gets on unless what the
    // peer sends is taken off the wire.
    let peer = sending_first(peer, 6 << 20)?;
    let transfer = rig.send(connection, 2 << 20, Watch::ACKED)?;
    rig.driver().close(connection, PATIENCE)?;
    let len = rig.position(connection);
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    expect_graceful(&rig, connection)?;
    rig.settle()?;
    let failed = rig.record.told(connection, transfer).failed.clone();
    ensure!(failed.is_none(), "the transfer failed: {failed:?}");
    peer.join()?.expect(len, End::Finished)?;
    Ok(Proof::full())
}

fn deadline(subject: &Subject) -> Result<Proof, Failure> {
    let within = Duration::from_millis(150);
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 5_000_000, Watch::ACKED)?;
    let began = Instant::now();
    rig.driver().close(connection, within)?;
    rig.until("the deadline", |record| record.is_closed(connection))?;
    ensure!(began.elapsed() >= within, "reset after {:?} already", began.elapsed());
    let closed = rig.record.line(connection).closed.clone();
    let expected = CloseOutcome::Failed(FailReason::Timeout);
    ensure!(closed == Some(expected), "closed as {closed:?}");
    let seen = stalling.join()?;
    seen.expect_intact()?;
    ensure!(seen.end == End::Reset, "the peer saw {:?}", seen.end);
    Ok(Proof::full())
}

fn waits(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow())?;
    let mut puppet = Puppet::new(peer)?;
    rig.send(connection, 12_000, Watch::ALL)?;
    rig.driver().close(connection, PATIENCE)?;
    // What still comes is thrown away, so that nothing would answer.
    let asked = rig.driver().receive(connection);
    ensure!(asked == Err(RefuseReason::Closing), "asked for input while closing: {asked:?}");
    rig.linger(Duration::from_millis(50))?;
    ensure!(puppet.held()? < 12_000, "everything fits the window, so nothing is shown");
    ensure!(!rig.record.is_closed(connection), "closed before the peer had everything");
    rig.until_outside("the peer to read to the end", |_| {
        puppet.read(2000).is_ok() && puppet.seen.end == End::Finished
    })?;
    puppet.seen.expect(12_000, End::Finished)?;
    drop(puppet);
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    expect_graceful(&rig, connection)?;
    Ok(Proof::full())
}

fn peer_half_closed(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    rig.driver().receive(connection)?;
    let peer = half_closing(peer, b"please")?;
    rig.until("the request", |record| record.line(connection).inputs > 0)?;
    rig.driver().receive(connection)?;
    rig.until("the peer's end", |record| record.line(connection).ended)?;
    ensure!(rig.record.line(connection).input == b"please", "another request arrived");
    rig.send(connection, 1_000_000, Watch::ALL)?;
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn abort_resets(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 5_000_000, Watch::ACKED)?;
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    let closed = rig.record.line(connection).closed.clone();
    let expected = CloseOutcome::Failed(FailReason::Cancelled);
    ensure!(closed == Some(expected), "closed as {closed:?}");
    let seen = stalling.join()?;
    ensure!(seen.end == End::Reset, "the peer saw {:?}", seen.end);
    seen.expect_intact()?;
    Ok(Proof::full())
}

fn never_closes(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let mut puppet = Puppet::new(peer)?;
    rig.send(connection, 20_000, Watch::ALL)?;
    rig.driver().close(connection, Duration::from_millis(300))?;
    rig.until_outside("the connection to close", |record| {
        puppet.read(20_000).is_ok() && record.is_closed(connection)
    })?;
    rig.settle()?;
    super::expect_let_go(&mut rig)?;
    puppet.read(20_000)?;
    puppet.seen.expect_intact()?;
    let got = puppet.seen.stream.received();
    ensure!(got == 20_000, "the peer got {got} of 20000 bytes");
    Ok(Proof::full())
}
