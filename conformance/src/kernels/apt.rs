//! Kernel packages, as this system's apt finds them.
//!
//! apt runs with its lists and its cache in a folder of ours and with a list of
//! sources of our own, which takes the archive and its key from the system's:
//! other suites of the same archive. Nothing of the system's is written.

use super::cache::Cache;
use super::choose::{Kernel, Package};
use super::tools;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Suites that hold kernels worth running, the oldest first.
const SUITES: [&str; 7] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid"];

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

/// How long lists are good for.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Seconds that fetching lists may take: on a full disk, apt tries for ever.
const UPDATE_LIMIT: &str = "180";

/// The archive, through apt.
#[derive(Debug)]
pub(super) struct Apt {
    configuration: PathBuf,
}

/// The kernels of an archive.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) kernels: Vec<Kernel>,
    /// Releases that cannot be had whole: their modules have left the index.
    pub(super) incomplete: Vec<String>,
}

impl Apt {
    /// Prepares the private configuration, from the system's.
    pub(super) fn new(cache: &Cache) -> Result<Self, String> {
        let folder = cache.folder("apt")?;
        let source = system_source()?;
        let parts = cache.folder("apt/sources.list.d")?;
        for folder in ["apt/lists/partial", "apt/archives/partial"] {
            cache.folder(folder)?;
        }
        let suites = SUITES.join(" ");
        let mut sources = format!(
            "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\nArchitectures: amd64\n",
            source.uri
        );
        if let Some(key) = &source.signed_by {
            sources += &format!("Signed-By: {key}\n");
        }
        write(&parts.join("kernels.sources"), &sources)?;
        let system = tools::output(apt_config(), "apt")?;
        let configuration = folder.join("apt.conf");
        write(&configuration, &derived(&system, &folder, &parts))?;
        Ok(Self { configuration })
    }

    /// Fetches the lists, unless they are from today. Suites that this archive
    /// does not have are no error; a line tells of what else went wrong.
    pub(super) fn refresh(&self, cache: &Cache, always: bool) -> Result<Option<String>, String> {
        let stamp = cache.path("apt/refreshed");
        let fresh = fs::metadata(&stamp).and_then(|stamp| stamp.modified());
        let fresh = fresh.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH));
        if fresh && !always {
            return Ok(None);
        }
        let mut update = self.apt("timeout");
        update.args([UPDATE_LIMIT, "apt-get", "-qq", "update"]);
        let complaint = match tools::outputs(update, "coreutils") {
            Ok((_, warnings)) => failure_among(&warnings),
            // A suite that the archive lacks fails the whole call, after all
            // others were fetched.
            Err(error) if error.contains("does not have a Release file") => None,
            Err(error) if error.contains("exit status: 124") => {
                Some(format!("apt-get update was not done after {UPDATE_LIMIT} s"))
            }
            Err(error) => Some(error),
        };
        if complaint.is_none() {
            write(&stamp, "")?;
        }
        Ok(complaint)
    }

    /// Every kernel that the lists know of; none if there are no lists.
    pub(super) fn catalogue(&self) -> Result<Catalogue, String> {
        let mut names = self.apt("apt-cache");
        names.args(["pkgnames", "linux-"]);
        let names = tools::output(names, "apt")?;
        let names: BTreeSet<&str> = names.lines().collect();
        let images: Vec<_> = names.iter().filter(|name| release_of(name).is_some()).collect();
        if images.is_empty() {
            return Ok(Catalogue::default());
        }
        let parts = names.iter().filter(|name| part_of(name));
        let mut show = self.apt("apt-cache");
        show.args(["show", "--no-all-versions"]).args(images).args(parts);
        Ok(catalogue(&tools::output(show, "apt")?))
    }

    /// Has apt fetch `package` into `folder`; returns the file.
    pub(super) fn download(&self, package: &Package, folder: &Path) -> Result<PathBuf, String> {
        let mut download = self.apt("apt-get");
        let Package { name, version, .. } = package;
        download.args(["-qq", "download", &format!("{name}={version}")]).current_dir(folder);
        tools::output(download, "apt")?;
        let files = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut files = files.filter_map(Result::ok).map(|entry| entry.path());
        let found = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        found.ok_or_else(|| format!("apt-get download {name}: there is no package afterwards"))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }
}

/// What could not be fetched, from warnings of an update that calls that a
/// success.
fn failure_among(warnings: &str) -> Option<String> {
    let failed = warnings.lines().find_map(|line| line.strip_prefix("W: "));
    failed.filter(|line| line.starts_with("Failed to fetch")).map(str::to_owned)
}

