//! Connections that wait for the driver's memory.

use lastbyte::{ConnectionId, Counters};
use std::collections::VecDeque;

/// So many are told in one turn: each may send at once.
const AT_ONCE: usize = 32;

/// Who was refused, the longest ago first. Whoever is refused again is last.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: VecDeque<ConnectionId>,
    /// So many of the first were refused before memory last came free.
    due: usize,
    /// Bytes that were outstanding when that was last looked at.
    outstanding: u64,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn enter(&mut self, connection: ConnectionId, counters: &Counters) {
        let before = if self.is_empty() { 0 } else { self.outstanding };
        self.outstanding = before.max(outstanding(counters));
        self.all.push_back(connection);
    }

    pub(super) fn leave(&mut self, connection: ConnectionId) {
        self.all.retain(|&other| other != connection);
        // One too many that is told only tries again.
        self.due = self.due.min(self.all.len());
    }

    /// Takes those that are to be told now, if there is less outstanding than before.
    pub(super) fn take(&mut self, counters: &Counters) -> impl Iterator<Item = ConnectionId> {
        let outstanding = outstanding(counters);
        if outstanding < self.outstanding {
            self.due = self.all.len();
        }
        self.outstanding = outstanding;
        let now = self.due.min(AT_ONCE);
        self.due -= now;
        self.all.drain(..now)
    }

    /// Whether more are to be told.
    pub(super) fn has_due(&self) -> bool {
        self.due > 0
    }
}

/// Not the `Released` that are told: ciphertext counts too, and of that nothing is.
fn outstanding(counters: &Counters) -> u64 {
    counters.unreleased_bytes + counters.ciphertext_bytes
}
