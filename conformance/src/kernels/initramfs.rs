//! The root of a kernel under test: this program, the modules, and a job.

use super::cpio::Cpio;
use super::modules::Module;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where things are in there.
pub(super) const PROGRAM: &str = "conformance";
pub(super) const JOB: &str = "job.json";
pub(super) const MODULES: &str = "modules";

/// What the guest is to do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Job {
    /// Names of module files, in the order to load them.
    pub(super) modules: Vec<String>,
    /// Arguments for the program, in its second role.
    pub(super) arguments: Vec<String>,
    /// How long that may take.
    pub(super) limit: Duration,
}

/// Builds the archive.
pub(super) fn build(program: &[u8], modules: &[Module], job: &Job) -> Vec<u8> {
    let mut cpio = Cpio::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", MODULES] {
        cpio.folder(folder);
    }
    // The kernel opens it for the first process, before anything is mounted.
    cpio.character_device("dev/console", 5, 1);
    cpio.program(PROGRAM, program);
    for module in modules {
        cpio.file(&format!("{MODULES}/{}.ko", module.name), &module.image);
    }
    cpio.file(JOB, serde_json::to_string(job).unwrap_or_default().as_bytes());
    cpio.finish()
}
