//! What the handles of a driver share with the task that turns it.

use super::inbox::Inboxes;
use super::within::{self, Within};
use lastbyte::{Counters, Driver, DriverError, Event, RefuseReason, Refused};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

pub(super) struct Shared {
    state: Mutex<State>,
    /// Something was asked of the driver, or a user is gone.
    nudge: Notify,
    users: AtomicUsize,
    /// Why the task has given the driver up, if it has.
    failure: OnceLock<DriverError>,
}

pub(super) enum State {
    Turned(Turned),
    /// The task has ended, and the driver with it: what it had counted.
    Gone(Counters),
}

pub(super) struct Turned {
    pub(super) driver: Box<dyn Driver + Send>,
    pub(super) events: Receiver<Event>,
    pub(super) inboxes: Inboxes,
}

/// A share that keeps the driver being turned.
#[derive(Debug)]
pub(super) struct User(Arc<Shared>);

/// The task's share: however it ends, and if it never began, so does the driver.
#[derive(Debug)]
pub(super) struct Turner(Arc<Shared>);

impl Shared {
    /// Shares a driver between its first user and the task that is to turn it.
    pub(super) fn between(
        driver: Box<dyn Driver + Send>,
        events: Receiver<Event>,
    ) -> (User, Turner) {
        let turned = Turned { driver, events, inboxes: Inboxes::default() };
        let shared = Arc::new(Self {
            state: Mutex::new(State::Turned(turned)),
            nudge: Notify::new(),
            users: AtomicUsize::new(0),
            failure: OnceLock::new(),
        });
        (User::new(Arc::clone(&shared)), Turner(shared))
    }

    /// What its driver is called within this process.
    fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Lets `act` work with the driver, or says why not.
    fn with<T, R>(&self, value: T, act: impl FnOnce(&mut Turned, T) -> R) -> Result<R, Refused<T>> {
        if within::is_within(self.name()) {
            return Err(Refused::new(value, RefuseReason::WithinDriver));
        }
        let mut state = self.lock();
        let State::Turned(turned) = &mut *state else {
            return Err(Refused::new(value, RefuseReason::DriverGone));
        };
        let within = Within::begin(self.name(), turned.driver.counters());
        let result = act(turned, value);
        within.catch_up(turned);
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A driver outlives a panic; so does what was entered here before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turned {
    /// Drops the driver, tells what it still owed, and then that nothing else
    /// will come.
    fn end(self) {
        let Self { driver, events, mut inboxes } = self;
        drop(driver);
        for event in events.try_iter() {
            drop(inboxes.take(event));
        }
    }
}

impl User {
    fn new(shared: Arc<Shared>) -> Self {
        shared.users.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// Lets `act` ask something of the driver, and has it turned. `None` if it is
    /// gone; and if this comes out of its own work, which `act` is then put off to
    /// the end of.
    pub(super) fn ask<R>(&self, act: impl FnOnce(&mut Turned) -> R + 'static) -> Option<R> {
        match self.give(act, |turned, act| Ok(act(turned))) {
            Ok(result) => Some(result),
            Err(Refused { value: act, reason: RefuseReason::WithinDriver }) => {
                within::put_off(self.0.name(), |turned| drop(act(turned)));
                None
            }
            Err(_) => None,
        }
    }

    /// Lets `act` hand `value` to the driver, and has it turned.
    pub(super) fn give<T, R>(
        &self,
        value: T,
        act: impl FnOnce(&mut Turned, T) -> Result<R, Refused<T>>,
    ) -> Result<R, Refused<T>> {
        let result = self.0.with(value, act).and_then(|result| result);
        self.0.nudge.notify_one();
        result
    }

    pub(super) fn counters(&self) -> Counters {
        if let Some(counters) = within::counters(self.0.name()) {
            return counters;
        }
        match &*self.0.lock() {
            State::Turned(turned) => turned.driver.counters(),
            State::Gone(counters) => *counters,
        }
    }

    pub(super) fn failure(&self) -> Option<DriverError> {
        self.0.failure.get().cloned()
    }
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Released here and acquired by the task: it ends after the last call.
        self.0.users.fetch_sub(1, Ordering::Release);
        self.0.nudge.notify_one();
    }
}

impl Turner {
    /// Lets `act` work with the driver, or says why not.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Turned) -> R) -> Result<R, RefuseReason> {
        self.0.with((), |turned, ()| act(turned)).map_err(|refused| refused.reason)
    }

    /// Ends the driver because of `error`.
    pub(super) fn give_up(self, error: DriverError) {
        // Before anybody hears that it is over. It can only be said once.
        self.0.failure.set(error).unwrap_or_default();
    }

    pub(super) fn has_users(&self) -> bool {
        self.0.users.load(Ordering::Acquire) > 0
    }

    pub(super) async fn nudged(&self) {
        self.0.nudge.notified().await;
    }
}

impl Drop for Turner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let counters = match &*state {
            State::Turned(turned) => turned.driver.counters(),
            State::Gone(_) => return,
        };
        let ended = std::mem::replace(&mut *state, State::Gone(counters));
        drop(state);
        // What is dropped with it may ask something of the driver.
        if let State::Turned(turned) = ended {
            turned.end();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
