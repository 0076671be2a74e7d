//! Finding out what this kernel can do, by doing it.
//!
//! Everything is tried on a connected loopback pair or on an object of its own,
//! needs no privilege, and leaves nothing behind. What was found is kept for
//! the life of the process, for it does not change.

use lastbyte::{Facility, Report, Restrictions, Support};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static FOUND: Mutex<BTreeMap<Facility, Support>> = Mutex::new(BTreeMap::new());

/// What this kernel can do, except what `restrictions` switch off, which is not
/// even tried, nor is what rests on it. The first call takes some milliseconds.
#[must_use]
pub fn report(restrictions: &Restrictions) -> Report {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = None;
    let mut look_up = |facility| {
        if !restrictions.allow(facility) {
            return Support::Disabled;
        }
        found.entry(facility).or_insert_with(|| attempt::attempt(facility, &mut pair)).clone()
    };
    Report::new(kernel(), &mut look_up)
}

fn kernel() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/ostype");
    let release = read("/proc/sys/kernel/osrelease");
    match (name, release) {
        (Some(name), Some(release)) => format!("{} {}", name.trim(), release.trim()),
        _ => std::env::consts::OS.to_owned(),
    }
}

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(lastbyte_portable)))] {
        #[path = "probe/linux.rs"]
        mod attempt;
    } else {
        #[path = "probe/portable.rs"]
        mod attempt;
    }
}
