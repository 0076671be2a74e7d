//! Cores, and CPU time.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process in nanoseconds, user and system, of all its threads.
///
/// # Errors
/// A line for people.
pub fn used() -> Result<u64, String> {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u64::try_from(used.tv_nsec).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(used.tv_sec).map_err(|error| error.to_string())?;
    Ok(seconds * 1_000_000_000 + nanos)
}

/// Keeps the calling thread, and threads that it starts from now on, on `core`.
///
/// # Errors
/// A line for people.
pub fn stay_on(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| format!("cannot stay on core {core}: {error}"))
}

/// The cores for a server and for its load: two that this process may use, or
/// none where it has but one.
#[must_use]
pub fn two_cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    Some((cores.next()?, cores.next()?))
}
