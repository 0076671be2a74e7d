//! Events on their way from ledgers to the sink.

use crate::{Completion, CompletionSink, Counters, Event};
use std::collections::VecDeque;

/// Holds a driver's events until it delivers them, and its counters.
///
/// One driver has one outbox; every ledger of it writes there. Events wait here
/// because a sink must never be called while a connection is being worked on.
#[derive(Debug, Default)]
pub struct Outbox {
    events: VecDeque<Event>,
    /// What the driver has done so far. Ledgers keep the payload figures.
    pub counters: Counters,
}

impl Outbox {
    /// Adds an event behind the others.
    pub fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Delivers every event and says how many there were. An event is taken out
    /// before the sink sees it, so a panic in the sink loses no other.
    pub fn deliver(&mut self, sink: &mut dyn CompletionSink) -> usize {
        let waiting = self.events.len();
        if waiting > 0 {
            sink.complete_all(&mut self.events);
        }
        waiting - self.events.len()
    }

    /// Events waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn complete(&mut self, completion: Completion) {
        self.events.push_back(Event::Transfer(completion));
    }
}
