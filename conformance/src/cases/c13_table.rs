//! C13: the table of payloads, methods and watched stages, without an empty
//! cell.

use super::{WATCHES, close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::reader;
use crate::rig::Rig;
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{DriverConfig, Facility, Method, StageEvidence};

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Copy,
    ZeroCopy,
    Sendfile,
}

pub(super) fn cases() -> Vec<Case> {
    const CELLS: [(&str, Kind, Way); 11] = [
        ("memory-copy", Kind::Memory, Way::Copy),
        ("memory-zerocopy", Kind::Memory, Way::ZeroCopy),
        ("pooled-copy", Kind::Pooled, Way::Copy),
        ("pooled-zerocopy", Kind::Pooled, Way::ZeroCopy),
        ("file-copy", Kind::File, Way::Copy),
        ("file-sendfile", Kind::File, Way::Sendfile),
        ("sealed-memory-copy", Kind::SealedMemory, Way::Copy),
        ("sealed-memory-sendfile", Kind::SealedMemory, Way::Sendfile),
        ("header-and-file-copy", Kind::HeaderAndFile, Way::Copy),
        ("header-and-file-sendfile", Kind::HeaderAndFile, Way::Sendfile),
        ("header-and-file-zerocopy-and-sendfile", Kind::HeaderAndFile, Way::ZeroCopy),
    ];
    CELLS
        .into_iter()
        .map(|(name, kind, way)| {
            Case::new(
                format!("C13-plain-{name}"),
                "this payload, moved this way, with every set of watched stages",
                move |subject| cell(subject, kind, way),
            )
        })
        .collect()
}

fn cell(subject: &Subject, kind: Kind, way: Way) -> Result<Proof, Failure> {
    // A file is only copied where sendfile cannot be had.
    let has_file = !matches!(kind, Kind::Memory | Kind::Pooled);
    let reopened = if way == Way::Copy && has_file && subject.lacks(Facility::Sendfile).is_none() {
        subject.without(Facility::Sendfile)
    } else {
        None
    };
    let cannot_switch_off = way == Way::Copy
        && has_file
        && reopened.is_none()
        && subject.lacks(Facility::Sendfile).is_none();
    let subject = reopened.as_ref().unwrap_or(subject);
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = if way == Way::ZeroCopy { 1 } else { u64::MAX };
    let material = Material::new(4 << 20)?;
    let mut rig = Rig::configured(subject, &config)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let mut methods = Vec::new();
    for watch in WATCHES {
        for len in [5, 70_000, 300_000] {
            let transfer = rig.send_kind(connection, &material, kind, len, watch)?;
            rig.settle()?;
            let released = rig.record.told(connection, transfer).released;
            methods.extend(released.filter(|_| len > 5).map(|released| released.method));
        }
    }
    expect_nothing_held(&mut rig)?;
    // The kernel reads a file's pages until they are acknowledged, so where
    // nothing tells of that, sendfile would never release them.
    let unknown = rig.record.line(connection).support.acked == StageEvidence::Unavailable;
    let no_end = (unknown && has_file && way != Way::Copy)
        .then(|| Lack::of("any way to learn of acknowledgement, which ends a sendfile"));
    let no_room = super::no_room(&mut rig).filter(|_| {
        way == Way::ZeroCopy && !has_file && methods.iter().all(|m| *m == Method::Copy)
    });
    close_and_compare(&mut rig, connection, peer)?;

    let of_file = kind == Kind::HeaderAndFile && way == Way::ZeroCopy;
    let (facility, expected): (_, &[Method]) = match way {
        Way::Copy => (None, &[Method::Copy]),
        _ if of_file => (Some(Facility::Sendfile), &[Method::Sendfile, Method::Splice]),
        Way::Sendfile => (Some(Facility::Sendfile), &[Method::Sendfile, Method::Splice]),
        Way::ZeroCopy => (Some(Facility::ZeroCopy), &[Method::ZeroCopy, Method::ZeroCopyRefused]),
    };
    let lack = facility.and_then(|facility| subject.lacks(facility)).or(no_room).or(no_end);
    if let Some(lack) = lack {
        let others: Vec<_> = methods.iter().filter(|m| **m != Method::Copy).collect();
        // Portable sendfile is nobody's loss.
        ensure!(others.iter().all(|m| expected.contains(m)), "moved by {others:?}");
        return Ok(Proof::substitute(lack, "copied, byte for byte, with every watched stage"));
    }
    if kind == Kind::SealedMemory
        && let Some(error) = material.no_sealed_memory()
    {
        let lack = Lack::refused("sealed memory files", error);
        return Ok(Proof::substitute(lack, "an ordinary file in its place"));
    }
    if cannot_switch_off {
        return Ok(Proof::substitute(
            Lack::of("a way to switch sendfile off"),
            "every byte and stage by sendfile",
        ));
    }
    // Zero copy is given up on a route that copies, but it has to be tried.
    let wrong = methods.iter().filter(|m| !expected.contains(m)).count();
    let right = methods.len() - wrong;
    ensure!(right > 0, "never moved as asked: {methods:?}");
    ensure!(way == Way::ZeroCopy || wrong == 0, "not always moved as asked: {methods:?}");
    Ok(Proof::full())
}
