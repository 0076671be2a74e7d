//! C3, C4 and C12 between two network namespaces, over the kernel's own devices
//! and its own idea of a slow and lossy wire: veth and netem.
//!
//! Where these cannot be had, the same is done over a link of the suite's own.

use super::c03_truth_over_a_link::without_link;
use super::close_and_compare;
use crate::failure::{Failure, ensure};
use crate::link::{Ends, Link, LinkOptions, veth};
use crate::peers::reader;
use crate::rig::Rig;
use crate::sys::netlink::Netem;
use crate::{Case, Proof, Subject};
use lastbyte::{AttachOptions, Evidence, StageEvidence, Watch};
use std::time::{Duration, Instant};

/// Half way round the world and back, twice.
const FAR: Netem = Netem { delay: Duration::from_millis(160), loss: 0, rate: None };
const LOSSY: Netem = Netem { delay: Duration::from_millis(10), loss: 30, rate: None };

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C03-acked-takes-a-round-trip-of-320-ms",
            "between namespaces 160 ms apart, no stage comes sooner than the wire allows",
            |subject| over(subject, FAR, stages_take_their_time),
        ),
        Case::new(
            "C02-many-under-way-over-320-ms",
            "of a hundred transfers under way at once, each is acked, in order",
            |subject| over(subject, FAR, many_under_way),
        ),
        Case::new(
            "C04-nothing-lost-where-netem-loses-packets",
            "with three packets of a hundred lost each way, every stage comes all the same",
            |subject| over(subject, LOSSY, nothing_lost),
        ),
        Case::new(
            "C12-close-over-320-ms",
            "close waits for what is under way, for its acknowledgement, and that of the FIN",
            |subject| over(subject, FAR, close_takes_its_time),
        ),
    ]
}

/// What is to be shown on the ends of a connection over such a wire.
type Prove = fn(&Subject, Ends, Netem) -> Result<Proof, Failure>;

fn over(subject: &Subject, netem: Netem, prove: Prove) -> Result<Proof, Failure> {
    let lack = match veth::apart(netem)? {
        Ok(ends) => return prove(subject, ends, netem),
        Err(lack) => lack,
    };
    let options = LinkOptions { delay: netem.delay, loss: netem.loss, rate: netem.rate };
    let Ok((_link, ends)) = Link::new(options)? else {
        return without_link(subject, lack);
    };
    prove(subject, ends, netem)?;
    Ok(Proof::substitute(lack, "the same over a link of the suite's own"))
}

fn stages_take_their_time(subject: &Subject, ends: Ends, netem: Netem) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let connection = rig.attach(ends.server, &AttachOptions::default())?;
    let peer = reader(ends.client)?;
    let mut shown = Vec::new();
    for len in [1, 1400, 100_000] {
        let transfer = rig.send(connection, len, Watch::ALL)?;
        rig.settle()?;
        let told = rig.record.told(connection, transfer);
        if rig.record.line(connection).support.acked == StageEvidence::Unavailable {
            continue;
        }
        let Some(acked) = told.acked else { return Err(Failure::new("not acked")) };
        let latest = acked.at.monotonic.after(acked.at.error);
        let round_trip = latest.since(told.submitted);
        ensure!(
            round_trip >= 2 * netem.delay,
            "{len} bytes acked {round_trip:?} after they were submitted"
        );
        shown.push(format!("{} ms", round_trip.as_millis()));
        // It is stamped as it leaves the queue in which it waits.
        if let Some(sent) = told.transmitted.filter(|sent| sent.evidence == Evidence::Kernel) {
            let on_its_way = sent.at.monotonic.after(sent.at.error).since(acked.at.monotonic);
            ensure!(on_its_way.is_zero(), "transmitted {on_its_way:?} after it was acked");
        }
    }
    close_and_compare(&mut rig, connection, peer)?;
    match super::acks_shown(&rig, connection) {
        Proof::Full { .. } => Ok(Proof::noting(format!("acked after {}", shown.join(", ")))),
        proof => Ok(proof),
    }
}

fn many_under_way(subject: &Subject, ends: Ends, _: Netem) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let connection = rig.attach(ends.server, &AttachOptions::default())?;
    let peer = reader(ends.client)?;
    let sent = (0..100)
        .map(|n| rig.send(connection, 1 + 97 * n, Watch::ALL))
        .collect::<Result<Vec<_>, _>>()?;
    rig.settle()?;
    let acked: Vec<_> = rig.record.acked_order.iter().map(|(_, transfer)| *transfer).collect();
    ensure!(acked == sent, "acked in the order {acked:?}");
    close_and_compare(&mut rig, connection, peer)?;
    Ok(super::acks_shown(&rig, connection))
}

fn nothing_lost(subject: &Subject, ends: Ends, _: Netem) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let connection = rig.attach(ends.server, &AttachOptions::default())?;
    let peer = reader(ends.client)?;
    for _ in 0..5 {
        for len in [1, 1400, 60_000, 7] {
            rig.send(connection, len, Watch::ALL)?;
        }
        rig.settle()?;
    }
    close_and_compare(&mut rig, connection, peer)?;
    Ok(super::acks_shown(&rig, connection))
}

fn close_takes_its_time(subject: &Subject, ends: Ends, netem: Netem) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let connection = rig.attach(ends.server, &AttachOptions::default())?;
    let peer = reader(ends.client)?;
    rig.send(connection, 100_000, Watch::ALL)?;
    let began = Instant::now();
    close_and_compare(&mut rig, connection, peer)?;
    let took = began.elapsed();
    if rig.learns_of_fin {
        ensure!(took >= 2 * netem.delay, "closed after {took:?}");
    }
    Ok(super::acks_shown(&rig, connection))
}
