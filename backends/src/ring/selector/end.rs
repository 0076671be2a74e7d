//! Ending what is under way.

use super::RingSelector;
use crate::sys::ring::NOBODY;
use lastbyte::Wake;
use std::time::{Duration, Instant};

/// How long the end of a ring waits for operations to end that have been told
/// to; what they refer to is leaked after that.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// How long it waits in one go, and how often at the least. On a machine that is
/// starved of processor time the kernel needs longer to let go, and each wait
/// takes longer, too.
const ONE_WAIT: Duration = Duration::from_millis(2);
const WAITS: u32 = 100;

impl RingSelector {
    /// Waits for the completions of a port that was told to end, but not for
    /// ever.
    pub(super) fn enter_until(&mut self, done: impl Fn(&mut Self) -> bool) {
        let began = Instant::now();
        for wait in 1.. {
            self.cancel_left();
            // An error here would show again at the next turn.
            let entered = self.ring.enter(Some(ONE_WAIT));
            self.reap();
            let is_long_enough = wait >= WAITS && began.elapsed() > LAST_WAIT;
            if done(self) || entered.is_err() || is_long_enough {
                return;
            }
        }
    }

    /// Tells everything that operations of a port go by to end, and says whether
    /// there was room for that. If not, [`Self::cancel_left`] does it later.
    pub(super) fn cancel_all(&mut self, place: usize) -> bool {
        let armed: Vec<u64> = self.ports[place].armed().collect();
        for name in armed {
            if self.ring.cancel(name, NOBODY).is_err() {
                self.uncancelled.push(place);
                return false;
            }
            self.started = true;
        }
        true
    }

    /// Tells what could not be told to end before, and says whether that is all.
    pub(super) fn cancel_left(&mut self) -> bool {
        while let Some(place) = self.uncancelled.pop() {
            // It may have ended by itself, and the place be somebody else's.
            let is_left = self.ports.get(place).is_some_and(|port| port.token.is_none());
            if is_left && !self.cancel_all(place) {
                return false;
            }
        }
        true
    }

    /// Forgets a port that nothing is under way for.
    pub(super) fn forget(&mut self, place: usize) {
        let port = &self.ports[place];
        if port.pinned == 0 {
            self.ports.remove(place);
        }
    }
}

/// Ends everything that is under way. What the kernel does not let go of is
/// leaked: freed, it could be written to, or sent, with other content.
impl Drop for RingSelector {
    fn drop(&mut self) {
        let places: Vec<usize> = self.ports.iter().map(|(place, _)| place).collect();
        for place in places {
            self.ports[place].token = None;
            self.cancel_all(place);
        }
        self.waker.wake();
        self.enter_until(|selector| selector.in_flight.len() == 0);
        if self.in_flight.len() > 0 {
            self.in_flight.leak();
            std::mem::forget(self.buffers.take());
        }
    }
}
