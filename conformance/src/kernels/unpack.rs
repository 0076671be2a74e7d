//! A kernel's image and modules, out of its packages.

use super::tools;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A kernel in files.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) image: PathBuf,
    /// As in `/lib/modules/RELEASE`.
    pub(super) modules: Option<PathBuf>,
    /// Where they are, if that is to be removed.
    _folder: Option<TempDir>,
}

impl Unpacked {
    /// A kernel of one's own, where it is.
    pub(super) fn at(image: &Path, modules: Option<&Path>) -> Self {
        Self { image: image.to_owned(), modules: modules.map(Path::to_owned), _folder: None }
    }

    /// Unpacks `packages`.
    pub(super) fn from_packages(packages: &[PathBuf]) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("lastbyte-kernel-")
            .tempdir()
            .map_err(|error| format!("no folder to unpack a kernel in: {error}"))?;
        let root = folder.path();
        for package in packages {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(root).env("LC_ALL", "C");
            tools::output(unpack, "dpkg")?;
        }
        // Under /usr in newer packages, with the image among the modules.
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .find_map(|place| entries(&root.join(place)).into_iter().find(|path| path.is_dir()));
        let image = entries(&root.join("boot"))
            .into_iter()
            .chain(modules.iter().flat_map(|modules| entries(modules)))
            .find(|path| starts_with_vmlinuz(path))
            .ok_or("there is no kernel image in its packages")?;
        Ok(Self { image, modules, _folder: Some(folder) })
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn starts_with_vmlinuz(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
}
