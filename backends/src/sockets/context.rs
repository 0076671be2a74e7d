//! What the connections of a driver share.

use super::backend::receive_buffer;
use super::selector::Completes;
use super::timers::Timers;
use crate::facilities::Facilities;
use crate::sys::clock;
use crate::sys::ring::SendMemory;
use lastbyte::{ClockMap, DriverConfig, Moment, Outbox, Pool, Time, ZeroCopyPolicy};
use std::cell::Cell;
use std::collections::VecDeque;

/// Bytes of a file that are read at once: large enough that the two calls cost
/// little beside the copying, small enough to stay in the cache between them.
const PIECE: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: DriverConfig,
    pub(super) facilities: Facilities,
    pub(super) completes: Completes,
    pub(super) outbox: Outbox,
    pub(super) policy: ZeroCopyPolicy,
    pub(super) buffers: Pool,
    pub(super) timers: Timers,
    /// Tokens that have more to do than their turn allowed.
    pub(super) again: VecDeque<usize>,
    /// For the selector to send from.
    pub(super) spare_memory: Vec<SendMemory>,
    /// For reading files where `sendfile` is lacking; empty until needed.
    piece: Vec<u8>,
    clock: ClockMap,
    /// Both clocks were compared in this turn.
    clock_is_fresh: bool,
    /// The newest reading of the clock.
    recent: Cell<Time>,
}

impl Context {
    pub(super) fn new(
        mut config: DriverConfig,
        facilities: Facilities,
        completes: Completes,
    ) -> Self {
        // With nothing at a time nothing would ever get done.
        config.write_burst = config.write_burst.max(1);
        config.events_per_turn = config.events_per_turn.max(2);
        config.receive_buffer = receive_buffer(&config);
        config.accept_burst = config.accept_burst.max(1);
        Self {
            facilities,
            completes,
            outbox: Outbox::default(),
            policy: ZeroCopyPolicy::new(config.zero_copy_threshold),
            // One turn reads at most this many before the user can drop any.
            buffers: Pool::new(config.receive_buffer, config.events_per_turn),
            timers: Timers::default(),
            again: VecDeque::new(),
            spare_memory: Vec::new(),
            piece: Vec::new(),
            clock: clock::map(),
            clock_is_fresh: true,
            recent: Cell::default(),
            config,
        }
    }

    pub(super) fn start_turn(&mut self) {
        self.clock_is_fresh = false;
    }

    /// The buffer for pieces of files, to be put back.
    pub(super) fn take_piece(&mut self) -> Vec<u8> {
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(PIECE, 0);
        piece
    }

    pub(super) fn put_piece(&mut self, piece: Vec<u8>) {
        self.piece = piece;
    }

    pub(super) fn now(&mut self) -> Moment {
        let now = self.time();
        if self.clock.is_old(now) {
            self.compare_clocks();
        }
        self.clock.moment(self.recent())
    }

    pub(super) fn time(&self) -> Time {
        self.recent.set(clock::monotonic());
        self.recent.get()
    }

    /// The newest reading of the clock, whatever it was for.
    pub(super) fn recent(&self) -> Time {
        self.recent.get()
    }

    /// The map for converting stamps, as it was compared last.
    pub(super) fn clock(&self) -> ClockMap {
        self.clock
    }

    /// Now, and the map for converting stamps, compared anew once a turn.
    pub(super) fn now_with_clock(&mut self) -> (Moment, ClockMap) {
        if self.clock_is_fresh {
            return (self.now(), self.clock);
        }
        self.compare_clocks();
        (self.clock.moment(self.recent()), self.clock)
    }

    fn compare_clocks(&mut self) {
        let (before, wall, after) = clock::sample();
        self.clock.sample(before, wall, after);
        self.clock_is_fresh = true;
        self.recent.set(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::{BackendKind, Report, Support, UnixTime};
    use std::time::{Duration, SystemTime};

    /// Without stamps nothing else compares the clocks.
    #[test]
    fn a_wall_clock_that_was_set_is_followed() {
        let report = Report::new(String::new(), |_| Support::Have);
        let facilities = Facilities::of(&report, BackendKind::Fallback);
        let mut cx = Context::new(DriverConfig::default(), facilities, Completes::default());
        let long_ago = Time::default();
        cx.clock = ClockMap::new(long_ago, UnixTime::default(), long_ago);
        let before = SystemTime::now();
        let wall = SystemTime::from(cx.now().wall);
        assert!(wall + Duration::from_secs(1) > before, "it is {before:?}, not {wall:?}");
    }
}
