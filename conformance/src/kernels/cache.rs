//! Packages that were fetched, by their content, and which kernel they make.

use super::apt::Apt;
use super::choose::{Kernel, Package};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Says where the cache is.
const VARIABLE: &str = "LASTBYTE_KERNEL_CACHE";

/// A folder with everything that can be fetched again.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

/// Keeps other runners off the cache until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    _file: File,
}

impl Cache {
    /// In `LASTBYTE_KERNEL_CACHE`, or else where the user's caches are.
    pub(super) fn open() -> Result<Self, String> {
        let of_variable = |name, below: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some(PathBuf::from(value).join(below))
        };
        let root = of_variable(VARIABLE, "")
            .or_else(|| of_variable("XDG_CACHE_HOME", "lastbyte-kernels"))
            .or_else(|| of_variable("HOME", ".cache/lastbyte-kernels"))
            .ok_or_else(|| format!("no place for kernels: set {VARIABLE}, or HOME"))?;
        let root = std::path::absolute(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        let cache = Self { root };
        for below in ["", "packages", "kernels"] {
            cache.folder(below)?;
        }
        cache.check_room()?;
        Ok(cache)
    }

    /// Fails early where there is no room at all, for apt would try for ever.
    fn check_room(&self) -> Result<(), String> {
        /// apt's lists of all suites, and some packages.
        const NEEDED: u64 = 600 << 20;
        let root = self.root.display();
        let room = rustix::fs::statvfs(&self.root).map_err(|error| format!("{root}: {error}"))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < NEEDED && !self.path("apt/refreshed").exists() {
            let (free, needed) = (free >> 20, NEEDED >> 20);
            return Err(format!(
                "{root} has room for {free} MB; lists and kernels need {needed} MB"
            ));
        }
        Ok(())
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The folder `below`, which is made if need be.
    pub(super) fn folder(&self, below: &str) -> Result<PathBuf, String> {
        let path = self.path(below);
        fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(path)
    }

    /// Waits until no other runner works on the cache.
    pub(super) fn lock(&self) -> Result<Locked, String> {
        let path = self.path("lock");
        let lock = || -> io::Result<File> {
            let file = File::create(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock().map(|file| Locked { _file: file }).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Kernels whose packages are all here, whatever the archive says today.
    pub(super) fn kernels(&self) -> Vec<Kernel> {
        let Ok(files) = fs::read_dir(self.path("kernels")) else { return Vec::new() };
        let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        let mut kernels: Vec<Kernel> =
            texts.filter_map(|text| serde_json::from_str(&text).ok()).collect();
        kernels.retain(|kernel| self.holds(kernel));
        kernels.sort_by_cached_key(Kernel::age);
        kernels
    }

    /// Whether every package of `kernel` is here.
    pub(super) fn holds(&self, kernel: &Kernel) -> bool {
        kernel.packages.iter().all(|package| self.package(package).exists())
    }

    /// The files of `kernel`'s packages, each of which is what the index says;
    /// fetched where they are not here, or not right. `say` gets a line on each
    /// thing that takes time or is odd.
    pub(super) fn obtain(
        &self,
        kernel: &Kernel,
        apt: Option<&Apt>,
        say: &dyn Fn(&str),
    ) -> Result<Vec<PathBuf>, String> {
        let files = kernel.packages.iter().map(|package| self.obtain_package(package, apt, say));
        let files = files.collect::<Result<_, _>>()?;
        let record = self.path("kernels").join(format!("{}.json", kernel.release));
        let text = serde_json::to_string(kernel).unwrap_or_default();
        fs::write(&record, text).map_err(|e| format!("cannot write {}: {e}", record.display()))?;
        Ok(files)
    }

    fn obtain_package(
        &self,
        package: &Package,
        apt: Option<&Apt>,
        say: &dyn Fn(&str),
    ) -> Result<PathBuf, String> {
        let path = self.package(package);
        match sha256_of(&path) {
            Ok(sha256) if sha256 == package.sha256 => return Ok(path),
            Ok(_) => {
                say(&format!(
                    "{} in the cache is not what it was: fetching it again",
                    package.name
                ));
                fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
        let apt = apt.ok_or_else(|| {
            format!(
                "{} is not in the cache and cannot be fetched without the archive",
                package.name
            )
        })?;
        say(&format!("fetching {} ({} MB)", package.name, package.size.div_ceil(1_000_000)));
        let folder = tempfile::tempdir_in(&self.root)
            .map_err(|error| format!("cannot make a folder in {}: {error}", self.root.display()))?;
        let fetched = apt.download(package, folder.path())?;
        let sha256 = sha256_of(&fetched).map_err(|e| format!("{}: {e}", fetched.display()))?;
        if sha256 != package.sha256 {
            return Err(format!(
                "{}: what was fetched has SHA-256 {sha256}, the index says {}",
                package.name, package.sha256
            ));
        }
        fs::rename(&fetched, &path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    }

    fn package(&self, package: &Package) -> PathBuf {
        self.path("packages").join(format!("{}.deb", package.sha256))
    }
}

/// The SHA-256 of a file, in hexadecimal digits.
fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(as_text(&hash.finalize()))
}

/// A hash as it is written.
pub(super) fn as_text(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_has_changed_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().to_owned() };
        for below in ["packages", "kernels"] {
            cache.folder(below).unwrap();
        }
        // SHA-256 of "abc", from FIPS 180-4's examples.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let package = Package {
            name: "linux-image-1".into(),
            version: "1".into(),
            size: 3,
            sha256: sha256.into(),
        };
        let kernel = Kernel::new("1", vec![package.clone()]);
        fs::write(cache.package(&package), "abc").unwrap();
        assert_eq!(cache.obtain(&kernel, None, &|_| {}), Ok(vec![cache.package(&package)]));
        assert_eq!(cache.kernels(), std::slice::from_ref(&kernel));
        fs::write(cache.package(&package), "abd").unwrap();
        let said = std::cell::RefCell::new(String::new());
        let error = cache.obtain(&kernel, None, &|line| said.borrow_mut().push_str(line));
        assert!(error.unwrap_err().contains("linux-image-1"));
        assert!(said.borrow().contains("not what it was"), "{said:?}");
        assert!(cache.kernels().is_empty(), "what was wrong is gone");
    }
}
