//! One direction of a link: what is under way, and when it is due.

use super::LinkOptions;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets on their way, each with what the link wants to remember of it. They
/// keep their order.
#[derive(Debug)]
pub(super) struct Lane<N> {
    waiting: VecDeque<Waiting<N>>,
    free_at: Option<Instant>,
}

/// A packet on its way.
#[derive(Debug)]
pub(super) struct Waiting<N> {
    at: Instant,
    pub(super) packet: Vec<u8>,
    pub(super) note: N,
}

impl<N> Default for Lane<N> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), free_at: None }
    }
}

impl<N> Lane<N> {
    pub(super) fn push(&mut self, packet: Vec<u8>, note: N, now: Instant, options: LinkOptions) {
        let starts = self.free_at.map_or(now, |free| free.max(now));
        let takes = options.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(packet.len() as u64 * 1_000_000_000 / rate.max(1))
        });
        self.free_at = Some(starts + takes);
        self.waiting.push_back(Waiting { at: starts + takes + options.delay, packet, note });
    }

    /// The next packet, if its time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Waiting<N>> {
        self.waiting.front().filter(|waiting| waiting.at <= now)?;
        self.waiting.pop_front()
    }

    /// When the next packet is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.at)
    }
}

/// The same losses in each run, as far as the kernel's timers allow.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }
}

impl Dice {
    /// Xorshift: even enough for a thousandth.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(bound)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_and_rate_add_up() {
        let delay = Duration::from_millis(10);
        let options = LinkOptions { delay, loss: 0, rate: Some(1_000) };
        let (mut lane, now) = (Lane::default(), Instant::now());
        lane.push(vec![0; 100], 'a', now, options);
        lane.push(vec![0; 100], 'b', now, options);
        let first = now + delay + Duration::from_millis(100);
        assert_eq!(lane.next(), Some(first));
        assert!(lane.due(first - Duration::from_nanos(1)).is_none());
        assert_eq!(lane.due(first).map(|waiting| waiting.note), Some('a'));
        assert_eq!(lane.next(), Some(first + Duration::from_millis(100)), "one after the other");
    }

    #[test]
    fn dice_are_even_enough() {
        let mut dice = Dice::default();
        let hits = (0..100_000).filter(|_| dice.below(1000) < 10).count();
        assert!((800..1200).contains(&hits), "{hits} of 100,000 for one in a hundred");
    }
}
