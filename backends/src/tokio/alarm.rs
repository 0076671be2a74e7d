//! When a driver is to be turned, on the runtime's clock.

use lastbyte::Time;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// Both clocks are read, and a time is entered with the runtime, only when the time is
/// another one than before, which it mostly is not.
pub(super) struct Alarm {
    /// A time of the driver's, and when that is.
    by: Option<(Time, Instant)>,
    sleep: Pin<Box<Sleep>>,
    set_for: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { by: None, sleep: Box::pin(sleep_until(Instant::now())), set_for: None }
    }

    /// When it is `by` for a driver for which it is `now`.
    pub(super) fn at(&mut self, by: Time, now: impl FnOnce() -> Time) -> Instant {
        match self.by {
            Some((known, at)) if known == by => at,
            _ => {
                let at = Instant::now() + by.since(now());
                self.by = Some((by, at));
                at
            }
        }
    }

    /// Ready when it is `until`; with `None`, never.
    pub(super) fn poll(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until else { return Poll::Pending };
        if self.set_for != Some(until) {
            self.sleep.as_mut().reset(until);
            self.set_for = Some(until);
        }
        ready!(self.sleep.as_mut().poll(cx));
        // By the driver's clock it may be early: a runtime's can be made to jump.
        (self.by, self.set_for) = (None, None);
        Poll::Ready(())
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("set_for", &self.set_for).finish_non_exhaustive()
    }
}
