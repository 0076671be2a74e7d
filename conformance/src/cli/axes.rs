//! `axes`: the cases once under each restriction that a container, an operator
//! or a small machine may impose. The contract has to hold under all of them,
//! and the capability report has to say what was taken away, with its errno.

use super::child::{Guardian, ended_by};
use super::output::{self, Format, Place, Trouble, as_json, tell};
use crate::results::{self, CapabilityResult, Outcome, Run, errno_text};
use lastbyte::{Facility, Restrictions};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::process::{ExitCode, Stdio};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only restrictions whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    axis: String,
    /// What is spoken, as in `run`; by default TLS too where an axis touches it.
    #[arg(long, value_name = "NAME")]
    transport: Option<String>,
    /// Mebibytes to send where much is to be sent.
    #[arg(long, default_value_t = 16, value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    bulk: u64,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    filter: String,
    /// How to tell the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Seconds after which a case counts as hanging.
    #[arg(long, default_value_t = 60, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Cases at the same time.
    #[arg(long, value_name = "N", default_value = "8")]
    jobs: NonZeroUsize,
}

/// A restriction, and what the report has to say to it.
struct Axis {
    /// As for `run --restrict`.
    restrict: &'static str,
    /// Facilities that are lacking then, and why.
    lacks: &'static [(Facility, i32)],
    /// Facilities that may be lacking then, as this kernel accounts for memory.
    may_lack: &'static [&'static [Facility]],
    /// Whether it changes a setting of the whole machine for a while.
    of_the_machine: bool,
    /// Whether it touches what TLS needs beyond what plain connections do.
    touches_tls: bool,
}

const fn axis(restrict: &'static str, lacks: &'static [(Facility, i32)]) -> Axis {
    Axis { restrict, lacks, may_lack: &[], of_the_machine: false, touches_tls: false }
}

/// All that a ring gives.
const RING: [Facility; 9] = [
    Facility::IoUring,
    Facility::UringTaskrun,
    Facility::UringAccept,
    Facility::UringReceive,
    Facility::UringSend,
    Facility::UringVectored,
    Facility::UringZeroCopy,
    Facility::UringTimestamps,
    Facility::UringFixedBuffers,
];

const fn no_ring(errno: i32) -> [(Facility, i32); RING.len()] {
    let mut lacks = [(Facility::IoUring, errno); RING.len()];
    let mut n = 0;
    while n < RING.len() {
        lacks[n].0 = RING[n];
        n += 1;
    }
    lacks
}

const fn no_stamps(errno: i32) -> [(Facility, i32); 3] {
    [
        (Facility::Timestamps, errno),
        (Facility::TimestampIdTcp, errno),
        (Facility::UringTimestamps, errno),
    ]
}

const fn no_kernel_tls(errno: i32) -> [(Facility, i32); 8] {
    [
        (Facility::KernelTls, errno),
        (Facility::TlsTransmit, errno),
        (Facility::TlsReceive, errno),
        (Facility::TlsRekey, errno),
        (Facility::TlsAes256, errno),
        (Facility::TlsChaCha20, errno),
        (Facility::TlsEndOfRecord, errno),
        (Facility::TlsZeroCopyFiles, errno),
    ]
}

const AXES: [Axis; 15] = [
    axis("seccomp-no-io-uring", &no_ring(libc::EPERM)),
    axis("seccomp-no-io-uring-enosys", &no_ring(libc::ENOSYS)),
    axis("seccomp-no-epoll", &[(Facility::Epoll, libc::EPERM)]),
    axis("seccomp-no-epoll-enosys", &[(Facility::Epoll, libc::ENOSYS)]),
    axis("seccomp-no-timestamping", &no_stamps(libc::EPERM)),
    axis("seccomp-no-timestamping-enosys", &no_stamps(libc::ENOSYS)),
    axis("seccomp-no-zerocopy", &[(Facility::ZeroCopy, libc::EPERM)]),
    axis("seccomp-no-zerocopy-enosys", &[(Facility::ZeroCopy, libc::ENOSYS)]),
    axis("seccomp-no-tcp-info", &[(Facility::TcpInfo, libc::EPERM)]),
    Axis { touches_tls: true, ..axis("seccomp-no-kernel-tls", &no_kernel_tls(libc::EPERM)) },
    // For those who may not administer the machine: EPERM, to others nothing.
    Axis { of_the_machine: true, may_lack: &[&RING], ..axis("io-uring-disabled=1", &[]) },
    Axis { of_the_machine: true, ..axis("io-uring-disabled=2", &no_ring(libc::EPERM)) },
    Axis {
        of_the_machine: true,
        may_lack: &[&[Facility::ZeroCopy]],
        ..axis("optmem-max=4096", &[])
    },
    // Rings are charged to it before 5.12 and again on some later kernels.
    Axis {
        may_lack: &[&RING, &[Facility::ZeroCopy]],
        touches_tls: true,
        ..axis("memlock=65536", &[])
    },
    Axis { touches_tls: true, ..axis("rcvbuf=4096", &[]) },
];

