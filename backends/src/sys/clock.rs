//! The two clocks (`clock_gettime(2)`; on Linux no system call, see vdso(7)).

use lastbyte::{ClockMap, Time, UnixTime};

/// Reads `CLOCK_MONOTONIC`.
pub(crate) fn monotonic() -> Time {
    Time::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// Reads both clocks so that one can be brought to the other.
pub(crate) fn map() -> ClockMap {
    let (before, wall, after) = sample();
    ClockMap::new(before, wall, after)
}

/// The wall clock between two readings of the monotonic one.
pub(crate) fn sample() -> (Time, UnixTime, Time) {
    let before = monotonic();
    let wall = UnixTime::from_nanos(read(libc::CLOCK_REALTIME));
    (before, wall, monotonic())
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writes; both clocks exist on every Unix, and if
    // the call fails `now` keeps its value.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
