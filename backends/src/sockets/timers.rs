//! When to look after which connection.

use lastbyte::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Alarms by slot. An alarm cannot be taken back: whoever gets it looks whether
/// it still means something, and when stale ones pile up, they are weeded. That
/// makes arming cheap, and a connection that is always busy arms one alarm per
/// period, not one per transfer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, usize)>>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Time, token: usize) {
        self.heap.push(Reverse((at, token)));
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Alarms, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Drops the alarms that do not count any more.
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Time, usize) -> bool) {
        self.heap.retain(|Reverse((at, token))| counts(*at, *token));
    }

    /// Takes out an alarm that is due, with the time it was armed for.
    pub(crate) fn due(&mut self, now: Time) -> Option<(Time, usize)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(alarm)| alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_in_order_and_when_due() {
        let at = Time::from_nanos;
        let mut timers = Timers::default();
        timers.arm(at(30), 3);
        timers.arm(at(10), 1);
        timers.arm(at(20), 2);
        assert_eq!(timers.due(at(20)), Some((at(10), 1)));
        assert_eq!(timers.due(at(20)), Some((at(20), 2)));
        assert_eq!(timers.due(at(20)), None);
        assert_eq!(timers.next(), Some(at(30)));
    }
}
