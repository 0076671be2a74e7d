//! Having the driver's task look again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Set by anybody, awaited by one task.
#[derive(Debug, Default)]
pub(super) struct Nudge {
    is_set: AtomicBool,
    waits: Mutex<Option<Waker>>,
}

impl Nudge {
    pub(super) fn set(&self) {
        // Whoever has set it before and found it clear wakes the task.
        if self.is_set.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = self.waits.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready once for any number of times that it was set.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_set.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        {
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            if !waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waits = Some(cx.waker().clone());
            }
        }
        // It may have been set before the waker was there to be taken.
        if self.is_set.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}
