//! C8: what is lacking is said, and changes nothing but what was said.

use super::close_and_compare;
use crate::failure::{Failure, ensure};
use crate::material::{Kind, Material};
use crate::peers::reader;
use crate::results::errno_text;
use crate::rig::Rig;
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{
    BackendKind, Choice, Evidence, Facility, Restrictions, StageEvidence, Support, Watch,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "C08-a-name-is-meant",
            "a backend chosen by name that cannot be had is an error that says why",
            a_name_is_meant,
        ),
        Case::new(
            "C08-auto-works-without-anything",
            "with every facility switched off, auto still sends and completes",
            |subject| auto_without(subject, &Facility::ALL),
        ),
        Case::new(
            "C08-the-report-is-complete",
            "each facility is reported, with the kernel's errno and the effect where it is lacking",
            report_is_complete,
        ),
        Case::new(
            "C08-evidence-is-as-good-as-announced",
            "kernel stamps where the kernel has them, brackets or Unavailable where not",
            evidence_is_as_announced,
        ),
    ];
    cases.extend(Facility::ALL.map(|facility| {
        Case::new(
            format!("C08-auto-works-without-{facility}"),
            "with one facility switched off, auto sends, completes, and says so",
            move |subject| auto_without(subject, &[facility]),
        )
    }));
    cases
}

/// For a subject that cannot be reopened.
fn cannot_reopen(subject: &Subject) -> Result<Proof, Failure> {
    one_transfer(subject)?;
    Ok(Proof::substitute(Lack::of("a way to open the backend again"), "it works as it is"))
}

/// Sends every kind of payload and checks what is said of it.
fn one_transfer(subject: &Subject) -> Result<(), Failure> {
    let material = Material::new(500_000)?;
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for kind in [Kind::Memory, Kind::Pooled, Kind::File, Kind::SealedMemory, Kind::HeaderAndFile] {
        rig.send_kind(connection, &material, kind, 90_000, Watch::ALL)?;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)
}

fn a_name_is_meant(subject: &Subject) -> Result<Proof, Failure> {
    let Some(open) = subject.opener() else {
        return cannot_reopen(subject);
    };
    for (kind, needs) in
        [(BackendKind::Epoll, Facility::Epoll), (BackendKind::IoUring, Facility::IoUring)]
    {
        match open(Choice::Only(kind), &Restrictions::none().without(needs)) {
            Ok(backend) => {
                let got = backend.kind();
                return Err(Failure::new(format!("asked for {kind} without {needs}, got {got}")));
            }
            Err(error) => {
                let text = error.to_string();
                ensure!(text.contains(kind.name()), "'{text}' does not name {kind}");
                // A facility may be called as the backend is.
                let why = text.replacen(kind.name(), "", 1);
                let is_said = why.contains(needs.name()) || why.contains("build");
                ensure!(is_said, "'{text}' does not say what {kind} lacks");
            }
        }
        let support = subject.backend().report().support(needs);
        match (open(Choice::Only(kind), subject.restrictions()), support) {
            (Ok(backend), _) => {
                ensure!(backend.kind() == kind, "asked for {kind}, got {}", backend.kind());
            }
            (Err(error), Support::Lack { errno: Some(errno), .. }) => {
                let (text, answer) = (error.to_string(), errno_text(*errno));
                ensure!(text.contains(&answer), "'{text}' does not say: {answer}");
            }
            (Err(_), _) => {}
        }
    }
    let fallback = open(Choice::Only(BackendKind::Fallback), &everything_off())?;
    ensure!(fallback.kind() == BackendKind::Fallback, "the fallback needs nothing");
    Ok(Proof::full())
}

fn everything_off() -> Restrictions {
    Facility::ALL.into_iter().fold(Restrictions::none(), Restrictions::without)
}

fn auto_without(subject: &Subject, off: &[Facility]) -> Result<Proof, Failure> {
    let Some(open) = subject.opener() else {
        return cannot_reopen(subject);
    };
    let restrictions = off.iter().fold(subject.restrictions().clone(), |r, f| r.without(*f));
    let backend = open(Choice::Auto, &restrictions)?;
    for facility in off {
        let support = backend.report().support(*facility);
        ensure!(*support == Support::Disabled, "{facility} is off, but reported as {support:?}");
    }
    let kind = backend.kind();
    let needs = match kind {
        BackendKind::Epoll => Some(Facility::Epoll),
        BackendKind::IoUring => Some(Facility::IoUring),
        _ => None,
    };
    ensure!(!needs.is_some_and(|needs| off.contains(&needs)), "{kind} was chosen all the same");
    one_transfer(&Subject::new(backend))?;
    Ok(Proof::noting(format!("by {kind}")))
}

fn report_is_complete(subject: &Subject) -> Result<Proof, Failure> {
    let report = subject.backend().report();
    ensure!(!report.kernel().is_empty(), "which kernel that was is not said");
    for facility in Facility::ALL {
        let count = report.capabilities().iter().filter(|c| c.facility == facility).count();
        ensure!(count == 1, "{facility} is reported {count} times");
        let off = !subject.restrictions().allow(facility);
        let support = report.support(facility);
        ensure!(!off || *support == Support::Disabled, "{facility} is off, but {support:?}");
    }
    let text = report.to_string();
    for capability in report.capabilities() {
        if capability.support != Support::Have {
            let effect = capability.facility.effect_of_lack();
            let line = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some(capability.facility.name()));
            let line = line.unwrap_or_default();
            ensure!(line.contains(effect), "the effect of lacking {capability} is not said");
            if let Support::Lack { what, errno } = &capability.support {
                ensure!(!what.is_empty(), "what was tried is not said: {capability:?}");
                ensure!(line.contains(what), "{what} is not said: '{line}'");
                let answer = errno.map(errno_text).unwrap_or_default();
                ensure!(line.contains(&answer), "the kernel said {answer}, the report '{line}'");
            }
        }
    }
    Ok(Proof::full())
}

fn evidence_is_as_announced(subject: &Subject) -> Result<Proof, Failure> {
    const TRANSFERS: usize = 40;
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..TRANSFERS {
        rig.send(connection, 2000, Watch::ALL)?;
        rig.settle()?;
    }
    let support = rig.record.line(connection).support;
    let acked = rig.record.transfers().filter_map(|told| told.acked);
    let kernel = acked.filter(|acked| acked.evidence == Evidence::Kernel).count();
    let looks =
        subject.lacks(Facility::TcpInfo).is_none() || subject.lacks(Facility::OutQueue).is_none();
    // Stamps alone could be lost without a trace, so without looks nothing may
    // rest on them.
    let lacks = match subject.lacks(Facility::Timestamps) {
        None if !looks => subject.lacks(Facility::TcpInfo),
        lacks => lacks,
    };
    close_and_compare(&mut rig, connection, peer)?;
    match lacks {
        None => {
            ensure!(support.acked == StageEvidence::Kernel, "announced {support:?}");
            ensure!(kernel * 2 > TRANSFERS, "{kernel} of {TRANSFERS} by kernel stamp");
            Ok(Proof::noting(format!("{kernel} of {TRANSFERS} by kernel stamp")))
        }
        Some(lack) => {
            let expected =
                if looks { StageEvidence::Bracketed } else { StageEvidence::Unavailable };
            ensure!(support.acked == expected, "announced {support:?}, not {expected:?}");
            Ok(Proof::substitute(lack, format!("{TRANSFERS} Acked by {expected:?} evidence")))
        }
    }
}
