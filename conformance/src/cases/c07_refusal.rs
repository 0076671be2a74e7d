//! C7: a refusal gives back what was handed over, and nothing grows without
//! bound.

use super::{close_and_compare, expect_nothing_held};
use crate::canary::guarded;
use crate::failure::{Failure, ensure};
use crate::peers::{Stalling, reader, reader_of};
use crate::rig::Rig;
use crate::wire::Wire;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, ConnectionId, DriverConfig, FileRange, FileSource, Limit, Part, Payload,
    RefuseReason, Watch,
};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let limited = |name, proves, bound: Bound| {
        Case::new(name, proves, move |subject| back_pressure(subject, bound)).over_each_transport()
    };
    vec![
        Case::new(
            "C07-refused-payloads-come-back",
            "empty, unknown, closed and closing: the payload comes back whole, with the reason",
            payloads_come_back,
        )
        .over_each_transport(),
        limited(
            "C07-connection-memory-is-bounded",
            "over a connection's memory there is back-pressure, until something is released",
            Bound::ConnectionMemory,
        ),
        limited(
            "C07-connection-transfers-are-bounded",
            "over a connection's transfers there is back-pressure, until one ends",
            Bound::ConnectionTransfers,
        ),
        limited(
            "C07-driver-memory-is-bounded",
            "over the driver's memory there is back-pressure on every connection",
            Bound::DriverMemory,
        ),
        Case::new(
            "C07-one-payload-is-always-taken",
            "a payload larger than a connection's memory is sent when nothing else is",
            one_is_always_taken,
        )
        .over_each_transport(),
        Case::new(
            "C07-refused-sockets-come-back",
            "over the number of connections a socket comes back usable",
            sockets_come_back,
        ),
        Case::new(
            "C07-old-names-reach-nobody",
            "the id of a closed connection does not reach the one that took its place",
            old_names,
        )
        .over_each_transport(),
    ]
}

const LEN: usize = 100_000;

/// Submits what must be refused, and checks what comes back.
fn refused(
    rig: &mut Rig,
    connection: ConnectionId,
    len: usize,
) -> Result<(RefuseReason, Payload), Failure> {
    let content = pattern::bytes(rig.position(connection), len);
    let (bytes, canary) = guarded(content.clone());
    let Err(refused) = rig.submit(connection, bytes.into(), Watch::ALL, None) else {
        return Err(Failure::new("not refused"));
    };
    // An empty payload has no memory to begin with.
    ensure!(canary.is_alive() || len == 0, "the refused payload was freed");
    let mut back = Vec::new();
    for part in refused.value.remaining(0) {
        match part {
            Part::Memory(bytes) => back.extend_from_slice(bytes),
            Part::File { .. } => return Err(Failure::new("another payload came back")),
        }
    }
    ensure!(back == content, "another payload came back");
    Ok((refused.reason, refused.value))
}

fn payloads_come_back(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let nobody = ConnectionId::new(4711, 1);
    let (reason, _) = refused(&mut rig, nobody, 10)?;
    ensure!(reason == RefuseReason::UnknownConnection, "an unknown connection: {reason}");
    ensure!(rig.driver().receive(nobody).is_err(), "received from nobody");
    ensure!(rig.driver().close(nobody, Duration::ZERO).is_err(), "closed nobody");
    ensure!(rig.driver().abort(nobody).is_err(), "aborted nobody");

    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let stalling = Stalling::after(peer, 0)?;
    let (reason, _) = refused(&mut rig, connection, 0)?;
    ensure!(reason == RefuseReason::Empty, "an empty payload: {reason}");
    // No file reaches beyond what `off_t` can count, nor a connection that far.
    let file: Arc<dyn FileSource> = Arc::new(tempfile::tempfile()?);
    for (offset, len) in [(0, u64::MAX), (1 << 63, 10), (i64::MAX as u64, 1), (u64::MAX, 1)] {
        let range = FileRange::new(Arc::clone(&file), offset, len);
        let Err(refused) = rig.driver().submit(connection, range.into(), Watch::ALL) else {
            return Err(Failure::new(format!("{len} bytes at {offset} were not refused")));
        };
        ensure!(refused.reason == RefuseReason::TooLong, "an endless file: {}", refused.reason);
        ensure!(refused.value.segments().len() == 1, "another payload came back");
    }
    // A refusal must not use up a transfer id; the record checks that.
    rig.send(connection, 5_000_000, Watch::ALL)?;
    rig.driver().close(connection, crate::rig::PATIENCE)?;
    let (reason, _) = refused(&mut rig, connection, 10)?;
    ensure!(reason == RefuseReason::Closing, "a closing connection: {reason}");
    let len = rig.position(connection);
    let peer = stalling.resume();
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    let (reason, _) = refused(&mut rig, connection, 10)?;
    ensure!(
        matches!(reason, RefuseReason::UnknownConnection | RefuseReason::Closing),
        "a closed connection: {reason}"
    );
    peer.join()?.expect(len, crate::peers::End::Finished)?;
    Ok(Proof::full())
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    ConnectionMemory,
    ConnectionTransfers,
    DriverMemory,
}

