//! The kernels that were asked for.

use super::cache::Cache;
use super::choose::{Kernel, choose, series};
use super::image;
use super::list::{Offer, offer};
use super::unpack::Unpacked;
use crate::cli::output::note;
use crate::results::PackageResult;
use std::path::{Path, PathBuf};

/// A kernel as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// As it was asked for, which is shorter: `6.12`.
    pub(super) name: String,
    pub(super) release: String,
    from: Source,
}

/// Where it comes from.
#[derive(Clone, Debug)]
enum Source {
    /// The archive, in packages that are here now; or why they are not.
    Packages(Kernel, Result<Vec<PathBuf>, String>),
    Own {
        image: PathBuf,
        modules: Option<PathBuf>,
    },
}

/// A kernel of one's own.
pub(super) fn own(image: &Path, modules: Option<&Path>) -> Result<Wish, String> {
    let release = image::release(image).map_err(|error| format!("{}: {error}", image.display()))?;
    if let Some(modules) = modules.filter(|modules| !modules.is_dir()) {
        return Err(format!("{}: not a folder of modules", modules.display()));
    }
    let from = Source::Own { image: image.to_owned(), modules: modules.map(Path::to_owned) };
    Ok(Wish { name: series(&release).to_owned(), release, from })
}

/// Which kernels were asked for, with their packages here.
pub(super) fn wishes(names: &[String]) -> Result<Vec<Wish>, String> {
    let cache = Cache::open()?;
    let Offer { catalogue, apt } = offer(&cache, false)?;
    let mut chosen: Vec<(&str, &Kernel)> = Vec::new();
    for name in names {
        let kernel = choose(name, &catalogue.kernels)?;
        if chosen.iter().all(|(_, other)| *other != kernel) {
            let name = if name == "newest" { kernel.series() } else { name };
            chosen.push((name, kernel));
        }
    }
    let _locked = cache.lock()?;
    let say = |line: &str| note(&format!("conformance: {line}"));
    let wishes = chosen.into_iter().map(|(name, kernel)| Wish {
        name: name.to_owned(),
        release: kernel.release.clone(),
        from: Source::Packages(kernel.clone(), cache.obtain(kernel, apt.as_ref(), &say)),
    });
    Ok(wishes.collect())
}

impl Wish {
    pub(super) fn unpack(&self) -> Result<Unpacked, String> {
        match &self.from {
            Source::Packages(_, Ok(packages)) => Unpacked::from_packages(packages),
            Source::Packages(_, Err(why)) => Err(why.clone()),
            Source::Own { image, modules } => Ok(Unpacked::at(image, modules.as_deref())),
        }
    }

    pub(super) fn packages(&self) -> Vec<PackageResult> {
        let Source::Packages(kernel, _) = &self.from else { return Vec::new() };
        let packages = kernel.packages.iter().map(|package| PackageResult {
            name: package.name.clone(),
            version: package.version.clone(),
            sha256: package.sha256.clone(),
        });
        packages.collect()
    }
}