fn apt_config() -> Command {
    let mut dump = Command::new("apt-config");
    dump.arg("dump").env("LC_ALL", "C");
    dump
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// What of the system's configuration says how to reach an archive, and where
/// everything of ours is. Left out: hooks, which would work on the system, and
/// indexes other than of packages.
fn derived(system: &str, folder: &Path, parts: &Path) -> String {
    let kept = system.lines().filter(|line| {
        (line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets"))
            || line.starts_with("Dir::Etc::")
            || line.starts_with("Dir::Bin::methods ")
    });
    let mut configuration: String = kept.flat_map(|line| [line, "\n"]).collect();
    let (folder, parts) = (folder.display(), parts.display());
    configuration += &format!(
        "// This is read instead of the system's files, not before them.\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{parts}\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}\";\n\
         Dir::Cache::archives \"{folder}/archives\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"1\";\n\
         Acquire::http::Timeout \"20\";\n\
         Acquire::https::Timeout \"20\";\n"
    );
    configuration
}

/// Debian's archive among the system's sources.
#[derive(Debug, Eq, PartialEq)]
struct Source {
    uri: String,
    signed_by: Option<String>,
}

fn system_source() -> Result<Source, String> {
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

/// The release of an image package: `linux-image-6.1.0-50-cloud-amd64`.
fn release_of(package: &str) -> Option<&str> {
    let release = package.strip_prefix("linux-image-")?;
    let plain = release.ends_with("-amd64") && !release.contains("-rt-");
    (plain && release.starts_with(|first: char| first.is_ascii_digit())).then_some(release)
}

/// Whether the package holds a part of a kernel whose image package is empty:
/// so from 7.3 on, and in some releases before.
fn part_of(package: &str) -> bool {
    ["linux-binary-", "linux-modules-"].iter().any(|part| package.starts_with(part))
}

/// Kernels from the paragraphs of `apt-cache show`.
fn catalogue(paragraphs: &str) -> Catalogue {
    let mut packages: BTreeMap<String, (Package, String)> = BTreeMap::new();
    for paragraph in paragraphs.split("\n\n") {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        let (Some(name), Some(version), Some(sha256)) =
            (field("Package"), field("Version"), field("SHA256"))
        else {
            continue;
        };
        let size = field("Size").and_then(|size| size.parse().ok()).unwrap_or(0);
        let depends = field("Depends").unwrap_or_default();
        packages.insert(name.clone(), (Package { name, version, size, sha256 }, depends));
    }
    let mut found = Catalogue::default();
    for (name, (image, depends)) in &packages {
        let Some(release) = release_of(name) else { continue };
        let parts: Vec<_> = depends
            .split([',', '|'])
            .filter_map(|depends| depends.split_whitespace().next())
            .filter(|name| part_of(name))
            .collect();
        let files = parts.iter().map(|part| packages.get(*part).map(|(package, _)| package));
        match files.collect::<Option<Vec<_>>>() {
            None => found.incomplete.push(release.to_owned()),
            Some(parts) if parts.is_empty() => {
                found.kernels.push(Kernel::new(release, vec![image.clone()]));
            }
            Some(parts) => {
                let parts = parts.into_iter().cloned().collect();
                found.kernels.push(Kernel::new(release, parts));
            }
        }
    }
    found.kernels.sort_by_cached_key(Kernel::age);
    found
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

    #[test]
    fn a_kernel_without_all_its_parts_is_not_offered() {
        let package = |name: &str, depends: &str| {
            format!("Package: {name}\nVersion: 1\nDepends: {depends}\nSize: 7\nSHA256: ab\n\n")
        };
        let text = [
            package("linux-image-6.1.0-50-cloud-amd64", "kmod, linux-base (>= 4.3~)"),
            package(
                "linux-image-7.3.4-amd64",
                "linux-binary-7.3.4-amd64 (= 1), linux-modules-7.3.4-amd64 (= 1)",
            ),
            package("linux-binary-7.3.4-amd64", ""),
            package("linux-modules-7.3.4-amd64", ""),
            package(
                "linux-image-7.0.1-amd64",
                "linux-binary-7.0.1-amd64 (= 1), linux-modules-7.0.1-amd64 (= 1)",
            ),
            package("linux-binary-7.0.1-amd64", ""),
            package("linux-image-6.1.0-50-rt-amd64", ""),
        ];
        let found = catalogue(&text.concat());
        let releases: Vec<_> = found.kernels.iter().map(|kernel| &*kernel.release).collect();
        assert_eq!(releases, ["6.1.0-50-cloud-amd64", "7.3.4-amd64"]);
        assert_eq!(found.kernels[1].packages.len(), 2);
        assert_eq!(found.incomplete, ["7.0.1-amd64"]);
    }

    #[test]
    fn what_apt_calls_a_warning_is_a_failure() {
        let warnings = "W: Failed to fetch http://a/b  Temporary failure\nW: Some index files";
        assert_eq!(
            failure_among(warnings).as_deref(),
            Some("Failed to fetch http://a/b  Temporary failure")
        );
        assert_eq!(failure_among("W: Key is weak\n"), None);
    }

    #[test]
    fn the_systems_proxy_is_kept_and_its_hooks_are_not() {
        let system = "Acquire::http::Proxy \"http://p\";\nAPT::Update::Post-Invoke:: \"rm x\";\n\
                      Acquire::IndexTargets::deb::DEP-11 \"\";\nDir::Etc::main \"apt.conf\";\n";
        let derived = derived(system, Path::new("/c/apt"), Path::new("/c/apt/parts"));
        assert!(derived.contains("http://p") && !derived.contains("rm x"), "{derived}");
        assert!(!derived.contains("DEP-11"), "{derived}");
        assert!(derived.rfind("Dir::Etc::main \"/dev/null\"") > derived.find("apt.conf"));
    }
}
