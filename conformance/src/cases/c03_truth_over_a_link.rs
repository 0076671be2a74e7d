//! C3 where an acknowledgement takes its time: over a link that knows when each
//! packet reached whom.

use super::{acks_shown, close_and_compare, expect_graceful};
use crate::dial::Dial;
use crate::failure::{Failure, ensure};
use crate::link::{Arrival, Ends, Link, LinkOptions};
use crate::peers::{End, Puppet, reader};
use crate::rig::Rig;
use crate::wire::{Pair, Wire};
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{AttachOptions, ConnectionId, Evidence, FailReason, StageEvidence, Watch};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    let over = |name, proves, options: LinkOptions, lens: &'static [usize]| {
        Case::new(name, proves, move |subject| acked_over(subject, options, lens))
            .over_each_transport()
    };
    let delay = Duration::from_millis(25);
    vec![
        over(
            "C03-acked-over-a-slow-link",
            "Acked is dated when the acknowledgement arrived, not when the data did",
            LinkOptions { delay, loss: 0, rate: None },
            &[1, 1400, 100_000],
        ),
        over(
            "C03-acked-over-a-lossy-link",
            "losses and retransmissions make no Acked early, and none is lost",
            LinkOptions { delay: Duration::from_millis(5), loss: 10, rate: None },
            &[1, 300_000, 1, 300_000],
        ),
        over(
            "C03-acked-over-a-thin-link",
            "Acked comes while the sender is held by the link's rate",
            LinkOptions { delay: Duration::from_millis(5), loss: 0, rate: Some(2_000_000) },
            &[200_000, 1],
        ),
        Case::new(
            "C03-no-ack-while-acks-are-withheld",
            "the peer has every byte, but its acknowledgement is under way: no Acked",
            acks_withheld,
        )
        .over_each_transport(),
        Case::new(
            "C14-blackholed-peer-times-out",
            "a peer that vanishes without a word ends transfers as Timeout",
            blackholed,
        )
        .over_each_transport(),
    ]
}

/// Without a link: a window so small that acknowledgements come one by one.
pub(super) fn without_link(subject: &Subject, lack: Lack) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow())?;
    let peer = reader(peer)?;
    for _ in 0..10 {
        rig.send(connection, 1000, Watch::ALL)?;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::substitute(lack, "order and completeness over loopback with a tiny window"))
}

fn acked_over(subject: &Subject, options: LinkOptions, lens: &[usize]) -> Result<Proof, Failure> {
    let (link, Ends { server, client }) = match Link::new(options)? {
        Ok(made) => made,
        Err(lack) => return without_link(subject, lack),
    };
    let mut rig = Rig::new(subject)?;
    let pair = Pair { own: server, peer: client };
    let (connection, peer) = rig.join(subject, pair, &AttachOptions::default())?;
    let peer = reader(peer)?;
    let mut transfers = Vec::new();
    for len in lens {
        transfers.push(rig.send(connection, *len, Watch::ALL)?);
        rig.settle()?;
    }
    let dial = Dial::of(rig.driver());
    let lost = link.lost();
    // The peer's account of records is complete when it has seen the end.
    let len = rig.position(connection);
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    let seen = peer.join()?;
    seen.expect(len, End::Finished)?;
    if rig.record.line(connection).support.acked != StageEvidence::Unavailable {
        for transfer in transfers {
            let told = rig.record.told(connection, transfer);
            let (Some(acked), Some(end)) = (told.acked, seen.records.wire_end(told.end)) else {
                return Err(Failure::new("not acked"));
            };
            let truth = noted(|| link.acknowledged(end))?;
            let arrived = noted(|| link.delivered(end))?;
            let not_before = dial.earliest(truth.before);
            let error = acked.at.error;
            ensure!(
                acked.at.monotonic.after(error) >= not_before,
                "acked {:?} before the acknowledgement arrived",
                not_before.since(acked.at.monotonic)
            );
            ensure!(
                acked.at.monotonic.after(error) >= dial.earliest(arrived.before + options.delay),
                "acked sooner after its arrival than the link allows"
            );
            match acked.evidence {
                Evidence::Kernel => {
                    let late = acked.at.monotonic.since(dial.latest(truth.after));
                    ensure!(
                        late <= options.delay + error,
                        "a kernel stamp {late:?} after the acknowledgement arrived"
                    );
                }
                Evidence::Bracketed { after } => ensure!(
                    after <= dial.latest(truth.after),
                    "not acknowledged at {after:?}, says the bracket, but it was"
                ),
                _ => {}
            }
        }
    }
    let note = format!("{lost} packets lost on purpose");
    ensure!(options.loss == 0 || lost > 0, "nothing was lost, so nothing is shown");
    match acks_shown(&rig, connection) {
        Proof::Full { .. } if options.loss > 0 => Ok(Proof::noting(note)),
        proof => Ok(proof),
    }
}

