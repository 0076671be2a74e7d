//! What runs found, as data: `run` writes it, `kernels run` gathers it, `report`
//! and `diff` read it. Every form of output is made from here.

mod case;
mod kernels;
mod read;

#[cfg(test)]
pub(crate) use case::LackResult;
pub(crate) use case::{CaseResult, Outcome};
pub(crate) use kernels::{KernelResult, KernelsRun, PackageResult};
pub(crate) use read::{Found, read};

use lastbyte::{Report, Support};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Which commit this program was built from.
pub const COMMIT: &str = env!("LASTBYTE_COMMIT");

/// One run of the suite, on one kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) kernel: String,
    pub(crate) machine: String,
    /// When it began, as in RFC 3339.
    pub(crate) date: String,
    /// What the runner was built from.
    pub(crate) commit: String,
    pub(crate) restrictions: Vec<String>,
    pub(crate) capabilities: Vec<CapabilityResult>,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) not_applicable: usize,
    pub(crate) backends: Vec<BackendResult>,
    pub(crate) unavailable: Vec<Unavailable>,
}

/// A backend, and what came of each case.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct BackendResult {
    pub(crate) backend: String,
    pub(crate) cases: Vec<CaseResult>,
}

/// A backend that could not be had there.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Unavailable {
    pub(crate) backend: String,
    pub(crate) why: String,
}

impl Unavailable {
    /// Whether results that are named so would be this backend's, over whatever
    /// transport: one that cannot be had is said once for all of them.
    pub(crate) fn is_about(&self, label: &str) -> bool {
        let rest = label.strip_prefix(&*self.backend);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A facility, and what the kernel said to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct CapabilityResult {
    pub(crate) facility: String,
    /// `have`, `lacks` or `disabled`.
    pub(crate) support: String,
    pub(crate) errno: Option<i32>,
    pub(crate) tried: Option<String>,
    pub(crate) effect: Option<String>,
}

impl Run {
    /// A run that begins now.
    pub(crate) fn new(restrictions: &[String], report: &Report) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            kernel: report.kernel().to_owned(),
            machine: format!("{}, {cpus} CPUs", std::env::consts::ARCH),
            date: now(),
            commit: COMMIT.to_owned(),
            restrictions: restrictions.to_vec(),
            capabilities: capabilities(report),
            passed: 0,
            failed: 0,
            not_applicable: 0,
            backends: Vec::new(),
            unavailable: Vec::new(),
        }
    }

    /// Adds what came of all cases on one backend.
    pub(crate) fn add(&mut self, backend: BackendResult) {
        for case in &backend.cases {
            match case.result {
                Outcome::Fail => self.failed += 1,
                Outcome::Pass => self.passed += 1,
                // What stands in was verified, so that it counts as passed, too.
                Outcome::NotApplicable => {
                    self.passed += 1;
                    self.not_applicable += 1;
                }
            }
        }
        self.backends.push(backend);
    }

    /// Why there are no results that are named so; `None` if that is not because
    /// the backend could not be had.
    pub(crate) fn why_unavailable(&self, label: &str) -> Option<&str> {
        let found = self.unavailable.iter().find(|unavailable| unavailable.is_about(label));
        found.map(|unavailable| &*unavailable.why)
    }

    /// The release alone, as `uname -r` has it.
    pub(crate) fn release(&self) -> &str {
        self.kernel.split_once(' ').map_or(&self.kernel, |(_, release)| release)
    }
}

/// Each facility of `report`.
pub(crate) fn capabilities(report: &Report) -> Vec<CapabilityResult> {
    let found = report.capabilities().iter().map(|capability| {
        let (support, errno, tried) = match &capability.support {
            Support::Have => ("have", None, None),
            Support::Lack { errno, what } => ("lacks", *errno, Some((*what).to_owned())),
            _ => ("disabled", None, None),
        };
        let effect = capability.facility.effect_of_lack();
        CapabilityResult {
            facility: capability.facility.name().to_owned(),
            support: support.to_owned(),
            errno,
            tried,
            effect: (support != "have").then(|| effect.to_owned()),
        }
    });
    found.collect()
}

/// The date, as in RFC 3339.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The usual name of an error number with its text, for people.
pub(crate) fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
pub(crate) fn sample() -> Run {
    use lastbyte::Restrictions;
    let case = |name: &str, result, detail: Option<&str>| CaseResult {
        name: name.into(),
        seconds: 1.5,
        result,
        detail: detail.map(Into::into),
        lack: None,
    };
    let lack = LackResult { what: "zerocopy: <trying it>".into(), errno: Some(95) };
    let mut run =
        Run::new(&["no-zerocopy".into()], &lastbyte_backends::report(&Restrictions::none()));
    run.add(BackendResult {
        backend: "epoll".into(),
        cases: vec![
            case("C01-a", Outcome::Pass, None),
            CaseResult {
                lack: Some(lack),
                ..case("C02-b", Outcome::NotApplicable, Some("copied"))
            },
            case("C03-c", Outcome::Fail, Some("1 < 2 & \"3\" \u{1b}[0m")),
        ],
    });
    run
}
