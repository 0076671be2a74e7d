//! Time as an argument: the core never reads a clock.

use std::fmt;
use std::time::{Duration, SystemTime};

/// A reading of the monotonic clock (`CLOCK_MONOTONIC` on Linux), in
/// nanoseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    /// The reading `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to here, zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This time and `by` more; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

/// A reading of the wall clock (`CLOCK_REALTIME`), in nanoseconds since 1970.
/// It can step; never subtract two of them to get a duration.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The reading `nanos` nanoseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl From<UnixTime> for SystemTime {
    fn from(at: UnixTime) -> Self {
        Self::UNIX_EPOCH + Duration::from_nanos(at.0)
    }
}

/// When something happened, on both clocks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// The time to compute with.
    pub monotonic: Time,
    /// The same on the wall clock, for people and logs.
    pub wall: UnixTime,
    /// How far `monotonic` can be off because a wall-clock stamp had to be
    /// brought to the monotonic clock. Zero for a time read directly.
    pub error: Duration,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.monotonic.0)
    }
}

/// How fast the wall clock may run away from the monotonic one without having
/// been stepped. The kernel slews both alike but for `adjtime`, which is held to
/// 500 ppm (`kernel/time/ntp.c`, `MAX_TICKADJ`); twice that is allowed here.
const SLEW_PPM: u64 = 1_000;

/// Scheduling noise between the reads of a sample that its width does not show.
const SAMPLE_SLACK: u64 = 50_000;

/// How long the wall clock is taken to go as it went.
const SAME_WALL_CLOCK: Duration = Duration::from_millis(100);

/// Brings the kernel's transmit stamps, which are wall-clock time
/// (`include/linux/skbuff.h`, `__net_timestamp`), to the monotonic clock.
///
/// Feed it samples of both clocks. When two samples disagree by more than a
/// clock may drift, the wall clock was stepped in between, and stamps of what
/// began before the newer sample are not convertible: [`ClockMap::monotonic`]
/// says so instead of giving a wild time. Settings that cancel each other out
/// between two samples leave no trace; sample at every drain.
#[derive(Clone, Copy, Debug)]
pub struct ClockMap {
    /// Wall minus monotonic, nanoseconds.
    offset: i128,
    error: u64,
    sampled: Time,
    /// When the last step was noticed.
    trusted_from: Time,
}

impl ClockMap {
    /// Starts from a wall-clock reading taken between two monotonic ones.
    #[must_use]
    pub fn new(before: Time, wall: UnixTime, after: Time) -> Self {
        let (offset, error) = compare(before, wall, after);
        Self { offset, error, sampled: after, trusted_from: Time(0) }
    }

    /// Takes another sample, as new.
    pub fn sample(&mut self, before: Time, wall: UnixTime, after: Time) {
        let (offset, error) = compare(before, wall, after);
        let drift = u64::try_from((offset - self.offset).unsigned_abs()).unwrap_or(u64::MAX);
        let elapsed = after.0.saturating_sub(self.sampled.0);
        let allowed = elapsed / 1_000_000 * SLEW_PPM + error + self.error + SAMPLE_SLACK;
        if drift > allowed {
            self.trusted_from = before;
        }
        (self.offset, self.error, self.sampled) = (offset, error, after);
    }

    /// Whether the last sample is so old that another is due also where there are no
    /// stamps to be converted: somebody may have set the wall clock, or had the machine
    /// sleep.
    #[must_use]
    pub fn is_old(&self, now: Time) -> bool {
        now.since(self.sampled) >= SAME_WALL_CLOCK
    }

    /// A monotonic reading, with the wall time beside it.
    #[must_use]
    pub fn moment(&self, monotonic: Time) -> Moment {
        let wall = (i128::from(monotonic.0) + self.offset).max(0);
        Moment {
            monotonic,
            wall: UnixTime(u64::try_from(wall).unwrap_or(u64::MAX)),
            error: Duration::ZERO,
        }
    }