fn back_pressure(subject: &Subject, bound: Bound) -> Result<Proof, Failure> {
    const BOUND: u64 = 10 * LEN as u64 + 1;
    let mut config = DriverConfig::default();
    let mut options = AttachOptions::default();
    let expected = match bound {
        Bound::ConnectionMemory => {
            options.max_memory = BOUND;
            Limit::ConnectionMemory
        }
        Bound::ConnectionTransfers => {
            options.max_transfers = 5;
            Limit::ConnectionTransfers
        }
        Bound::DriverMemory => {
            config.max_memory = BOUND;
            Limit::DriverMemory
        }
    };
    let mut rig = Rig::configured(subject, &config)?;
    let wire = Wire { peer_window: Some(16 << 10), ..Wire::narrow_sender() };
    let pair = wire.pair(subject)?;
    let (connection, peer) = rig.join(subject, pair, &options)?;
    let stalling = Stalling::after(peer, 0)?;
    // What the socket takes at once is released at once.
    let mut taken = 0;
    let (reason, mut payload) = loop {
        let content = pattern::bytes(rig.position(connection), LEN);
        match rig.submit(connection, content.into(), Watch::ALL, None) {
            Ok(_) => taken += 1,
            Err(_) => break refused(&mut rig, connection, LEN)?,
        }
        ensure!(taken < 200, "{} bytes are taken", taken * LEN);
        rig.turn(Duration::ZERO)?;
    };
    ensure!(
        matches!(reason, RefuseReason::BackPressure { limit, outstanding, allowed }
            if limit == expected && (outstanding + LEN as u64 > allowed || outstanding >= allowed)),
        "refused with {reason:?}"
    );
    let unreleased = rig.driver().counters().unreleased_bytes;
    ensure!(unreleased <= BOUND.max(6 * LEN as u64), "{unreleased} bytes are held");
    // Refused again, as nothing has changed.
    let (again, _) = refused(&mut rig, connection, LEN)?;
    ensure!(again == reason, "first {reason:?}, then {again:?}");

    let peer = stalling.resume();
    let deadline = std::time::Instant::now() + crate::rig::PATIENCE;
    while let Err(refused) = rig.submit(connection, payload, Watch::ALL, None) {
        ensure!(std::time::Instant::now() < deadline, "refused for ever: {}", refused.reason);
        payload = refused.value;
        rig.turn(Duration::from_millis(50))?;
    }
    rig.settle()?;
    expect_nothing_held(&mut rig)?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn one_is_always_taken(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let mut options = AttachOptions::default();
    options.max_memory = 10;
    let pair = Wire::narrow_sender().pair(subject)?;
    let (connection, peer) = rig.join(subject, pair, &options)?;
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 5_000_000, Watch::ACKED)?;
    let (reason, _) = refused(&mut rig, connection, 1)?;
    ensure!(matches!(reason, RefuseReason::BackPressure { .. }), "the second: {reason}");
    let peer = stalling.resume();
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn sockets_come_back(subject: &Subject) -> Result<Proof, Failure> {
    let mut config = DriverConfig::default();
    config.max_connections = 2;
    let mut rig = Rig::configured(subject, &config)?;
    let (first, first_peer) = rig.connect(subject, Wire::default())?;
    let (second, second_peer) = rig.connect(subject, Wire::default())?;
    let pair = Wire::default().pair(subject)?;
    let Err(refused) = rig.driver().attach(pair.own.into(), &AttachOptions::default()) else {
        return Err(Failure::new("a third of two connections was taken"));
    };
    ensure!(
        matches!(refused.reason, RefuseReason::BackPressure { limit: Limit::Connections, .. }),
        "refused with {}",
        refused.reason
    );
    let mut socket = refused.value.into_stream();
    socket.set_nonblocking(false)?;
    socket.write_all(&pattern::bytes(0, 1000))?;
    drop(socket);
    reader(pair.peer)?.join()?.expect(1000, crate::peers::End::Finished)?;
    for (connection, peer) in [(first, first_peer), (second, second_peer)] {
        let peer = reader(peer)?;
        rig.send(connection, 1000, Watch::ACKED)?;
        close_and_compare(&mut rig, connection, peer)?;
    }
    rig.connect(subject, Wire::default()).map_err(|f| f.while_doing("there is room again"))?;
    Ok(Proof::full())
}

fn old_names(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (old, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    close_and_compare(&mut rig, old, peer)?;
    for _ in 0..3 {
        let (new, peer) = rig.connect(subject, Wire::default())?;
        ensure!(new != old, "a name was given out twice");
        let peer = reader_of(peer, 500)?;
        let (reason, _) = refused(&mut rig, old, 100)?;
        ensure!(reason == RefuseReason::UnknownConnection, "an old name: {reason}");
        ensure!(rig.driver().abort(old).is_err(), "an old name was aborted");
        rig.send(new, 500, Watch::ACKED)?;
        rig.settle()?;
        close_and_compare_left(&mut rig, new, peer)?;
    }
    Ok(Proof::full())
}

/// As [`close_and_compare`], for a peer that leaves first.
fn close_and_compare_left(
    rig: &mut Rig,
    connection: ConnectionId,
    peer: crate::peers::Peer,
) -> Result<(), Failure> {
    rig.close(connection)?;
    peer.join()?.expect(500, crate::peers::End::Left)
}
