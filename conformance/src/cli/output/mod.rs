//! The forms in which a run can be told.

mod json_lines;
mod junit;
mod text;

pub(crate) use json_lines::{Event, Lines};
pub(crate) use junit::{Place, Trouble, as_junit, places_as_junit};
pub(crate) use text::{kernels_summary, line, summary, unavailable_line};

use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::OnceLock;

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

/// Why something that was told got lost.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints to a reader that may have left; whatever else keeps a line from being
/// written is remembered.
pub(crate) fn tell(text: &str) {
    let mut out = io::stdout();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| error);
    }
}

/// Prints what is no result, on standard error. Who does not hear it is told by
/// the exit code.
pub(crate) fn note(text: &str) {
    // As one write, so that lines of several threads stay whole.
    drop(io::stderr().write_all(format!("{text}\n").as_bytes()));
}

/// Why not all that was to be told could be written, if so.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// `value` as one line of JSON.
pub(crate) fn as_json(value: &impl Serialize) -> String {
    // Plain data with names for keys: nothing in it can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}
