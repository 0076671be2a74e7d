//! For people: a line a case.

use crate::results::{CaseResult, KernelResult, KernelsRun, Outcome, Run, Unavailable};

/// The line of one case.
pub(crate) fn line(backend: &str, case: &CaseResult) -> String {
    format!("{backend:<19} {:<55} {:>6.2} s  {case}", case.name, case.seconds)
}

/// The line of a backend that could not be run.
pub(crate) fn unavailable_line(unavailable: &Unavailable) -> String {
    format!("{:<19} not run: {}", unavailable.backend, unavailable.why)
}

/// The last line.
pub(crate) fn summary(run: &Run) -> String {
    format!(
        "{}; {} n/a with substitute verified, counted as passed\n{} passed, {} failed",
        run.kernel, run.not_applicable, run.passed, run.failed
    )
}

/// The line of one kernel.
fn kernel_line(kernel: &KernelResult) -> String {
    let KernelResult { name, release, seconds, .. } = kernel;
    let mut line = format!("{name:<7} {release:<28} {seconds:>6.1} s  ");
    if let Some(run) = &kernel.run {
        line += &format!(
            "{} passed, {} failed, {} n/a with substitute verified",
            run.passed, run.failed, run.not_applicable
        );
    }
    if let Some(broke) = &kernel.broke {
        line += &format!("{}BROKE: {broke}", if kernel.run.is_some() { "; " } else { "" });
    }
    if !kernel.missing_modules.is_empty() {
        line += &format!("; lacks modules {}", kernel.missing_modules.join(", "));
    }
    line
}

/// What came of all kernels: what failed, a line a kernel, and the sum.
pub(crate) fn kernels_summary(all: &KernelsRun) -> String {
    let mut lines = Vec::new();
    for kernel in &all.kernels {
        for backend in kernel.run.iter().flat_map(|run| &run.backends) {
            let failed = backend.cases.iter().filter(|c| c.result == Outcome::Fail);
            lines.extend(
                failed.map(|case| format!("{:<7} {}", kernel.name, line(&backend.backend, case))),
            );
        }
    }
    lines.extend(all.kernels.iter().map(kernel_line));
    let well = all.kernels.iter().filter(|kernel| kernel.is_well()).count();
    lines.push(format!("{well} of {} kernels hold the contract", all.kernels.len()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_summary_counts() {
        let text = super::summary(&crate::results::sample());
        assert!(text.ends_with("\n2 passed, 1 failed") && text.contains("1 n/a"), "{text}");
    }
}
