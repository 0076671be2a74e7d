//! Events on their way from a driver to what wraps it.

use lastbyte::{CompletionSink, Event};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a driver has said and nobody has heard yet: its sink, and the other end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<VecDeque<Event>>>);

impl Queue {
    /// Takes all there is, behind what is in `into`.
    pub(crate) fn take(&self, into: &mut VecDeque<Event>) {
        hand_over(&mut self.lock(), into);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CompletionSink for Queue {
    fn complete(&mut self, event: Event) {
        self.lock().push_back(event);
    }

    fn complete_all(&mut self, events: &mut VecDeque<Event>) {
        hand_over(events, &mut self.lock());
    }
}

fn hand_over(from: &mut VecDeque<Event>, to: &mut VecDeque<Event>) {
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
}
