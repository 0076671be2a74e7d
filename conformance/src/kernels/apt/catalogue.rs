//! Kernels, from what apt says of packages.

use crate::kernels::choose::{Kernel, Package};
use std::collections::BTreeMap;

/// The kernels of an archive.
#[derive(Debug, Default)]
pub(in crate::kernels) struct Catalogue {
    pub(in crate::kernels) kernels: Vec<Kernel>,
    /// Releases that cannot be had whole: their modules have left the index.
    pub(in crate::kernels) incomplete: Vec<String>,
}

/// The release of an image package: `linux-image-6.1.0-50-cloud-amd64`.
pub(super) fn release_of(package: &str) -> Option<&str> {
    let release = package.strip_prefix("linux-image-")?;
    let plain = release.ends_with("-amd64") && !release.contains("-rt-");
    (plain && release.starts_with(|first: char| first.is_ascii_digit())).then_some(release)
}

/// Whether the package holds a part of a kernel whose image package is empty:
/// so from 7.3 on, and in some releases before.
pub(super) fn is_part(package: &str) -> bool {
    ["linux-binary-", "linux-modules-"].iter().any(|part| package.starts_with(part))
}

/// Kernels from the paragraphs of `apt-cache show`.
pub(super) fn catalogue(paragraphs: &str) -> Catalogue {
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
            .filter(|name| is_part(name))
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
}
