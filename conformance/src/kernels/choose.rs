//! Kernels, and which one a name means.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A kernel of the archive.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Kernel {
    /// As it calls itself: `6.12.117+deb13-cloud-amd64`.
    pub(super) release: String,
    /// What it is made of.
    pub(super) packages: Vec<Package>,
}

/// A package, by content.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// A release's numbers, of which the greater is the newer.
pub(super) type Age = Vec<u64>;

impl Kernel {
    pub(super) fn new(release: &str, packages: Vec<Package>) -> Self {
        Self { release: release.to_owned(), packages }
    }

    /// `6.12`
    pub(super) fn series(&self) -> &str {
        series(&self.release)
    }

    /// `cloud-amd64` or `amd64`.
    pub(super) fn flavour(&self) -> &'static str {
        if self.release.ends_with("-cloud-amd64") { "cloud-amd64" } else { "amd64" }
    }

    pub(super) fn age(&self) -> Age {
        numbers(&self.release)
    }

    /// Bytes to fetch.
    pub(super) fn size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }
}

/// The first two numbers of a release.
pub(super) fn series(release: &str) -> &str {
    let mut dots = release.match_indices(|c: char| !c.is_ascii_digit());
    dots.nth(1).map_or(release, |(at, _)| &release[..at])
}

fn numbers(release: &str) -> Age {
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Takes the kernel that `name` means: `6.12`, `6.12.117`, a whole release, or
/// `newest`; `NAME@amd64` for the flavour with every driver. The newest that fits.
///
/// # Errors
/// One line, with the nearest that there are.
pub(super) fn choose<'k>(name: &str, kernels: &'k [Kernel]) -> Result<&'k Kernel, String> {
    let (version, flavour) = name.split_once('@').unwrap_or((name, "cloud-amd64"));
    let of_flavour = || kernels.iter().filter(|kernel| kernel.flavour() == flavour);
    let fits = |kernel: &&Kernel| version == "newest" || begins(&kernel.release, version);
    let whole = kernels.iter().find(|kernel| kernel.release == version);
    let found = whole.or_else(|| of_flavour().filter(fits).max_by_key(|kernel| kernel.age()));
    found.ok_or_else(|| {
        let near = nearest(version, of_flavour().map(Kernel::series));
        if near.is_empty() {
            return format!("there is no kernel '{name}' and none of flavour '{flavour}' at all");
        }
        format!("there is no kernel '{name}'; near it: {}", near.join(", "))
    })
}

/// Whether `release` is of `version`: `6.1` is not the beginning of `6.12`.
fn begins(release: &str, version: &str) -> bool {
    let rest = release.strip_prefix(version);
    rest.is_some_and(|rest| !version.is_empty() && !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Up to two series on either side of `version`.
fn nearest<'k>(version: &str, of: impl Iterator<Item = &'k str>) -> Vec<&'k str> {
    let all: BTreeSet<_> = of.map(|series| (numbers(series), series)).collect();
    let wanted = numbers(version);
    let below: Vec<_> = all.iter().filter(|(age, _)| *age <= wanted).rev().take(2).collect();
    let above = all.iter().filter(|(age, _)| *age > wanted).take(2);
    below.into_iter().rev().chain(above).map(|(_, series)| *series).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        let releases = [
            "5.10.0-32-cloud-amd64",
            "6.1.0-47-cloud-amd64",
            "6.1.0-50-cloud-amd64",
            "6.1.0-50-amd64",
            "6.12.95+deb12-cloud-amd64",
            "6.12.117+deb13-cloud-amd64",
            "7.3.4+deb13-cloud-amd64",
        ];
        releases.map(|release| Kernel::new(release, Vec::new())).into()
    }

    #[test]
    fn the_newest_that_fits_is_meant() {
        let kernels = kernels();
        for (name, release) in [
            ("6.1", "6.1.0-50-cloud-amd64"),
            ("6.12", "6.12.117+deb13-cloud-amd64"),
            ("6.12.95", "6.12.95+deb12-cloud-amd64"),
            ("6.1@amd64", "6.1.0-50-amd64"),
            ("6.1.0-47-cloud-amd64", "6.1.0-47-cloud-amd64"),
            ("newest", "7.3.4+deb13-cloud-amd64"),
        ] {
            assert_eq!(choose(name, &kernels).map(|k| &*k.release), Ok(release), "{name}");
        }
        assert_eq!(kernels[4].series(), "6.12");
    }

    #[test]
    fn what_there_is_not_brings_what_is_near() {
        let error = choose("6.13", &kernels()).unwrap_err();
        assert!(error.contains("6.13") && error.ends_with("6.1, 6.12, 7.3"), "{error}");
        assert!(choose("", &kernels()).unwrap_err().ends_with("5.10, 6.1"));
        assert!(choose("6.12@rt", &kernels()).unwrap_err().contains("'rt'"));
    }
}