/// What came of one restriction.
#[derive(Debug, Serialize)]
struct AxisResult {
    axis: &'static str,
    /// Why it could not be imposed here.
    not_imposed: Option<String>,
    /// What the capability report says and should not, or does not and should.
    wrong: Vec<String>,
    run: Option<Run>,
}

impl AxisResult {
    fn is_well(&self) -> bool {
        self.wrong.is_empty() && self.run.as_ref().is_none_or(|run| run.failed == 0)
    }

    fn place(&self) -> Place<'_> {
        let trouble = match (&self.not_imposed, self.wrong.first()) {
            (Some(why), _) => Trouble::NotTried(why),
            (None, Some(wrong)) => Trouble::Failed(wrong, &self.wrong),
            (None, None) => Trouble::None,
        };
        Place { name: self.axis, run: self.run.as_ref(), test: "axis", trouble }
    }
}

pub(super) fn run(options: &Options) -> Result<ExitCode, String> {
    let axes: Vec<_> = AXES.iter().filter(|axis| axis.restrict.contains(&options.axis)).collect();
    if axes.is_empty() {
        let known: Vec<_> = AXES.iter().map(|axis| axis.restrict).collect();
        return Err(format!("no axis contains '{}'; there are {}", options.axis, known.join(", ")));
    }
    for axis in &axes {
        super::run::called(&options.filter, spoken(axis, options))?;
    }
    let usual = results::capabilities(&lastbyte_backends::report(&Restrictions::none()));
    let mut guardian = Guardian::new()?;
    let mut all = Vec::new();
    for axis in axes {
        let result = match on(axis, options, &usual, &mut guardian)? {
            Ok(result) => result,
            Err(signal) => return Ok(ended_by(signal)),
        };
        match options.format {
            Format::Text => tell(&lines(axis, &result)),
            Format::JsonLines => tell(&as_json(&result)),
            Format::Json | Format::Junit => {}
        }
        all.push(result);
    }
    let failed = all.iter().filter(|result| !result.is_well()).count();
    match options.format {
        Format::Text => {
            let skipped = all.iter().filter(|result| result.not_imposed.is_some()).count();
            let held = all.len() - failed - skipped;
            tell(&format!("{held} axes hold the contract, {failed} do not, {skipped} not imposed"));
        }
        Format::Json => tell(&as_json(&all)),
        Format::JsonLines => {}
        Format::Junit => tell(&output::places_as_junit(all.iter().map(AxisResult::place))),
    }
    if all.iter().all(|result| result.not_imposed.is_some()) {
        return Err("none of these axes can be imposed here".to_owned());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spoken<'a>(axis: &Axis, options: &'a Options) -> &'a str {
    let usual = if axis.touches_tls { "all" } else { "plain" };
    options.transport.as_deref().unwrap_or(usual)
}

