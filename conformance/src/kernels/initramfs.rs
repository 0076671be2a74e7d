//! The root of a kernel under test: this program, the modules, and a job.

use super::cpio::Cpio;
use super::modules::Module;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where things are in there.
pub(super) const PROGRAM: &str = "conformance";
pub(super) const OTHER: &str = "program";
pub(super) const JOB: &str = "job.json";
pub(super) const MODULES: &str = "modules";

/// What the guest is to do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Job {
    /// Names of module files, in the order to load them.
    pub(super) modules: Vec<String>,
    /// Whether it is the other program that is to be run.
    pub(super) other: bool,
    /// Arguments for the program; for this one, in its second role.
    pub(super) arguments: Vec<String>,
    /// How long that may take.
    pub(super) limit: Duration,
}

/// Builds the archive, with another program in it, if there is one to be run.
pub(super) fn build(
    program: &[u8],
    other: Option<&[u8]>,
    modules: &[Module],
    job: &Job,
) -> Vec<u8> {
    let mut cpio = Cpio::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", MODULES] {
        cpio.folder(folder);
    }
    // The kernel opens it for the first process, before anything is mounted.
    cpio.character_device("dev/console", 5, 1);
    cpio.program(PROGRAM, program);
    if let Some(other) = other {
        cpio.program(OTHER, other);
    }
    for module in modules {
        cpio.file(&format!("{MODULES}/{}.ko", module.name), &module.image);
    }
    cpio.file(JOB, serde_json::to_string(job).unwrap_or_default().as_bytes());
    cpio.finish()
}
