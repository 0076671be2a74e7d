//! What is being done, on standard error.

use super::note;
use std::cell::Cell;
use std::time::Instant;

/// How far a bench has come.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    done: Cell<usize>,
    steps: usize,
}

impl Progress {
    /// Nothing of `steps` is done.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self { began: Instant::now(), done: Cell::new(0), steps }
    }

    /// The next step begins.
    pub fn begin(&self, what: &str) {
        self.done.set(self.done.get() + 1);
        let seconds = self.began.elapsed().as_secs();
        note(&format!("bench: {seconds:>3} s, {} of {}: {what}", self.done.get(), self.steps));
    }
}