    /// A kernel stamp on the monotonic clock, or `None` if the wall clock was
    /// stepped so that the stamp's place cannot be known. The event is known to
    /// lie between `not_before` and `not_after`; the result always does.
    #[must_use]
    pub fn monotonic(&self, stamp: UnixTime, not_before: Time, not_after: Time) -> Option<Moment> {
        // Between two samples the clock may have been set more than once, so of
        // what began before a step nobody knows which clock has stamped it.
        if not_before < self.trusted_from {
            return None;
        }
        let at = i128::from(stamp.0) - self.offset;
        let slack = i128::from(self.error + SAMPLE_SLACK);
        let earliest = i128::from(not_before.0) - slack;
        let latest = i128::from(not_after.0) + slack;
        if at < earliest || at > latest {
            return None;
        }
        let at = Time(u64::try_from(at.max(0)).unwrap_or(u64::MAX));
        Some(Moment {
            monotonic: at.clamp(not_before, not_after.max(not_before)),
            wall: stamp,
            // The clocks may have drifted apart between the stamp and the sample.
            error: Duration::from_nanos(
                self.error + self.sampled.0.saturating_sub(at.0) / 1_000_000 * SLEW_PPM,
            ),
        })
    }
}

fn compare(before: Time, wall: UnixTime, after: Time) -> (i128, u64) {
    let width = after.0.saturating_sub(before.0);
    let middle = before.0 + width / 2;
    (i128::from(wall.0) - i128::from(middle), width.div_ceil(2))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn sample(map: &mut ClockMap, monotonic: u64, wall: u64) {
        map.sample(Time(monotonic - 20), UnixTime(wall), Time(monotonic + 20));
    }

    #[test]
    fn a_stamp_comes_back_within_the_stated_error() {
        let map = ClockMap::new(Time(1_000), UnixTime(50 * SECOND), Time(1_040));
        let at = map.monotonic(UnixTime(50 * SECOND + 500), Time(1_020), Time(10_000)).unwrap();
        assert_eq!(at.monotonic, Time(1_520));
        assert_eq!(at.error, Duration::from_nanos(20));
        assert_eq!(at.wall, UnixTime(50 * SECOND + 500));
    }

    proptest! {
        /// Whatever the wall clock is set to, a stamp is placed between its
        /// bounds or not at all.
        #[test]
        fn no_step_makes_a_wild_time(
            step in -1_000_000_000_000_i64..1_000_000_000_000,
            sent in 0_u64..SECOND,
            acked in 0_u64..SECOND,
            read in 0_u64..SECOND,
            before_step in any::<bool>(),
        ) {
            let start = 10 * SECOND;
            let epoch = 1_000_000 * SECOND;
            let (sent, acked) = (start + sent, start + sent + acked);
            let read = acked + read;
            let mut map = ClockMap::new(Time(start - 20), UnixTime(epoch + start), Time(start + 20));
            let stepped = (epoch + read).checked_add_signed(step).unwrap();
            sample(&mut map, read, stepped);
            let stamp = if before_step { epoch + acked } else { stepped - (read - acked) };
            if let Some(at) = map.monotonic(UnixTime(stamp), Time(sent), Time(read)) {
                prop_assert!(at.monotonic >= Time(sent) && at.monotonic <= Time(read));
            }
        }
    }

    #[test]
    fn stamps_from_before_a_step_are_not_converted() {
        let mut map = ClockMap::new(Time(0), UnixTime(SECOND), Time(0));
        sample(&mut map, SECOND, 3 * SECOND);
        assert_eq!(map.monotonic(UnixTime(SECOND + SECOND / 2), Time(0), Time(SECOND)), None);
        assert_eq!(map.monotonic(UnixTime(3 * SECOND + 5), Time(0), Time(2 * SECOND)), None);
        assert!(map.monotonic(UnixTime(3 * SECOND + 5), Time(SECOND), Time(2 * SECOND)).is_some());
    }
}
