//! When zero copy is worth trying (contract C9).

use crate::Time;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Decides per send whether to ask for zero copy.
///
/// Pinning pages and being told of their release costs more than copying a
/// small payload, and on paths where the kernel copies after all (loopback,
/// `tun`, packet taps, devices without scatter-gather) it costs for nothing.
/// So: only payloads of at least the threshold; and a route that copied
/// [`Self::LATCH_AFTER`] sends in a row is left alone, but for one probe after a
/// pause that doubles each time the probe is copied too.
#[derive(Debug)]
pub struct ZeroCopyPolicy {
    threshold: u64,
    routes: HashMap<IpAddr, Route>,
}

#[derive(Debug, Default)]
struct Route {
    copied_in_a_row: u32,
    latched: Option<Latch>,
}

#[derive(Clone, Copy, Debug)]
struct Latch {
    probe_at: Time,
    pause: Duration,
    /// A probe was sent and its outcome is not known.
    probing: bool,
}

impl ZeroCopyPolicy {
    /// Copied sends in a row that show a route to be one that copies.
    pub const LATCH_AFTER: u32 = 8;
    /// First pause before a latched route is probed again.
    pub const FIRST_PAUSE: Duration = Duration::from_secs(10);
    /// Longest pause before a latched route is probed again.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(640);
    /// Routes remembered; when there are more, all are forgotten and learnt
    /// anew. A route is a local address, so more is a host under attack or an
    /// unusual one, and either way memory stays bounded.
    const MAX_ROUTES: usize = 1024;

    /// Payloads of `threshold` bytes and more may go by zero copy.
    #[must_use]
    pub fn new(threshold: u64) -> Self {
        Self { threshold, routes: HashMap::new() }
    }

    /// Whether a payload of `len` bytes is long enough at all.
    #[must_use]
    pub fn long_enough(&self, len: u64) -> bool {
        len >= self.threshold
    }

    /// Whether `len` bytes from the local address `route` should be sent by
    /// zero copy now. A `true` for a latched route is its probe: the next one
    /// is only due after the pause.
    pub fn try_now(&mut self, route: IpAddr, len: u64, now: Time) -> bool {
        if !self.long_enough(len) {
            return false;
        }
        let Some(Route { latched: Some(latch), .. }) = self.routes.get_mut(&route) else {
            return true;
        };
        if now < latch.probe_at {
            return false;
        }
        latch.probe_at = now.after(latch.pause);
        latch.probing = true;
        true
    }

    /// The kernel said of `sends` sends on `route` whether it had `copied` them.
    pub fn learn(&mut self, route: IpAddr, sends: u32, copied: bool, now: Time) {
        if self.routes.len() >= Self::MAX_ROUTES && !self.routes.contains_key(&route) {
            self.routes.clear();
        }
        let route = self.routes.entry(route).or_default();
        if !copied {
            *route = Route::default();
            return;
        }
        route.copied_in_a_row = route.copied_in_a_row.saturating_add(sends);
        match &mut route.latched {
            // Late news of sends from before the latch must not lengthen it.
            Some(latch) if !latch.probing => {}
            Some(latch) => {
                latch.probing = false;
                latch.pause = Self::LONGEST_PAUSE.min(latch.pause * 2);
            }
            None if route.copied_in_a_row >= Self::LATCH_AFTER => {
                let pause = Self::FIRST_PAUSE;
                let probe_at = now.after(pause);
                route.latched = Some(Latch { probe_at, pause, probing: false });
            }
            None => {}
        }
    }

    /// Whether `route` is latched off.
    #[must_use]
    pub fn is_latched(&self, route: IpAddr) -> bool {
        self.routes.get(&route).is_some_and(|route| route.latched.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_route_that_copies_is_left_alone_and_probed_again() {
        let mut policy = ZeroCopyPolicy::new(10);
        for _ in 0..ZeroCopyPolicy::LATCH_AFTER {
            assert!(policy.try_now(HERE, 10, at(0)));
            policy.learn(HERE, 1, true, at(0));
        }
        assert!(!policy.try_now(HERE, 10, at(9)));
        assert!(policy.try_now(THERE, 10, at(9)), "another route is another matter");
        assert!(policy.try_now(HERE, 10, at(10)), "the probe");
        assert!(!policy.try_now(HERE, 10, at(10)), "only one");
        policy.learn(HERE, 1, false, at(11));
        assert!(policy.try_now(HERE, 10, at(11)), "it no longer copies");
    }

    #[test]
    fn a_probe_that_is_copied_doubles_the_pause() {
        let mut policy = ZeroCopyPolicy::new(10);
        policy.learn(HERE, 8, true, at(0));
        policy.learn(HERE, 1, true, at(1));
        assert!(policy.try_now(HERE, 10, at(10)));
        policy.learn(HERE, 1, true, at(10));
        assert!(policy.try_now(HERE, 10, at(20)), "the pause set before the news");
        assert!(!policy.try_now(HERE, 10, at(39)));
        assert!(policy.try_now(HERE, 10, at(40)));
    }

    #[test]
    fn short_payloads_are_copied() {
        assert!(!ZeroCopyPolicy::new(10).try_now(HERE, 9, at(0)));
    }
}
