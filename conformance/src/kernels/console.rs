//! The kernel's own log.

use std::fs;
use std::path::Path;

/// Lines worth showing of a log that may be long.
const SHOWN: usize = 20;

/// The last lines of the log at `path`; those of a panic from its beginning.
pub(super) fn last_lines(path: &Path) -> Vec<String> {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().map(plain).filter(|line| !line.is_empty()).collect();
    let panic = lines
        .iter()
        .position(|line| ["Kernel panic", "Oops:", "BUG: "].iter().any(|sign| line.contains(sign)));
    let from = panic.unwrap_or_else(|| lines.len().saturating_sub(SHOWN));
    lines.into_iter().skip(from).take(SHOWN).collect()
}

/// Without what serial lines and terminals add.
fn plain(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let mut log: String = (0..50).map(|n| format!("line {n}\r\n")).collect();
        fs::write(&path, &log).unwrap();
        let last = last_lines(&path);
        assert_eq!((last.len(), last[19].as_str()), (SHOWN, "line 49"));
        log += "[ 1.0] Kernel panic - not syncing: why\r\n";
        log += &"trace\r\n".repeat(40);
        fs::write(&path, &log).unwrap();
        assert!(last_lines(&path)[0].contains("why"));
        assert!(last_lines(&folder.path().join("none")).is_empty());
    }
}
