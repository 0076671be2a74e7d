//! C2: stages in order, transfers in order.

use super::{WATCHES, close_and_compare};
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::{byte_at_a_time, reader};
use crate::rig::Rig;
use crate::wire::Wire;
use crate::{Case, Proof, Subject};
use lastbyte::Watch;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C02-transfers-are-acked-in-submission-order",
            "kinds, lengths and methods mixed on one connection, acknowledged in order",
            mixed,
        )
        .over_each_transport(),
        Case::new(
            "C02-stages-are-in-order-for-a-slow-reader",
            "Queued, Transmitted, Acked in delivery and in time, with a reader of single bytes",
            slow_reader,
        )
        .over_each_transport(),
    ]
}

fn mixed(subject: &Subject) -> Result<Proof, Failure> {
    const KINDS: [Kind; 5] =
        [Kind::Memory, Kind::File, Kind::Pooled, Kind::HeaderAndFile, Kind::SealedMemory];
    const LENGTHS: [usize; 4] = [10, 90_000, 1500, 33_000];
    const TRANSFERS: usize = 60;
    let material = Material::new(LENGTHS.iter().sum::<usize>() * TRANSFERS / LENGTHS.len())?;
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = reader(peer)?;
    let mut expected = Vec::new();
    for n in 0..TRANSFERS {
        let watch = if n % 3 == 0 { Watch::ALL } else { WATCHES[n % WATCHES.len()] };
        let (kind, len) = (KINDS[n % KINDS.len()], LENGTHS[n % LENGTHS.len()]);
        let transfer = rig.send_kind(connection, &material, kind, len, watch)?;
        if watch.contains(Watch::ACKED) {
            expected.push((connection, transfer));
        }
    }
    rig.settle()?;
    ensure!(rig.record.acked_order == expected, "acked in order {:?}", rig.record.acked_order);
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn slow_reader(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = byte_at_a_time(peer)?;
    for len in [1, 2, 3000, 1, 120_000, 5] {
        rig.send(connection, len, Watch::ALL)?;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}
