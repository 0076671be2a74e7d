//! What came of a case.

use crate::{Case, Lack, Verdict};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A case by name, and what came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) result: Outcome,
    /// A remark, what stands in for something lacking, or what went wrong.
    pub(crate) detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lack: Option<LackResult>,
}

/// How it ended, in one word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Outcome {
    /// The contract holds.
    #[serde(rename = "pass")]
    Pass,
    /// Something is lacking; what stands in for it was verified.
    #[serde(rename = "n/a")]
    NotApplicable,
    /// The contract is broken.
    #[serde(rename = "fail")]
    Fail,
}

/// What was lacking.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LackResult {
    pub(crate) what: String,
    pub(crate) errno: Option<i32>,
}

impl CaseResult {
    pub(crate) fn new(case: &Case, verdict: &Verdict, took: Duration) -> Self {
        let (result, detail, lack) = match verdict {
            Verdict::Pass { note } => (Outcome::Pass, note.clone(), None),
            Verdict::Fail(message) => (Outcome::Fail, Some(message.clone()), None),
            Verdict::NotApplicable { lack, substitute } => {
                let lack = LackResult { what: lack.what.clone(), errno: lack.errno };
                (Outcome::NotApplicable, Some(substitute.clone()), Some(lack))
            }
        };
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        Self { name: case.name().to_owned(), seconds, result, detail, lack }
    }

    /// As it was when it ended.
    pub(crate) fn verdict(&self) -> Verdict {
        let detail = self.detail.clone();
        match (self.result, &self.lack) {
            (Outcome::Pass, _) => Verdict::Pass { note: detail },
            (Outcome::Fail, _) => Verdict::Fail(detail.unwrap_or_default()),
            (Outcome::NotApplicable, lack) => Verdict::NotApplicable {
                lack: lack.as_ref().map_or_else(
                    || Lack::of("something"),
                    |lack| Lack { what: lack.what.clone(), errno: lack.errno },
                ),
                substitute: detail.unwrap_or_default(),
            },
        }
    }
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict().fmt(f)
    }
}
