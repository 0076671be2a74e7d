//! Results from files.

use super::{KernelResult, KernelsRun, Run};
use std::path::Path;

/// What a file of results holds.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Of `kernels run`.
    Kernels(KernelsRun),
    /// Of one kernel of `kernels run`.
    Kernel(KernelResult),
    /// Of `run`.
    Run(Run),
}

impl Found {
    /// Each kernel in it with its run; one that broke has none, or part of one.
    pub(crate) fn kernels(self) -> Vec<KernelResult> {
        match self {
            Self::Kernels(kernels) => kernels.kernels,
            Self::Kernel(kernel) => vec![kernel],
            Self::Run(run) => vec![KernelResult {
                name: run.release().to_owned(),
                release: run.release().to_owned(),
                packages: Vec::new(),
                accelerator: "none".to_owned(),
                seconds: run.backends.iter().flat_map(|b| &b.cases).map(|case| case.seconds).sum(),
                missing_modules: Vec::new(),
                broke: None,
                last_lines: Vec::new(),
                run: Some(run),
            }],
        }
    }
}

/// Reads the JSON of a run, whichever it was.
///
/// # Errors
/// One line for people.
pub(crate) fn read(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{shown}: not JSON: {error}"))?;
    let found = if value.get("kernels").is_some() {
        serde_json::from_value(value).map(Found::Kernels)
    } else if value.get("release").is_some() {
        serde_json::from_value(value).map(Found::Kernel)
    } else {
        serde_json::from_value(value).map(Found::Run)
    };
    found.map_err(|error| format!("{shown}: not the result of a run: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        std::fs::write(&path, serde_json::to_string(&super::super::sample()).unwrap()).unwrap();
        let kernels = read(&path).unwrap().kernels();
        assert_eq!(kernels[0].run.as_ref().unwrap().passed, 2);
        for (wrong, text) in [("{}", "not the result"), ("[", "not JSON")] {
            std::fs::write(&path, wrong).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains(text) && error.contains("run.json"), "{error}");
        }
        assert!(read(&folder.path().join("none")).unwrap_err().contains("none"));
    }
}
