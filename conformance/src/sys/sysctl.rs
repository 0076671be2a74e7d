//! Settings of the machine that take something away from everyone on it. Only
//! root can change them, and they are given back.

use super::process::number;
use crate::cli::output::note;
use crate::cli::that_ask_for_an_end;
use std::fmt;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A setting of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineRestriction {
    name: &'static str,
    path: &'static str,
    value: u64,
}

/// Names of restrictions, and what they set
/// (`Documentation/admin-guide/sysctl/{kernel,net}.rst`).
const KNOWN: [(&str, &str); 2] = [
    ("io-uring-disabled", "/proc/sys/kernel/io_uring_disabled"),
    ("optmem-max", "/proc/sys/net/core/optmem_max"),
];

impl MachineRestriction {
    /// `io-uring-disabled=2`, `optmem-max=BYTES`; `None` if it is none of these.
    #[must_use]
    pub fn named(text: &str) -> Option<Result<Self, String>> {
        let (name, value) = text.split_once('=')?;
        let (name, path) = *KNOWN.iter().find(|(known, _)| *known == name)?;
        let value = number(text, value, u64::MAX);
        Some(value.map(|value| Self { name, path, value }))
    }

    fn impose(&self) -> Result<Changed, String> {
        let before = fs::read_to_string(self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{self}: this kernel has no {}", self.path),
            _ => format!("{self}: {}: {error}", self.path),
        })?;
        fs::write(self.path, self.value.to_string()).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => format!("{self} needs root: {}: {error}", self.path),
            _ => format!("{self}: {}: {error}", self.path),
        })?;
        Ok(Changed { path: self.path, before })
    }
}

impl fmt::Display for MachineRestriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// A changed setting; dropping it changes it back.
#[derive(Debug)]
struct Changed {
    path: &'static str,
    before: String,
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.path, self.before.trim()) {
            let before = self.before.trim();
            note(&format!(
                "conformance: {} was {before} and could not be set back: {error}",
                self.path
            ));
        }
    }
}

/// Settings of the machine that are changed as long as this exists.
#[derive(Debug)]
pub struct Restricted {
    changed: Vec<Changed>,
}

/// Imposes `restrictions` on the whole machine, until the result is dropped.
/// Signals that would end this process are held back as long: whoever calls this
/// passes them on to its children, and when they are gone the settings are given
/// back.
///
/// # Errors
/// If the kernel has no such setting, or only root may change it: one line.
pub fn restrict_machine(restrictions: &[MachineRestriction]) -> Result<Restricted, String> {
    let mut restricted = Restricted { changed: Vec::new() };
    if restrictions.is_empty() {
        return Ok(restricted);
    }
    for signal in that_ask_for_an_end() {
        // That it came is nowhere of interest: the children end of it.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|error| format!("signal {signal}: {error}"))?;
    }
    for restriction in restrictions {
        restricted.changed.push(restriction.impose()?);
    }
    Ok(restricted)
}

impl Drop for Restricted {
    fn drop(&mut self) {
        // The last change first: two of the same setting end as it was.
        while self.changed.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let known = MachineRestriction::named("io-uring-disabled=2").unwrap().unwrap();
        assert_eq!(known.to_string(), "io-uring-disabled=2");
        assert!(MachineRestriction::named("optmem-max=x").unwrap().is_err());
        assert!(MachineRestriction::named("memlock=1").is_none());
    }

    #[test]
    fn what_cannot_be_imposed_is_one_line() {
        let absent = MachineRestriction { name: "none", path: "/proc/sys/none", value: 1 };
        let error = restrict_machine(&[absent]).unwrap_err();
        assert!(error.contains("this kernel has no /proc/sys/none"), "{error}");
    }
}
