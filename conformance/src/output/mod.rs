//! The result of a run, and the forms it can be told in.

mod json;
mod junit;
mod text;

pub(crate) use json::{as_json, probe_as_json};
pub(crate) use junit::as_junit;
pub(crate) use text::{line, summary, unavailable_line};

use lastbyte::{BackendKind, Restrictions};
use lastbyte_conformance::{Outcome, Verdict};

/// Everything that was run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) restrictions: Vec<String>,
    pub(crate) proved: Vec<Proved>,
    pub(crate) unavailable: Vec<Unavailable>,
}

/// A backend, and what came of each case.
#[derive(Debug)]
pub(crate) struct Proved {
    pub(crate) backend: BackendKind,
    pub(crate) cases: Vec<(String, Outcome)>,
}

/// A backend that cannot be had here.
#[derive(Debug)]
pub(crate) struct Unavailable {
    pub(crate) backend: String,
    pub(crate) why: String,
}

impl Report {
    pub(crate) fn new(restrictions: &[String]) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            machine: format!("{}, {cpus} CPUs", std::env::consts::ARCH),
            kernel: lastbyte_backends::report(&Restrictions::none()).kernel().to_owned(),
            restrictions: restrictions.to_vec(),
            proved: Vec::new(),
            unavailable: Vec::new(),
        }
    }

    pub(crate) fn failed(&self) -> usize {
        self.count(Verdict::is_failure)
    }

    pub(crate) fn not_applicable(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::NotApplicable { .. }))
    }

    /// Also those whose substitute was verified.
    pub(crate) fn passed(&self) -> usize {
        self.count(|verdict| !verdict.is_failure())
    }

    fn count(&self, which: impl Fn(&Verdict) -> bool) -> usize {
        let all = self.proved.iter().flat_map(|proved| &proved.cases);
        all.filter(|(_, outcome)| which(&outcome.verdict)).count()
    }
}

#[cfg(test)]
pub(crate) fn sample() -> Report {
    use lastbyte_conformance::Lack;
    use std::time::Duration;
    let outcome = |verdict| Outcome { verdict, took: Duration::from_millis(1500) };
    let lack = Lack { what: "zerocopy: <trying it>".into(), errno: Some(95) };
    let mut report = Report::new(&["no-zerocopy".into()]);
    report.proved.push(Proved {
        backend: BackendKind::Epoll,
        cases: vec![
            ("C01-a".into(), outcome(Verdict::Pass { note: None })),
            ("C02-b".into(), outcome(Verdict::NotApplicable { lack, substitute: "copied".into() })),
            ("C03-c".into(), outcome(Verdict::Fail("1 < 2 & \"3\" \u{1b}[0m".into()))),
        ],
    });
    report
}
