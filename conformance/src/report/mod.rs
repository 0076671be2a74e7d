//! Results of several kernels, arranged: kernel by backend by contract, and
//! kernel by facility. `markdown` and `html` only write down what is here.

pub(crate) mod html;
pub(crate) mod markdown;
pub(crate) mod together;

use crate::results::{CapabilityResult, CaseResult, Found, KernelResult, Outcome, Unavailable};
use std::collections::BTreeMap;

/// The contract's numbers, as cases begin with them, and their names.
pub(crate) const CONTRACT: [(&str, &str); 15] = [
    ("C01", "exactly once"),
    ("C02", "order"),
    ("C03", "truth"),
    ("C04", "nothing lost"),
    ("C05", "memory"),
    ("C06", "time"),
    ("C07", "refusal returns ownership"),
    ("C08", "degradation is explicit"),
    ("C09", "never slower for nothing"),
    ("C10", "no plaintext leak"),
    ("C11", "TLS is complete"),
    ("C12", "graceful close"),
    ("C13", "all together"),
    ("C14", "hostile peers"),
    ("C15", "any runtime"),
];

/// Kernels with their results.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) kernels: Vec<KernelResult>,
    /// A line on each run that the results are from.
    pub(crate) origins: Vec<String>,
}

/// What one part of the contract came to, on one kernel and backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell<'t> {
    pub(crate) works: usize,
    pub(crate) substitutes: Vec<&'t CaseResult>,
    pub(crate) failed: Vec<&'t CaseResult>,
}

/// Something that is lacking somewhere, and what was verified in its place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Substitute<'t> {
    pub(crate) case: &'t str,
    pub(crate) backend: &'t str,
    pub(crate) lacks: &'t str,
    pub(crate) errno: Option<i32>,
    pub(crate) verified: &'t str,
}

impl Tables {
    /// Adds what a file holds; kernels that are there already are replaced.
    pub(crate) fn add(&mut self, found: Found) {
        if let Found::Kernels(all) = &found {
            let binary = all.binary.get(..16).unwrap_or(&all.binary);
            self.origins.push(format!(
                "{}, commit {}, one static binary with SHA-256 {binary}…, {}",
                all.date, all.commit, all.qemu
            ));
        }
        if let Found::Run(run) = &found {
            self.origins.push(format!("{}, commit {}, on {}", run.date, run.commit, run.kernel));
        }
        for kernel in found.kernels() {
            self.kernels.retain(|known| known.name != kernel.name);
            self.kernels.push(kernel);
        }
    }

    /// Every backend that a case was run on, with its transport, or that could
    /// not be had anywhere.
    pub(crate) fn backends(&self) -> Vec<&str> {
        let mut backends = Vec::new();
        let runs = || self.kernels.iter().filter_map(|kernel| kernel.run.as_ref());
        let is_tried = |lacking: &Unavailable| {
            runs().flat_map(|run| &run.backends).any(|tried| lacking.is_about(&tried.backend))
        };
        for run in runs() {
            let known = run.backends.iter().map(|backend| &*backend.backend);
            let never = run.unavailable.iter().filter(|lacking| !is_tried(lacking));
            for name in known.chain(never.map(|lacking| &*lacking.backend)) {
                if !backends.contains(&name) {
                    backends.push(name);
                }
            }
        }
        backends
    }

    /// Every facility that a kernel was asked about.
    pub(crate) fn facilities(&self) -> Vec<&str> {
        let mut facilities = Vec::new();
        let runs = self.kernels.iter().filter_map(|kernel| kernel.run.as_ref());
        for capability in runs.flat_map(|run| &run.capabilities) {
            if !facilities.contains(&&*capability.facility) {
                facilities.push(&*capability.facility);
            }
        }
        facilities
    }

    /// Every case, in the order of the suite.
    pub(crate) fn cases(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for case in self.kernels.iter().flat_map(all_cases) {
            if !names.contains(&&*case.name) {
                names.push(&*case.name);
            }
        }
        names
    }

