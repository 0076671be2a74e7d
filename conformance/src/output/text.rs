//! For people: a line a case.

use super::{Report, Unavailable};
use lastbyte::BackendKind;
use lastbyte_conformance::{Case, Outcome};

/// The line of one case.
pub(crate) fn line(backend: BackendKind, case: &Case, outcome: &Outcome) -> String {
    let seconds = outcome.took.as_secs_f64();
    format!("{backend:<8} {:<55} {seconds:>6.2} s  {}", case.name(), outcome.verdict)
}

/// The line of a backend that could not be run.
pub(crate) fn unavailable_line(unavailable: &Unavailable) -> String {
    format!("{:<8} not run: {}", unavailable.backend, unavailable.why)
}

/// The last line.
pub(crate) fn summary(report: &Report) -> String {
    format!(
        "{}; {} n/a with substitute verified, counted as passed\n{} passed, {} failed",
        report.kernel,
        report.not_applicable(),
        report.passed(),
        report.failed()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_summary_counts() {
        let text = super::summary(&super::super::sample());
        assert!(text.ends_with("\n2 passed, 1 failed") && text.contains("1 n/a"), "{text}");
    }
}
