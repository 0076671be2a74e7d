//! The forms in which a run can be told.

mod json_lines;
mod junit;
mod text;

pub(crate) use json_lines::{Event, Lines};
pub(crate) use junit::{as_junit, kernels_as_junit};
pub(crate) use text::{kernels_summary, line, summary, unavailable_line};

use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;

/// How a result is to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// A line a case, and a summary.
    Text,
    /// One object with everything.
    Json,
    /// An object a line: each case as it begins and ends, and everything at the end.
    JsonLines,
    /// For build servers.
    Junit,
}

/// Prints to a reader that may have left.
pub(crate) fn tell(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// `value` as one line of JSON.
pub(crate) fn as_json(value: &impl Serialize) -> String {
    // Plain data with names for keys: nothing in it can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}