    /// Everything lacking, once, with the kernels it is lacking on.
    pub(crate) fn substitutes(&self) -> BTreeMap<Substitute<'_>, Vec<&str>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for kernel in &self.kernels {
            for backend in kernel.run.iter().flat_map(|run| &run.backends) {
                for case in backend.cases.iter().filter(|c| c.result == Outcome::NotApplicable) {
                    let substitute = Substitute {
                        case: &case.name,
                        backend: &backend.backend,
                        lacks: case.lack.as_ref().map_or("", |lack| &*lack.what),
                        errno: case.lack.as_ref().and_then(|lack| lack.errno),
                        verified: case.detail.as_deref().unwrap_or_default(),
                    };
                    all.entry(substitute).or_default().push(&*kernel.name);
                }
            }
        }
        all
    }
}

fn all_cases(kernel: &KernelResult) -> impl Iterator<Item = &CaseResult> {
    kernel.run.iter().flat_map(|run| &run.backends).flat_map(|backend| &backend.cases)
}

/// The cases of `backend` on `kernel`; the error says why there are none.
pub(crate) fn on<'t>(kernel: &'t KernelResult, backend: &str) -> Result<&'t [CaseResult], &'t str> {
    let broke = || kernel.broke.as_deref().unwrap_or("not run");
    let run = kernel.run.as_ref().ok_or_else(broke)?;
    if let Some(found) = run.backends.iter().find(|found| found.backend == backend) {
        return Ok(&found.cases);
    }
    Err(run.why_unavailable(backend).unwrap_or_else(broke))
}

/// What the part of the contract that begins with `number` came to.
pub(crate) fn cell<'t>(cases: &'t [CaseResult], number: &str) -> Cell<'t> {
    let mut cell = Cell::default();
    for case in cases.iter().filter(|case| case.name.starts_with(number)) {
        match case.result {
            Outcome::Pass => cell.works += 1,
            Outcome::NotApplicable => cell.substitutes.push(case),
            Outcome::Fail => cell.failed.push(case),
        }
    }
    cell
}

impl Cell<'_> {
    /// In a few words.
    pub(crate) fn words(&self) -> String {
        let all = self.works + self.substitutes.len() + self.failed.len();
        match (all, self.failed.len(), self.substitutes.len()) {
            (0, ..) => "–".to_owned(),
            (_, 0, 0) => format!("works ({all})"),
            (_, 0, substitutes) if substitutes == all => format!("substitute ({all})"),
            (_, 0, substitutes) => format!("works ({}), substitute ({substitutes})", self.works),
            (_, failed, _) => format!("FAILS ({failed} of {all})"),
        }
    }
}

/// What `kernel` has of `facility`.
pub(crate) fn capability<'t>(
    kernel: &'t KernelResult,
    facility: &str,
) -> Option<&'t CapabilityResult> {
    kernel.run.as_ref()?.capabilities.iter().find(|found| found.facility == facility)
}

/// The symbol of an error number that a kernel may answer to a probe.
pub(crate) fn symbol(errno: i32) -> String {
    let symbol = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENOSYS => "ENOSYS",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENOTCONN => "ENOTCONN",
        other => return format!("errno {other}"),
    };
    symbol.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results;

    #[test]
    fn what_fails_and_what_stands_in_is_in_both_forms() {
        let mut tables = Tables::default();
        tables.add(Found::Run(results::sample()));
        let (markdown, html) = (markdown::write(&tables), html::write(&tables));
        assert!(markdown.contains("FAILS (1 of 1)") && markdown.contains("substitute (1)"));
        assert!(markdown.contains("EOPNOTSUPP") && markdown.contains("copied"), "{markdown}");
        assert!(html.contains("FAILS (1 of 1)") && html.contains("&lt;trying it&gt;"), "{html}");
        assert!(!html.contains("<trying it>"));
        let broken = KernelResult {
            name: "9.9".into(),
            run: None,
            broke: Some("the kernel | went down".into()),
            ..tables.kernels[0].clone()
        };
        tables.kernels.push(broken);
        let (markdown, html) = (markdown::write(&tables), html::write(&tables));
        assert!(markdown.contains(r"the kernel \| went down") && html.contains("went down"));
    }
}
