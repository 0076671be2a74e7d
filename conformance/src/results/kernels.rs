//! What came of a run on several kernels.

use super::Run;
use serde::{Deserialize, Serialize};

/// The suite on several kernels.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct KernelsRun {
    /// When it began, as in RFC 3339.
    pub(crate) date: String,
    /// What the runner that started the kernels was built from.
    pub(crate) commit: String,
    /// SHA-256 of the binary that every kernel ran.
    pub(crate) binary: String,
    pub(crate) qemu: String,
    pub(crate) kernels: Vec<KernelResult>,
}

/// One kernel: how it was had, and what came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct KernelResult {
    /// As it was asked for: `6.12`.
    pub(crate) name: String,
    /// As it is called: `6.12.117+deb13-cloud-amd64`, or a path.
    pub(crate) release: String,
    /// Where it came from; empty for a kernel of one's own.
    pub(crate) packages: Vec<PackageResult>,
    /// What ran it: `tcg` or `kvm`.
    pub(crate) accelerator: String,
    /// From power on to power off.
    pub(crate) seconds: f64,
    /// Modules that were wanted and that this kernel has in no form.
    pub(crate) missing_modules: Vec<String>,
    /// Why there is no run, or only part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broke: Option<String>,
    /// The last lines of its log, where something broke.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) last_lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Run>,
}

/// A package, by content.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PackageResult {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

impl KernelResult {
    /// Whether all of the suite was run and held.
    pub(crate) fn is_well(&self) -> bool {
        self.broke.is_none() && self.run.as_ref().is_some_and(|run| run.failed == 0)
    }
}
