//! For build servers: JUnit's XML.

use crate::results::{CaseResult, Outcome, Run};
use std::fmt::Write;

/// A test suite for each backend.
pub(crate) fn as_junit(run: &Run) -> String {
    let mut xml = String::from(HEAD);
    suites(&mut xml, run, "");
    xml.push_str(FOOT);
    xml
}

/// Where a run took place: a kernel, or an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) name: &'p str,
    pub(crate) run: Option<&'p Run>,
    /// What the test of the place itself is called.
    pub(crate) test: &'static str,
    pub(crate) trouble: Trouble<'p>,
}

/// What was wrong with a place itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble<'p> {
    None,
    /// Why there is no result.
    NotTried(&'p str),
    /// What failed, and lines on it.
    Failed(&'p str, &'p [String]),
}

/// A test suite for each backend in each place, and one for the place itself.
pub(crate) fn places_as_junit<'p>(places: impl IntoIterator<Item = Place<'p>>) -> String {
    let mut xml = String::from(HEAD);
    for place in places {
        if let Some(run) = place.run {
            suites(&mut xml, run, &format!("{}/", place.name));
        }
        let (failures, skipped, what) = match place.trouble {
            Trouble::None => (0, 0, String::new()),
            Trouble::NotTried(why) => (0, 1, format!("<skipped message=\"{}\"/>", escape(why))),
            Trouble::Failed(what, lines) => {
                let (what, lines) = (escape(what), escape(&lines.join("\n")));
                (1, 0, format!("<failure message=\"{what}\">{lines}</failure>"))
            }
        };
        push(
            &mut xml,
            format_args!(
                "  <testsuite name=\"{0}\" tests=\"1\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n    <testcase classname=\"{0}\" name=\"{1}\">{what}</testcase>\n  </testsuite>\n",
                escape(place.name),
                place.test,
            ),
        );
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
