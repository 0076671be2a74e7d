//! `kernels list`: which kernels there are.

use super::apt::{Apt, Catalogue};
use super::cache::Cache;
use super::choose::{Kernel, series};
use crate::cli::output::{as_json, note, tell};
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Every release and flavour, not only the newest of each series.
    #[arg(long)]
    all: bool,
    /// Ask the archive now, even if it was asked today.
    #[arg(long)]
    refresh: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn list(options: &Options) -> Result<ExitCode, String> {
    let cache = Cache::open()?;
    let Offer { catalogue, .. } = offer(&cache, options.refresh)?;
    let newest = |kernel: &Kernel| {
        let same = |other: &&Kernel| {
            (other.series(), other.flavour()) == (kernel.series(), kernel.flavour())
        };
        let mut same = catalogue.kernels.iter().filter(same);
        kernel.flavour() == "cloud-amd64" && same.all(|other| other.age() <= kernel.age())
    };
    let shown: Vec<_> =
        catalogue.kernels.iter().filter(|kernel| options.all || newest(kernel)).collect();
    if options.json {
        tell(&as_json(&shown));
        return Ok(ExitCode::SUCCESS);
    }
    let width = shown.iter().map(|kernel| kernel.release.len()).max().unwrap_or(0).max(7);
    tell(&format!("{:<7} {:<width$} {:>6}  CACHED", "SERIES", "RELEASE", "MB"));
    for kernel in shown {
        let cached = if cache.holds(kernel) { "yes" } else { "no" };
        tell(&format!(
            "{:<7} {:<width$} {:>6}  {cached}",
            kernel.series(),
            kernel.release,
            kernel.size().div_ceil(1_000_000),
        ));
    }
    let whole: BTreeSet<_> = catalogue.kernels.iter().map(Kernel::series).collect();
    let broken: BTreeSet<_> = catalogue
        .incomplete
        .iter()
        .map(|release| series(release))
        .filter(|series| !whole.contains(series))
        .collect();
    if !broken.is_empty() {
        let broken: Vec<_> = broken.into_iter().collect();
        let broken = broken.join(", ");
        tell(&format!("not offered: {broken} (their modules are no longer in the archive)"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is, and the archive it can be fetched from.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) catalogue: Catalogue,
    pub(super) apt: Option<Apt>,
}

/// What the archive has; where it cannot be asked, what its lists said before,
/// or what is in the cache, and a line on that.
pub(super) fn offer(cache: &Cache, refresh: bool) -> Result<Offer, String> {
    let _locked = cache.lock()?;
    let asked = || -> Result<(Apt, Catalogue, Option<String>), String> {
        let apt = Apt::new(cache)?;
        let mut complaint = apt.refresh(cache, refresh)?;
        let mut catalogue = apt.catalogue()?;
        if catalogue.kernels.is_empty() && complaint.is_none() && !refresh {
            complaint = apt.refresh(cache, true)?;
            catalogue = apt.catalogue()?;
        }
        Ok((apt, catalogue, complaint))
    };
    let (apt, catalogue, complaint) = match asked() {
        Ok((apt, catalogue, complaint)) => (Some(apt), catalogue, complaint),
        Err(complaint) => (None, Catalogue::default(), Some(complaint)),
    };
    let Some(complaint) = complaint else {
        if catalogue.kernels.is_empty() {
            return Err("the archive of this system's apt has no kernels".to_owned());
        }
        return Ok(Offer { catalogue, apt });
    };
    if !catalogue.kernels.is_empty() {
        note(&format!(
            "conformance: using older lists, for the archive cannot be asked: {complaint}"
        ));
        return Ok(Offer { catalogue, apt });
    }
    let kernels = cache.kernels();
    if kernels.is_empty() {
        return Err(format!(
            "no kernels: none are in the cache, and the archive: {complaint}; one of your own runs \
             with --kernel PATH --modules DIR"
        ));
    }
    note(&format!(
        "conformance: using what is in the cache, for the archive cannot be asked: {complaint}"
    ));
    Ok(Offer { catalogue: Catalogue { kernels, incomplete: Vec::new() }, apt: None })
}