/// The link notes an arrival just after it brought it about.
fn noted(arrival: impl Fn() -> Option<Arrival>) -> Result<Arrival, Failure> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        if let Some(arrival) = arrival() {
            return Ok(arrival);
        }
        ensure!(Instant::now() < deadline, "told of bytes that the link never carried");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn acks_withheld(subject: &Subject) -> Result<Proof, Failure> {
    let options = LinkOptions { delay: Duration::from_millis(1), loss: 0, rate: None };
    let (link, Ends { server, client }) = match Link::new(options)? {
        Ok(made) => made,
        Err(lack) => return without_link(subject, lack),
    };
    let mut rig = Rig::new(subject)?;
    let pair = Pair { own: server, peer: client };
    let (connection, peer) = rig.join(subject, pair, &AttachOptions::default())?;
    let mut puppet = Puppet::new(peer)?;
    link.hold_acks();
    // Less than an initial congestion window.
    for _ in 0..4 {
        rig.send(connection, 1000, Watch::ALL)?;
    }
    rig.until_outside("the peer to have every byte", |_| {
        puppet.read(4000).is_ok() && puppet.seen.stream.received() == 4000
    })?;
    rig.linger(Duration::from_millis(50))?;
    let proof = acks_shown(&rig, connection);
    if let Proof::Full { .. } = proof {
        let acked = rig.record.acked_order.len();
        ensure!(acked == 0, "{acked} transfers acked, though no acknowledgement came through");
    }
    link.release_acks();
    rig.settle()?;
    puppet.seen.expect_intact()?;
    drop_connection(&mut rig, connection)?;
    Ok(proof)
}

fn blackholed(subject: &Subject) -> Result<Proof, Failure> {
    let options = LinkOptions { delay: Duration::from_millis(1), loss: 0, rate: None };
    let (link, Ends { server, client }) = match Link::new(options)? {
        Ok(made) => made,
        Err(lack) => return without_link(subject, lack),
    };
    let mut rig = Rig::eager(subject)?;
    let mut patience = AttachOptions::default();
    patience.stall_timeout = Some(Duration::from_millis(400));
    let pair = Pair { own: server, peer: client };
    let (connection, peer) = rig.join(subject, pair, &patience)?;
    let mut puppet = Puppet::new(peer)?;
    rig.send(connection, 3000, Watch::ALL)?;
    rig.until_outside("the first bytes to be read", |record| {
        puppet.read(3000).is_ok() && record.is_settled()
    })?;
    link.cut();
    let lost = rig.send(connection, 500_000, Watch::ALL)?;
    if rig.record.line(connection).support.acked == StageEvidence::Unavailable {
        drop_connection(&mut rig, connection)?;
        return Ok(acks_shown(&rig, connection));
    }
    rig.until("the connection to be given up", |record| record.is_closed(connection))?;
    let failure = rig.record.told(connection, lost).failed.clone();
    let Some(failure) = failure else {
        return Err(Failure::new("a transfer into a black hole did not fail"));
    };
    ensure!(failure.reason == FailReason::Timeout, "failed with {:?}", failure.reason);
    ensure!(failure.acked_bytes == 0, "{} bytes acked by nobody", failure.acked_bytes);
    super::expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

fn drop_connection(rig: &mut Rig, connection: ConnectionId) -> Result<(), Failure> {
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))
}
