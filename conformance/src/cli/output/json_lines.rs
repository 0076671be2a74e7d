//! For programs that follow a run: an object a line.

use super::{as_json, tell};
use crate::results::{CaseResult, Run, Unavailable};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// Something that happened in a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A case begins; if nothing more is heard, this is where it broke.
    Begin { backend: String, name: String },
    /// A case ended.
    End { backend: String, case: CaseResult },
    /// A backend cannot be had here.
    Unavailable(Unavailable),
    /// All is done; here is everything.
    Done { run: Box<Run> },
}

/// Writes events in whole lines, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<()>);

impl Lines {
    pub(crate) fn write(&self, event: &Event) {
        let _whole_lines = self.0.lock();
        tell(&as_json(event));
    }
}
