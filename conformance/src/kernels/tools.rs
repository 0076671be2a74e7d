//! Programs of the system that this needs.

use std::io;
use std::process::{Command, Stdio};

/// Runs `command` and returns what it printed; else one line that says what
/// went wrong, or which package is missing.
pub(super) fn output(mut command: Command, package: &str) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_start(&program, package, &error))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", first_complaint(&text, &output.status.to_string())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why `program` did not start.
pub(super) fn cannot_start(program: &str, package: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        format!("there is no {program} here; it is in the Debian package {package}")
    } else {
        format!("{program}: {error}")
    }
}

/// The line of a tool's complaints that says most: apt's errors begin with `E:`
/// and the first is the cause of the others.
fn first_complaint(text: &str, otherwise: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find_map(|line| line.strip_prefix("E: "));
    error.or_else(|| lines().next_back()).unwrap_or(otherwise).to_owned()
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
        assert_eq!(first_complaint(text, "exit status 100"), "Could not resolve");
        assert_eq!(first_complaint("tar: a\ntar: No space left\n", "1"), "tar: No space left");
        assert_eq!(first_complaint("", "exit status: 1"), "exit status: 1");
    }
}
