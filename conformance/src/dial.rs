//! Brings the suite's own clock readings to a driver's clock.

use lastbyte::{Driver, Time};
use std::time::Instant;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    before: Instant,
    time: Time,
    after: Instant,
}

impl Dial {
    pub(crate) fn of<D: Driver + ?Sized>(driver: &D) -> Self {
        let before = Instant::now();
        let time = driver.now();
        Self { before, time, after: Instant::now() }
    }

    /// The earliest that `at` can have been on the driver's clock.
    pub(crate) fn earliest(&self, at: Instant) -> Time {
        shift(self.time, self.after, at)
    }

    /// The latest that `at` can have been on the driver's clock.
    pub(crate) fn latest(&self, at: Instant) -> Time {
        shift(self.time, self.before, at)
    }
}

fn shift(time: Time, from: Instant, to: Instant) -> Time {
    if to >= from {
        return time.after(to - from);
    }
    let back = u64::try_from((from - to).as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(time.as_nanos().saturating_sub(back))
}
