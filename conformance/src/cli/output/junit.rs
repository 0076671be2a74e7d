//! For build servers: JUnit's XML.

use crate::results::{CaseResult, KernelsRun, Outcome, Run};
use std::fmt::Write;

/// A test suite for each backend.
pub(crate) fn as_junit(run: &Run) -> String {
    let mut xml = String::from(HEAD);
    suites(&mut xml, run, "");
    xml.push_str(FOOT);
    xml
}

/// A test suite for each backend on each kernel; what broke a kernel is one
/// more, failed test.
pub(crate) fn kernels_as_junit(kernels: &KernelsRun) -> String {
    let mut xml = String::from(HEAD);
    for kernel in &kernels.kernels {
        if let Some(run) = &kernel.run {
            suites(&mut xml, run, &format!("{}/", kernel.name));
        }
        if let Some(broke) = &kernel.broke {
            let all = format!("{broke}\n{}", kernel.last_lines.join("\n"));
            push(
                &mut xml,
                format_args!(
                    "  <testsuite name=\"{0}\" tests=\"1\" failures=\"1\" errors=\"0\">\n    <testcase classname=\"{0}\" name=\"kernel\"><failure message=\"{1}\">{2}</failure></testcase>\n  </testsuite>\n",
                    escape(&kernel.name),
                    escape(broke),
                    escape(&all),
                ),
            );
        }
    }
    xml.push_str(FOOT);
    xml
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n";
const FOOT: &str = "</testsuites>";

/// `place` goes in front of each suite's name.
fn suites(xml: &mut String, run: &Run, place: &str) {
    for backend in &run.backends {
        let failures = backend.cases.iter().filter(|c| c.result == Outcome::Fail).count();
        let seconds: f64 = backend.cases.iter().map(|case| case.seconds).sum();
        let name = format!("{place}{}", backend.backend);
        push(
            xml,
            format_args!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.3}\">\n",
                escape(&name),
                backend.cases.len(),
            ),
        );
        push(
            xml,
            format_args!(
                "    <properties>\n      <property name=\"kernel\" value=\"{}\"/>\n      <property name=\"machine\" value=\"{}\"/>\n      <property name=\"restrictions\" value=\"{}\"/>\n    </properties>\n",
                escape(&run.kernel),
                escape(&run.machine),
                escape(&run.restrictions.join(",")),
            ),
        );
        for result in &backend.cases {
            case(xml, &name, result);
        }
        xml.push_str("  </testsuite>\n");
    }
    for unavailable in &run.unavailable {
        push(
            xml,
            format_args!(
                "  <testsuite name=\"{}{}\" tests=\"0\" failures=\"0\" errors=\"0\">\n    <system-out>not run: {}</system-out>\n  </testsuite>\n",
                escape(place),
                escape(&unavailable.backend),
                escape(&unavailable.why),
            ),
        );
    }
}

fn case(xml: &mut String, suite: &str, case: &CaseResult) {
    push(
        xml,
        format_args!(
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escape(suite),
            escape(&case.name),
            case.seconds,
        ),
    );
    let verdict = escape(&case.to_string());
    match (case.result, &case.detail) {
        (Outcome::Fail, message) => {
            let message = escape(message.as_deref().unwrap_or_default());
            push(xml, format_args!("<failure message=\"{message}\">{verdict}</failure>"));
        }
        (Outcome::Pass, None) => {}
        _ => push(xml, format_args!("<system-out>{verdict}</system-out>")),
    }
    xml.push_str("</testcase>\n");
}

fn push(xml: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _: std::fmt::Result = xml.write_fmt(text);
}

/// Markup as text; what XML 1.0 cannot hold at all becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_in_messages_is_escaped() {
        let xml = super::as_junit(&crate::results::sample());
        assert!(xml.contains("1 &lt; 2 &amp; &quot;3&quot; \u{fffd}[0m"), "{xml}");
        assert!(xml.contains("&lt;trying it&gt;"), "{xml}");
        assert!(!xml.contains('\u{1b}'));
        assert_eq!(xml.matches("<testcase").count(), xml.matches("</testcase>").count());
    }
}
