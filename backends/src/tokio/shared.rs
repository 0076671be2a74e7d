//! What the handles of a driver share with the task that turns it.

use super::inbox::Inboxes;
use super::nudge::Nudge;
use super::within::{self, Within};
use crate::queue::Queue;
use lastbyte::{Completion, Counters, Driver, DriverError, Event, RefuseReason, Refused, Time};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

pub(super) struct Shared {
    state: Mutex<State>,
    /// Something was asked of the driver, or a user is gone.
    nudge: Nudge,
    users: AtomicUsize,
    /// As they were when the work under way, or the last, began.
    counters: Mutex<Counters>,
    /// A turn was due while this driver's work was under way.
    is_overdue: AtomicBool,
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
    /// What it has delivered.
    events: Queue,
    /// The same, on its way to the inboxes.
    heard: VecDeque<Event>,
    pub(super) inboxes: Inboxes,
    /// When the next turn is, whatever is asked of the driver until then.
    pub(super) next_turn: NextTurn,
}

/// When a driver is turned next if nobody nudges its task.
#[derive(Clone, Copy, Debug)]
pub(super) enum NextTurn {
    Soon,
    At(Time),
    /// When its descriptor is readable.
    WhenReadable,
    /// Nothing but time tells, so that whatever is asked of it may need one.
    Unwatched,
}

/// A share that keeps the driver being turned.
#[derive(Debug)]
pub(super) struct User(Arc<Shared>);

/// The task's share: however it ends, and if it never began, so does the driver.
#[derive(Debug)]
pub(super) struct Turner(Arc<Shared>);

impl Shared {
    /// Shares a driver between its first user and the task that is to turn it.
    pub(super) fn between(driver: Box<dyn Driver + Send>, events: Queue) -> (User, Turner) {
        let (inboxes, next_turn) = (Inboxes::default(), NextTurn::Soon);
        let turned = Turned { driver, events, heard: VecDeque::new(), inboxes, next_turn };
        let shared = Arc::new(Self {
            state: Mutex::new(State::Turned(turned)),
            nudge: Nudge::default(),
            users: AtomicUsize::new(0),
            counters: Mutex::default(),
            is_overdue: AtomicBool::new(false),
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
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = turned.driver.counters();
        let within = Within::begin(self.name());
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
    /// Hands on what the driver has delivered. What comes back nobody waits for: with
    /// it a payload is dropped, and the user's code runs, which may ask something of
    /// the driver.
    pub(super) fn hand_on(&mut self) -> Vec<Completion> {
        let Self { driver, events, heard, inboxes, .. } = self;
        events.take(heard);
        let mut unwanted = Vec::new();
        // What a panic of somebody's waker leaves is for the next time.
        while let Some(event) = heard.pop_front() {
            unwanted.extend(inboxes.take(event));
        }
        inboxes.tell_waiting(&**driver);
        unwanted
    }

    /// Whether what was asked needs a turn before the next one.
    fn needs_a_turn(&self) -> bool {
        let by = || self.driver.next_turn_by();
        let is_early = match self.next_turn {
            NextTurn::Soon => return false,
            NextTurn::At(at) => by().is_some_and(|by| by < at),
            NextTurn::WhenReadable => by().is_some(),
            NextTurn::Unwatched => true,
        };
        is_early || self.inboxes.has_more_to_tell() || self.inboxes.listeners.need_a_turn()
    }

    /// Drops the driver, tells what it still owed, and then that nothing else
    /// will come.
    fn end(self) {
        let Self { driver, events, mut heard, mut inboxes, .. } = self;
        drop(driver);
        events.take(&mut heard);
        for event in heard {
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
        let asked = self.0.with(value, |turned, value| {
            let result = act(turned, value);
            turned.driver.deliver();
            let unwanted = turned.hand_on();
            (result, unwanted, turned.needs_a_turn())
        });
        let (result, unwanted, needs_a_turn) = match asked {
            Ok((result, unwanted, needs_a_turn)) => (result, unwanted, needs_a_turn),
            Err(refused) => (Err(refused), Vec::new(), true),
        };
        if needs_a_turn || self.0.is_overdue.swap(false, Ordering::Relaxed) {
            self.0.nudge.set();
        }
        // Here others can use the driver.
        drop(unwanted);
        result
    }

    pub(super) fn counters(&self) -> Counters {
        if within::is_within(self.0.name()) {
            return *self.0.counters.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.0.nudge.set();
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

    /// The turn that is due has to wait for the present work, whose end nudges.
    pub(super) fn is_overdue(&self) {
        self.0.is_overdue.store(true, Ordering::Relaxed);
    }

    pub(super) fn poll_nudged(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.nudge.poll(cx)
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
