//! For build servers: JUnit's XML.

use super::Report;
use lastbyte_conformance::{Outcome, Verdict};
use std::fmt::Write;

/// A test suite for each backend.
pub(crate) fn as_junit(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for proved in &report.proved {
        let failures = proved.cases.iter().filter(|(_, o)| o.verdict.is_failure()).count();
        let seconds: f64 = proved.cases.iter().map(|(_, o)| o.took.as_secs_f64()).sum();
        push(
            &mut xml,
            format_args!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.3}\">\n",
                escape(proved.backend.name()),
                proved.cases.len(),
            ),
        );
        push(
            &mut xml,
            format_args!(
                "    <properties>\n      <property name=\"kernel\" value=\"{}\"/>\n      <property name=\"machine\" value=\"{}\"/>\n      <property name=\"restrictions\" value=\"{}\"/>\n    </properties>\n",
                escape(&report.kernel),
                escape(&report.machine),
                escape(&report.restrictions.join(",")),
            ),
        );
        for (name, outcome) in &proved.cases {
            case(&mut xml, proved.backend.name(), name, outcome);
        }
        xml.push_str("  </testsuite>\n");
    }
    for unavailable in &report.unavailable {
        push(
            &mut xml,
            format_args!(
                "  <testsuite name=\"{}\" tests=\"0\" failures=\"0\" errors=\"0\">\n    <system-out>not run: {}</system-out>\n  </testsuite>\n",
                escape(&unavailable.backend),
                escape(&unavailable.why),
            ),
        );
    }
    xml.push_str("</testsuites>");
    xml
}

fn case(xml: &mut String, backend: &str, name: &str, outcome: &Outcome) {
    push(
        xml,
        format_args!(
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escape(backend),
            escape(name),
            outcome.took.as_secs_f64(),
        ),
    );
    let verdict = escape(&outcome.verdict.to_string());
    match &outcome.verdict {
        Verdict::Fail(message) => {
            push(xml, format_args!("<failure message=\"{}\">{verdict}</failure>", escape(message)))
        }
        Verdict::Pass { note: None } => {}
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
        let xml = super::as_junit(&super::super::sample());
        assert!(xml.contains("1 &lt; 2 &amp; &quot;3&quot; \u{fffd}[0m"), "{xml}");
        assert!(xml.contains("&lt;trying it&gt;"), "{xml}");
        assert!(!xml.contains('\u{1b}'));
        assert_eq!(xml.matches("<testcase").count(), xml.matches("</testcase>").count());
    }
}
