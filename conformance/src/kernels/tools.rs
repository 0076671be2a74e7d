//! Programs of the system that this needs.

use crate::sys::parent;
use rustix::process::Signal;
use std::io;
use std::process::{Command, Stdio};

/// Runs `command` and returns what it printed; else one line that says what
/// went wrong, or which package is missing.
pub(super) fn output(command: Command, package: &str) -> Result<String, String> {
    Ok(outputs(command, package)?.0)
}

/// The same, with what it printed to its standard error.
pub(super) fn outputs(mut command: Command, package: &str) -> Result<(String, String), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // A signal that ends this program must not leave apt at work.
    parent::ends_with_this_thread(&mut command, Signal::TERM);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_start(&program, package, &error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let complaints = text(&output.stderr);
    if !output.status.success() {
        let complaint = main_complaint(&complaints, &output.status.to_string());
        let complaint = complaint.trim_start_matches(&format!("{program}: "));
        return Err(format!("{program}: {complaint}"));
    }
    Ok((text(&output.stdout), complaints))
}

/// Why `program` did not start.
pub(super) fn cannot_start(program: &str, package: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        format!("there is no {program} here; it is in the Debian package {package}")
    } else {
        format!("{program}: {error}")
    }
}

/// The line of a tool's complaints that says most: a full disk is the cause of
/// whatever else is said, apt's errors begin with `E:`, the first being the cause
/// of the others, and most tools sum up at the end.
fn main_complaint(text: &str, otherwise: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let full = lines().find(|line| line.contains("No space left on device"));
    let error = || lines().find_map(|line| line.strip_prefix("E: "));
    full.or_else(error).or_else(|| lines().next_back()).unwrap_or(otherwise).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let error = output(Command::new("no-such-program"), "some-package").unwrap_err();
        assert!(error.contains("no-such-program") && error.contains("some-package"), "{error}");
    }

    #[test]
    fn the_cause_is_told_rather_than_its_consequences() {
        let text = "W: x\nE: Could not resolve\nE: Some index files failed\n";
        assert_eq!(main_complaint(text, "exit status 100"), "Could not resolve");
        assert_eq!(
            main_complaint("tar: No space left on device\ntar: failed\n", "1"),
            "tar: No space left on device"
        );
        assert_eq!(main_complaint("", "exit status: 1"), "exit status: 1");
    }
}
