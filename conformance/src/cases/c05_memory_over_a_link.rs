//! C5 while a notification is really pending: the peer's acknowledgements are
//! withheld, so the kernel must keep what it may have to send again.

use super::c03_truth_over_a_link::without_link;
use super::expect_nothing_held;
use crate::failure::{Failure, ensure};
use crate::link::{Ends, Link, LinkOptions};
use crate::peers::Puppet;
use crate::rig::Rig;
use crate::sys::process;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{
    AttachOptions, ConnectionId, Facility, FailReason, Method, Pool, StageEvidence, TransferId,
    Watch,
};
use std::time::Duration;

/// As much as goes out at once, and more.
const LENS: [usize; 3] = [4000, 64 << 10, 1];

pub(super) fn cases() -> Vec<Case> {
    let case =
        |name, proves, prove| Case::new(name, proves, move |subject| over_a_link(subject, prove));
    vec![
        case(
            "C05-held-until-the-peer-acknowledges",
            "zero-copied memory is not released while acknowledgements are withheld",
            held,
        ),
        case(
            "C05-cancelled-with-notifications-pending",
            "given up while the kernel holds memory: each payload fails once, and comes back once \
             the kernel has let go",
            cancelled,
        ),
        case(
            "C05-dropped-with-notifications-pending",
            "a driver that is dropped while the kernel holds memory waits for it",
            dropped,
        ),
        case(
            "C05-what-the-kernel-keeps-is-leaked-and-counted",
            "where the kernel cannot be made to let go, memory is leaked at the deadline, counted, \
             and never freed",
            kept,
        ),
        case(
            "C05-what-the-kernel-keeps-of-a-dropped-driver-is-leaked",
            "the same when the driver is dropped",
            kept_of_dropped,
        ),
    ]
}

/// A connection whose payloads were sent and are not acknowledged.
struct Pending {
    rig: Rig,
    link: Link,
    connection: ConnectionId,
    transfers: Vec<TransferId>,
    puppet: Puppet,
    /// Why nothing is zero-copied here.
    lack: Option<Lack>,
}

fn over_a_link(
    subject: &Subject,
    prove: fn(Pending) -> Result<Proof, Failure>,
) -> Result<Proof, Failure> {
    let options = LinkOptions { delay: Duration::from_millis(1), loss: 0, rate: None };
    let (link, Ends { server, client }) = match Link::new(options)? {
        Ok(made) => made,
        Err(lack) => return without_link(subject, lack),
    };
    let mut rig = Rig::eager(subject)?;
    // Not the same way for every payload, where there are two.
    let pool = Pool::contiguous(64 << 10, 1);
    let registered = rig.driver().register(&pool).is_ok();
    let mut attach = AttachOptions::default();
    attach.release_timeout = Duration::from_millis(100);
    let connection = rig.attach(server, &attach)?;
    link.hold_acks();
    let mut transfers = Vec::new();
    for len in LENS {
        transfers.push(rig.send(connection, len, Watch::ALL)?);
    }
    if registered {
        let mut buffer = pool.take();
        buffer.fill_from(&crate::pattern::bytes(rig.position(connection), 4000));
        transfers.push(rig.submit(connection, buffer.into(), Watch::ALL, None)?);
    }
    drop(pool);
    rig.linger(Duration::from_millis(60))?;
    let lack = subject.lacks(Facility::ZeroCopy).or_else(|| super::no_room(&mut rig));
    let counters = rig.driver().counters();
    let (pinned, zero_copied) = (counters.pinned_bytes, counters.method(Method::ZeroCopy));
    ensure!(lack.is_some() || zero_copied > 0, "nothing was zero-copied");
    // A payload that was only sent in part is pinned as a whole.
    ensure!(pinned >= zero_copied, "{pinned} of {zero_copied} bytes are pinned, and none acked");
    let puppet = Puppet::new(client)?;
    prove(Pending { rig, link, connection, transfers, puppet, lack })
}

/// What was shown.
fn proof(lack: Option<Lack>) -> Result<Proof, Failure> {
    let copied = "copied payloads come back early, and nothing is held or leaked";
    Ok(lack.map_or(Proof::full(), |lack| Proof::substitute(lack, copied)))
}

