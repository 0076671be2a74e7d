//! Debian's archive, among the sources of this system's apt.

use crate::kernels::tools;
use std::fs;
use std::process::Command;

/// Names by which a source is known to be Debian's archive: code names, and
/// names that move from one to the next.
const DEBIAN: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Debian's archive among the system's sources.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Source {
    pub(super) uri: String,
    /// A file of keys, or the key itself, as the system's entry has it.
    pub(super) signed_by: Option<String>,
}

/// The first source that is Debian's archive, which has every suite.
pub(super) fn of_the_system() -> Result<Source, String> {
    let mut targets = Command::new("apt-get");
    targets.env("LC_ALL", "C").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(SOURCESENTRY)",
        "Created-By: Packages",
        "Component: main",
    ]);
    let targets = tools::output(targets, "apt")?;
    let (uri, entry) = debian_among(&targets).ok_or(
        "no source of this system's apt is Debian's archive, so there are no kernels to take \
         from it; bring your own with --kernel PATH --modules DIR",
    )?;
    let signed_by = entry.and_then(|(file, number)| {
        let text = fs::read_to_string(file).ok()?;
        signed_by(&text, file.ends_with(".sources"), number)
    });
    Ok(Source { uri: uri.to_owned(), signed_by })
}

/// The archive's address, and the file and number of its entry, from lines of
/// address, release and entry.
fn debian_among(targets: &str) -> Option<(&str, Option<(&str, usize)>)> {
    targets.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (uri, release) = (fields.next()?, fields.next()?);
        let (suite, pocket) = release.split_once('-').unwrap_or((release, ""));
        // Security updates are an archive of their own, without other suites.
        if !DEBIAN.contains(&suite) || pocket == "security" || release.contains('/') {
            return None;
        }
        let entry = fields.next().and_then(|entry| entry.rsplit_once(':'));
        Some((uri, entry.and_then(|(file, n)| Some((file, n.parse().ok()?)))))
    })
}

/// The key that the entry names: of the nth paragraph of a deb822 file, or of
/// the nth line of the older form. What goes on over lines is kept as it is.
fn signed_by(text: &str, deb822: bool, number: usize) -> Option<String> {
    if !deb822 {
        let line = text.lines().nth(number.checked_sub(1)?)?;
        let (_, options) = line.split_once('[')?;
        let options = options.split(']').next()?.split_whitespace();
        return options.filter_map(|o| o.strip_prefix("signed-by=")).map(Into::into).next();
    }
    let is_comment = |line: &&str| !line.starts_with('#');
    let mut paragraphs = vec![Vec::new()];
    for line in text.lines().filter(is_comment) {
        if line.trim().is_empty() {
            paragraphs.push(Vec::new());
        } else if let Some(paragraph) = paragraphs.last_mut() {
            paragraph.push(line);
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    let mut lines = paragraphs.get(number.checked_sub(1)?)?.iter().copied();
    let first = lines.find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case("signed-by").then_some(value.trim())
    })?;
    let more = lines.take_while(|line| line.starts_with([' ', '\t']));
    Some(more.fold(first.to_owned(), |all, line| all + "\n" + line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_found_among_sources() {
        let targets = "http://a/vendor/ nodistro /etc/x.sources:1\n\
                       http://b/security/ bookworm-security /etc/debian.sources:2\n\
                       http://b/debian/ bookworm /etc/debian.sources:1\n";
        let found = debian_among(targets);
        assert_eq!(found, Some(("http://b/debian/", Some(("/etc/debian.sources", 1)))));
        assert_eq!(debian_among("http://u/ubuntu/ noble /etc/u.sources:1\n"), None);
    }

    #[test]
    fn keys_are_found_in_both_forms() {
        let new =
            "# c\nTypes: deb\nSigned-By: /k.gpg\n\nTypes: deb\nSigned-By:\n -----A\n .\n B\nX: y";
        assert_eq!(signed_by(new, true, 1).as_deref(), Some("/k.gpg"));
        assert_eq!(signed_by(new, true, 2).as_deref(), Some("\n -----A\n .\n B"));
        assert_eq!(signed_by(new, true, 3), None);
        let old = "\ndeb [arch=amd64 signed-by=/k.gpg] http://x y main\ndeb http://x y main\n";
        assert_eq!(signed_by(old, false, 2).as_deref(), Some("/k.gpg"));
        assert_eq!(signed_by(old, false, 3), None);
    }
}
