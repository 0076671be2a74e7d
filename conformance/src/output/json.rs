//! For programs.

use super::Report;
use lastbyte::Support;
use lastbyte_conformance::{Outcome, Verdict};
use serde_json::{Value, json};

/// Everything, as one object.
pub(crate) fn as_json(report: &Report) -> String {
    let backends: Vec<_> = report
        .proved
        .iter()
        .map(|proved| {
            let cases: Vec<_> = proved.cases.iter().map(|(name, o)| case(name, o)).collect();
            json!({ "backend": proved.backend.name(), "cases": cases })
        })
        .collect();
    let unavailable: Vec<_> = report
        .unavailable
        .iter()
        .map(|unavailable| json!({ "backend": unavailable.backend, "why": unavailable.why }))
        .collect();
    json!({
        "machine": report.machine,
        "kernel": report.kernel,
        "restrictions": report.restrictions,
        "passed": report.passed(),
        "failed": report.failed(),
        "not_applicable": report.not_applicable(),
        "backends": backends,
        "unavailable": unavailable,
    })
    .to_string()
}

fn case(name: &str, outcome: &Outcome) -> Value {
    let mut value = json!({ "name": name, "seconds": outcome.took.as_secs_f64() });
    let (result, detail) = match &outcome.verdict {
        Verdict::Pass { note } => ("pass", json!(note)),
        Verdict::Fail(message) => ("fail", json!(message)),
        Verdict::NotApplicable { lack, substitute } => {
            value["lack"] = json!({ "what": lack.what, "errno": lack.errno });
            ("n/a", json!(substitute))
        }
    };
    value["result"] = json!(result);
    value["detail"] = detail;
    value
}

/// The capability report.
pub(crate) fn probe_as_json(report: &lastbyte::Report) -> String {
    let facilities: Vec<_> = report
        .capabilities()
        .iter()
        .map(|capability| {
            let (support, errno, what) = match &capability.support {
                Support::Have => ("have", None, None),
                Support::Lack { errno, what } => ("lacks", *errno, Some(*what)),
                _ => ("disabled", None, None),
            };
            json!({
                "facility": capability.facility.name(),
                "support": support,
                "errno": errno,
                "tried": what,
                "effect": (support != "have").then(|| capability.facility.effect_of_lack()),
            })
        })
        .collect();
    json!({ "kernel": report.kernel(), "facilities": facilities }).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_case_is_in_it() {
        let text = super::as_json(&super::super::sample());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["passed"], 2);
        let cases = value["backends"][0]["cases"].as_array().unwrap();
        assert_eq!(cases[1]["lack"]["errno"], 95);
        assert_eq!(cases[2]["result"], "fail");
    }
}
