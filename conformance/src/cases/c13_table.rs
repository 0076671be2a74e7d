//! C13: the table of payloads, methods and watched stages, over each transport,
//! without an empty cell.

use super::{WATCHES, close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::reader;
use crate::rig::Rig;
use crate::subject::Directions;
use crate::sys::tls_ulp;
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{DriverConfig, Facility, Method, StageEvidence, Transport, Watch};
use std::sync::LazyLock;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Copy,
    ZeroCopy,
    Sendfile,
}

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

/// The names of the table's cells, which cases have with `C13-` in front.
pub(crate) static C13_CELLS: LazyLock<Vec<&str>> =
    LazyLock::new(|| CELLS.iter().map(|(name, ..)| *name).collect());

pub(super) fn cases() -> Vec<Case> {
    CELLS
        .into_iter()
        .map(|(name, kind, way)| {
            Case::new(
                format!("C13-{name}"),
                "this payload, moved this way, with every set of watched stages",
                move |subject| cell(subject, kind, way),
            )
            .over_each_transport()
        })
        .collect()
}

fn cell(subject: &Subject, kind: Kind, way: Way) -> Result<Proof, Failure> {
    let has_file = !matches!(kind, Kind::Memory | Kind::Pooled);
    // A file is only copied where sendfile cannot be had.
    let switch_off = way == Way::Copy && has_file && no_sendfile(subject).is_none();
    let reopened = if switch_off { subject.without(Facility::Sendfile) } else { None };
    let cannot_switch_off = switch_off && reopened.is_none();
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
            let told = rig.record.told(connection, transfer);
            // Under user TLS it is released before its ciphertext is moved.
            let last = told.acked.or(told.transmitted).or(told.queued).or(told.released);
            let last = if subject.transport() == Transport::Plain { told.released } else { last };
            let is_known = len > 5 && (moves_payload(subject) || watch != Watch::NONE);
            methods.extend(last.filter(|_| is_known).map(|last| last.method));
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

    let by_zero_copy = [Method::ZeroCopy, Method::ZeroCopyRefused];
    let by_sendfile = [Method::Sendfile, Method::Splice];
    let of_file = way == Way::Sendfile || (kind == Kind::HeaderAndFile && way == Way::ZeroCopy);
    let expected: &[Method] = match way {
        Way::Copy => &[Method::Copy],
        _ if of_file => &by_sendfile,
        _ => &by_zero_copy,
    };
    let lack = match way {
        Way::Copy => None,
        _ if of_file => no_sendfile(subject),
        _ => no_zero_copy(subject),
    };
    if let Some(lack) = lack.or(no_room).or(no_end) {
        // What is sealed first goes as any memory does. Portable sendfile is
        // nobody's loss.
        let allowed = |method: &&Method| {
            let sealed = way == Way::ZeroCopy && by_zero_copy.contains(*method);
            **method == Method::Copy || expected.contains(*method) || sealed
        };
        let others: Vec<_> = methods.iter().filter(|method| !allowed(method)).collect();
        ensure!(others.is_empty(), "moved by {others:?}");
        let instead = if methods.iter().any(|method| by_zero_copy.contains(method)) {
            "sealed and moved by zero copy, byte for byte, with every watched stage"
        } else if moves_payload(subject) {
            "copied, byte for byte, with every watched stage"
        } else {
            "sealed and copied, byte for byte, with every watched stage"
        };
        return Ok(Proof::substitute(lack, instead));
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

/// Whether the payload itself is what the kernel is given.
fn moves_payload(subject: &Subject) -> bool {
    subject.directions().transmit != Transport::UserTls
}

fn no_sendfile(subject: &Subject) -> Option<Lack> {
    let sealed = || Lack::of("sendfile: user TLS reads the file and encrypts it");
    subject.lacks(Facility::Sendfile).or_else(|| (!moves_payload(subject)).then(sealed))
}

fn no_zero_copy(subject: &Subject) -> Option<Lack> {
    let sealed_by_kernel = || match tls_ulp::zero_copy() {
        Ok(()) => None,
        Err(error) => Some(Lack::refused("MSG_ZEROCOPY on a kernel TLS socket", &error)),
    };
    let Directions { transmit, receive } = subject.directions();
    subject.lacks(Facility::ZeroCopy).or_else(|| match (transmit, receive) {
        (Transport::KernelTls, _) => sealed_by_kernel(),
        // Nothing could have the kernel let go of what it was lent.
        (_, Transport::KernelTls) => Some(Lack::of(
            "zero copy: a socket whose records the kernel opens cannot be disconnected",
        )),
        _ => None,
    })
}