/// What came of an axis; or the signal that ended it.
fn on(
    axis: &Axis,
    options: &Options,
    usual: &[CapabilityResult],
    guardian: &mut Guardian,
) -> Result<Result<AxisResult, i32>, String> {
    let output = guardian.start_again(|command| {
        command
            .args(["run", "--format", "json", "--restrict", axis.restrict])
            .args(["--transport", spoken(axis, options), "--bulk", &options.bulk.to_string()])
            .args(["--filter", &options.filter, "--timeout", &options.timeout.to_string()])
            .args(["--jobs", &options.jobs.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    })?;
    if let Some(signal) = output.asked {
        return Ok(Err(signal));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim().trim_start_matches("conformance: ").to_owned();
    let mut result =
        AxisResult { axis: axis.restrict, not_imposed: None, wrong: Vec::new(), run: None };
    match serde_json::from_slice::<Run>(&output.stdout) {
        Ok(run) => {
            result.wrong = differences(axis, usual, &run.capabilities);
            result.run = Some(run);
        }
        Err(_) if axis.of_the_machine && output.status.code() == Some(2) => {
            result.not_imposed = Some(complaint);
        }
        Err(_) => result.wrong.push(format!("no result ({}): {complaint}", output.status)),
    }
    Ok(Ok(result))
}

/// Where the report is not what it has to be: the usual one, but for what the
/// axis takes away.
fn differences(axis: &Axis, usual: &[CapabilityResult], found: &[CapabilityResult]) -> Vec<String> {
    let mut wrong = Vec::new();
    for usual in usual {
        let facility = &usual.facility;
        let Some(found) = found.iter().find(|found| found.facility == *facility) else {
            wrong.push(format!("{facility} is not reported"));
            continue;
        };
        let taken = axis.lacks.iter().find(|(taken, _)| taken.name() == facility);
        // What comes to grief earlier never gets as far as what the axis refuses.
        let lacks_anyway = usual.support == "lacks"
            && (&found.support, found.errno) == (&usual.support, usual.errno);
        let may_lack = axis.may_lack.iter().copied().flatten().any(|may| may.name() == facility);
        match taken {
            Some((_, errno))
                if (&*found.support, found.errno) != ("lacks", Some(*errno)) && !lacks_anyway =>
            {
                let errno = errno_text(*errno);
                wrong.push(format!(
                    "{facility} is said to be '{}', not lacking: {errno}",
                    said(found)
                ));
            }
            None if found.support != usual.support && !may_lack => {
                wrong.push(format!(
                    "{facility} is '{}', and usually '{}'",
                    said(found),
                    said(usual)
                ));
            }
            _ => {}
        }
    }
    wrong
}

fn said(capability: &CapabilityResult) -> String {
    let CapabilityResult { support, errno, .. } = capability;
    errno.map_or_else(|| support.clone(), |errno| format!("{support}: {}", errno_text(errno)))
}

fn lines(axis: &Axis, result: &AxisResult) -> String {
    let mut text = format!("{:<31} ", axis.restrict);
    if let Some(why) = &result.not_imposed {
        return text + &format!("not imposed: {why}");
    }
    let Some(run) = &result.run else {
        return text + &result.wrong.join("; ");
    };
    text += &format!("{} passed, {} failed, {} n/a", run.passed, run.failed, run.not_applicable);
    let lacking = run.capabilities.iter().filter(|capability| capability.support == "lacks");
    let lacking: Vec<_> = lacking
        .map(|c| match c.errno {
            Some(errno) => format!("{} ({})", c.facility, errno_text(errno)),
            None => c.facility.clone(),
        })
        .collect();
    text += &format!(
        "; lacks {}",
        if lacking.is_empty() { "nothing".into() } else { lacking.join(", ") }
    );
    for unavailable in &run.unavailable {
        text += &format!("; {} not run", unavailable.backend);
    }
    for wrong in &result.wrong {
        text += &format!("\n    WRONG: {wrong}");
    }
    for backend in &run.backends {
        for case in backend.cases.iter().filter(|case| case.result == Outcome::Fail) {
            text += &format!("\n    {} {} {case}", backend.backend, case.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::restrict::RestrictionList;
    use super::*;

    fn capability(facility: Facility, support: &str, errno: Option<i32>) -> CapabilityResult {
        CapabilityResult {
            facility: facility.name().into(),
            support: support.into(),
            errno,
            tried: None,
            effect: None,
        }
    }

    #[test]
    fn each_axis_is_a_restriction() {
        for axis in AXES {
            let list: RestrictionList = axis.restrict.parse().unwrap();
            assert_eq!(axis.of_the_machine, !list.machine.is_empty(), "{}", axis.restrict);
        }
    }

    #[test]
    fn a_report_that_says_too_little_or_too_much_is_wrong() {
        let axis = axis("seccomp-no-epoll", &[(Facility::Epoll, libc::EPERM)]);
        let usual = [
            capability(Facility::Epoll, "have", None),
            capability(Facility::IoUring, "have", None),
        ];
        let right = [capability(Facility::Epoll, "lacks", Some(libc::EPERM)), usual[1].clone()];
        assert!(differences(&axis, &usual, &right).is_empty());
        assert_eq!(differences(&axis, &usual, &usual).len(), 1);
        let too_much =
            [right[0].clone(), capability(Facility::IoUring, "lacks", Some(libc::EPERM))];
        assert_eq!(differences(&axis, &usual, &too_much).len(), 1);
        assert_eq!(differences(&axis, &usual, &[]).len(), 2);
    }

    #[test]
    fn what_was_lacking_before_may_be_lacking_as_before() {
        const TAKEN: [(Facility, i32); 3] = no_stamps(libc::EPERM);
        let axis = axis("seccomp-no-timestamping", &TAKEN);
        let ring = |errno| capability(Facility::UringTimestamps, "lacks", Some(errno));
        let taken = |facility| capability(facility, "lacks", Some(libc::EPERM));
        let have = |facility| capability(facility, "have", None);
        let usual = |ring| [have(Facility::Timestamps), have(Facility::TimestampIdTcp), ring];
        let found = |ring| [taken(Facility::Timestamps), taken(Facility::TimestampIdTcp), ring];
        let differs = |usual: &[_], found: &[_]| differences(&axis, usual, found).len();
        // A ring that is refused altogether, and one that knows no such operation.
        for errno in [libc::ENOSYS, libc::EINVAL] {
            assert_eq!(differs(&usual(ring(errno)), &found(ring(errno))), 0);
        }
        assert_eq!(differs(&usual(ring(libc::EINVAL)), &found(ring(libc::EPERM))), 0);
        assert_eq!(differs(&usual(ring(libc::EINVAL)), &found(ring(libc::ENOSYS))), 1);
        let had = usual(have(Facility::UringTimestamps));
        assert_eq!(differs(&had, &found(ring(libc::EINVAL))), 1, "another reason than the axis");
        let given = [found(ring(0))[0].clone(), have(Facility::TimestampIdTcp), ring(0)];
        assert_eq!(differs(&usual(ring(0)), &given), 1, "taken, and had all the same");
    }
}
