//! What a thread is in the midst of.
//!
//! A driver runs code of its users: a TLS provider's, a file's, that of memory which
//! is dropped. If such code asks something of the same driver, that must not wait
//! for its own caller.

use super::shared::Turned;
use std::cell::RefCell;

/// What is to be told when the present work is done.
pub(super) type Later = Box<dyn FnOnce(&mut Turned)>;

#[derive(Debug)]
struct Work {
    driver: usize,
    later: Laters,
}

#[derive(Default)]
struct Laters(Vec<Later>);

thread_local! {
    /// The innermost last: work for one driver may run code that asks another.
    static WORK: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
}

/// A thread works for a driver while it has this.
#[derive(Debug)]
pub(super) struct Within {
    driver: usize,
    /// Whether that is written down.
    is_known: bool,
}

impl Within {
    pub(super) fn begin(driver: usize) -> Self {
        let work = Work { driver, later: Laters::default() };
        // A thread that is ending may still drop what it has of a driver.
        let written = WORK.try_with(|all| all.borrow_mut().push(work));
        Self { driver, is_known: written.is_ok() }
    }

    /// Does what was put off meanwhile, and what that puts off.
    pub(super) fn catch_up(&self, turned: &mut Turned) {
        loop {
            let later = find(self.driver, |work| std::mem::take(&mut work.later.0));
            let Some(later) = later.filter(|later| !later.is_empty()) else { return };
            for act in later {
                act(turned);
            }
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        if !self.is_known {
            return;
        }
        // What was put off and not done, because of a panic, may have code of its
        // own to run, which must find the list free.
        let ended = WORK.try_with(|work| work.borrow_mut().pop());
        drop(ended);
    }
}

/// Whether this thread works for `driver`.
pub(super) fn is_within(driver: usize) -> bool {
    find(driver, |_| ()).is_some()
}

/// Puts `act` off until this thread's work for `driver` is done.
pub(super) fn put_off(driver: usize, act: impl FnOnce(&mut Turned) + 'static) {
    find(driver, |work| work.later.0.push(Box::new(act))).unwrap_or_default();
}

fn find<R>(driver: usize, act: impl FnOnce(&mut Work) -> R) -> Option<R> {
    // A thread that is ending works for nobody.
    let found = WORK.try_with(|work| {
        let mut work = work.borrow_mut();
        work.iter_mut().rfind(|work| work.driver == driver).map(act)
    });
    found.ok().flatten()
}

impl std::fmt::Debug for Laters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Laters").field(&self.0.len()).finish()
    }
}
