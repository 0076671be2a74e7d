//! Turns that fail.

use super::turning::Next;
use lastbyte::DriverError;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after a turn that failed. The driver stays usable, and the kernel may
/// be short of something for a moment.
const RECOVERY: Duration = Duration::from_millis(100);

/// A driver that was not turned once in this time, and in as many tries, will not
/// be: whoever waits for it is to know. On a machine that is starved of processor
/// time there are fewer tries in any time.
const LAST_TRY_AFTER: Duration = Duration::from_secs(10);
const TRIES: u32 = 50;

/// Turns that have failed in a row.
#[derive(Debug, Default)]
pub(super) struct Failing {
    since: Option<Instant>,
    tries: u32,
    /// The last turn has only delivered, as far as is known.
    delivered: bool,
}

impl Failing {
    /// A turn has not failed; says whether another has to show that turns do not. One
    /// that delivers may do nothing else, and so tells nothing of the next; but no two
    /// of these come in a row.
    pub(super) fn ended(&mut self, delivered: bool) -> bool {
        if delivered && !self.delivered {
            self.delivered = true;
            return self.since.is_some();
        }
        *self = Self::default();
        false
    }

    /// A turn has failed: what comes next.
    pub(super) fn next(&mut self, error: DriverError) -> Next {
        self.delivered = false;
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.tries = self.tries.saturating_add(1);
        if self.tries >= TRIES && now - since >= LAST_TRY_AFTER {
            return Next::GiveUp(error);
        }
        Next::Wait(Some(now + RECOVERY))
    }
}