fn held(pending: Pending) -> Result<Proof, Failure> {
    let Pending { mut rig, link, connection, transfers, mut puppet, lack } = pending;
    let early = transfers.iter().filter(|n| rig.record.told(connection, **n).released.is_some());
    let early = early.count();
    ensure!(lack.is_some() || early == 0, "{early} payloads were released, and none acked");
    link.release_acks();
    rig.until_outside("every byte", |record| puppet.read(64 << 10).is_ok() && record.is_settled())?;
    while puppet.read(64 << 10)? > 0 {}
    rig.settle()?;
    puppet.seen.expect_intact()?;
    expect_nothing_held(&mut rig)?;
    proof(lack)
}

fn cancelled(pending: Pending) -> Result<Proof, Failure> {
    let Pending { mut rig, connection, transfers, lack, .. } = pending;
    let unknown = rig.record.line(connection).support.acked == StageEvidence::Unavailable;
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    for transfer in transfers {
        let told = rig.record.told(connection, transfer);
        let reason = told.failed.as_ref().map(|failure| &failure.reason);
        // Where nothing tells of acknowledgement, what was sent is over already.
        let is_over = unknown && told.acked.is_some();
        let is_cancelled = reason == Some(&FailReason::Cancelled);
        ensure!(is_cancelled || is_over, "given up, but {reason:?}");
        ensure!(!told.leaked, "leaked, though the kernel lets go at once");
    }
    expect_nothing_held(&mut rig)?;
    proof(lack)
}

fn dropped(pending: Pending) -> Result<Proof, Failure> {
    let Pending { mut rig, connection, transfers, mut puppet, link, lack } = pending;
    rig.drop_driver()?;
    let leaked = transfers.iter().filter(|n| rig.record.told(connection, **n).leaked).count();
    ensure!(leaked == 0, "{leaked} payloads leaked, though the kernel lets go at once");
    link.release_acks();
    while puppet.read(64 << 10)? > 0 {}
    puppet.seen.expect_intact()?;
    proof(lack)
}

fn kept(pending: Pending) -> Result<Proof, Failure> {
    let Pending { mut rig, connection, transfers, mut puppet, link, lack } = pending;
    let pinned = rig.driver().counters().pinned_bytes;
    if let Err(error) = process::refuse_connecting() {
        return Ok(Proof::substitute(
            Lack::refused("a filter for system calls", &error),
            "memory is held while acknowledgements are withheld",
        ));
    }
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    let leaked = transfers.iter().filter(|n| rig.record.told(connection, **n).leaked).count();
    let counted = rig.driver().counters().leaked_bytes;
    ensure!(counted == pinned, "{pinned} bytes were pinned, {counted} are counted as leaked");
    ensure!((leaked == 0) == (pinned == 0), "{leaked} payloads leaked, {pinned} bytes pinned");
    expect_leaked_only(&mut rig)?;
    link.release_acks();
    rig.linger(Duration::from_millis(50))?;
    while puppet.read(64 << 10)? > 0 {}
    puppet.seen.expect_intact()?;
    expect_leaked_only(&mut rig)?;
    proof(lack)
}

fn kept_of_dropped(pending: Pending) -> Result<Proof, Failure> {
    let Pending { mut rig, connection, transfers, mut puppet, link, lack } = pending;
    let pinned = rig.driver().counters().pinned_bytes;
    if let Err(error) = process::refuse_connecting() {
        return Ok(Proof::substitute(
            Lack::refused("a filter for system calls", &error),
            "memory is held while acknowledgements are withheld",
        ));
    }
    rig.drop_driver()?;
    let leaked = transfers.iter().filter(|n| rig.record.told(connection, **n).leaked).count();
    ensure!((leaked == 0) == (pinned == 0), "{leaked} payloads leaked, {pinned} bytes pinned");
    link.release_acks();
    std::thread::sleep(Duration::from_millis(20));
    while puppet.read(64 << 10)? > 0 {}
    puppet.seen.expect_intact()?;
    rig.check()?;
    proof(lack)
}

/// What leaked exists, and nothing else does.
fn expect_leaked_only(rig: &mut Rig) -> Result<(), Failure> {
    rig.check()?;
    let counters = rig.driver().counters();
    let held = (counters.unreleased_bytes, counters.pinned_bytes);
    ensure!(held == (0, 0), "(unreleased, pinned) bytes are {held:?} after the end");
    let alive = rig.record.transfers().filter(|told| !told.leaked);
    let alive = alive.filter_map(|told| told.canary.as_ref()).filter(|canary| canary.is_alive());
    let alive = alive.count();
    ensure!(alive == 0, "{alive} payloads that came back and were dropped still exist");
    Ok(())
}
