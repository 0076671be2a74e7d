//! Kernel packages, as this system's apt finds them.
//!
//! apt runs with its lists and its cache in a folder of ours and with a list of
//! sources of our own, which takes the archive and its key from the system's:
//! other suites of the same archive. Nothing of the system's is written.

mod catalogue;
mod source;

pub(super) use catalogue::Catalogue;

use super::cache::Cache;
use super::choose::Package;
use super::tools;
use catalogue::{catalogue, is_part, release_of};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Suites that hold kernels worth running, the oldest first.
const SUITES: [&str; 7] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid"];

/// How long lists are good for.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Seconds that fetching lists may take: on a full disk, apt tries for ever.
const UPDATE_LIMIT: &str = "180";

/// The archive, through apt.
#[derive(Debug)]
pub(super) struct Apt {
    configuration: PathBuf,
}

impl Apt {
    /// Prepares the private configuration, from the system's.
    pub(super) fn new(cache: &Cache) -> Result<Self, String> {
        let folder = cache.folder("apt")?;
        let source = source::of_the_system()?;
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
        let parts = names.iter().filter(|name| is_part(name));
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

#[cfg(test)]
mod tests {
    use super::*;

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
