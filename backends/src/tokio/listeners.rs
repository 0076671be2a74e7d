//! Listeners that stop while too many connections wait to be taken.

use lastbyte::{Driver, ListenerId, RefuseReason, Socket};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// So many may wait before a listener stops.
const MOST: usize = 64;

/// It goes on when no more than these are left: not at each one, because both
/// take a call.
const FEW: usize = MOST / 2;

/// Pause after it could not go on. Nothing tells when it can.
const REST: Duration = Duration::from_millis(50);

/// What a listener is called here. The driver has another name for it each time
/// that it goes on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key(u64);

#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: HashMap<Key, Accepting>,
    names: HashMap<ListenerId, Key>,
    next: u64,
    /// Those that have come to hold too many, and are to be stopped.
    full: Vec<Key>,
    /// Those that could not go on.
    resting: Vec<Key>,
}

#[derive(Debug)]
struct Accepting {
    to: UnboundedSender<io::Result<Socket>>,
    untaken: usize,
    name: ListenerId,
    /// Its name before it last stopped: what was accepted then may still come.
    before: Option<ListenerId>,
    stopped: Option<TcpListener>,
    /// It could not go on, and is not tried before.
    rests_until: Option<Instant>,
}

impl Accepting {
    fn hand_on(&mut self, result: io::Result<Socket>) {
        // If nobody receives any more, it is about to be removed.
        self.untaken += usize::from(self.to.send(result).is_ok());
    }
}

impl Listeners {
    pub(super) fn add(&mut self, name: ListenerId, to: UnboundedSender<io::Result<Socket>>) -> Key {
        let key = Key(self.next);
        self.next += 1;
        self.names.insert(name, key);
        let (before, stopped, rests_until) = (None, None, None);
        self.all.insert(key, Accepting { to, untaken: 0, name, before, stopped, rests_until });
        key
    }

    /// Whether any is there, stopped or not.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn accepted(&mut self, name: ListenerId, result: io::Result<Socket>) {
        let Some(&key) = self.names.get(&name) else { return };
        let Some(accepting) = self.all.get_mut(&key) else { return };
        accepting.hand_on(result);
        if accepting.untaken == MOST {
            self.full.push(key);
        }
    }

    /// Stops those that hold too many. The others wait in the kernel, which has
    /// its own bound, and lets the peers know.
    pub(super) fn stop_full(&mut self, driver: &mut dyn Driver) {
        for key in self.full.drain(..) {
            let Some(accepting) = self.all.get_mut(&key) else { continue };
            if accepting.untaken >= MOST && accepting.stopped.is_none() {
                accepting.stopped = driver.unlisten(accepting.name);
            }
        }
    }

    /// One was taken: if there is room again, a listener that was stopped goes on.
    pub(super) fn taken(&mut self, key: Key, driver: &mut dyn Driver) {
        let Some(accepting) = self.all.get_mut(&key) else { return };
        accepting.untaken = accepting.untaken.saturating_sub(1);
        self.go_on(key, driver);
    }

    /// Tries those again that could not go on, and have rested.
    pub(super) fn try_again(&mut self, driver: &mut dyn Driver) {
        if self.resting.is_empty() {
            return;
        }
        let now = Instant::now();
        for key in std::mem::take(&mut self.resting) {
            let Some(accepting) = self.all.get_mut(&key) else { continue };
            if accepting.rests_until.is_some_and(|until| until > now) {
                self.resting.push(key);
            } else {
                accepting.rests_until = None;
                self.go_on(key, driver);
            }
        }
    }

    /// Whether a turn has something to do here, at once or before long.
    pub(super) fn need_a_turn(&self) -> bool {
        !self.full.is_empty() || !self.resting.is_empty()
    }

    /// When the next of them is to be tried.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.resting.iter().filter_map(|key| self.all.get(key)?.rests_until).min()
    }

    /// If there is room, a listener that was stopped goes on.
    fn go_on(&mut self, key: Key, driver: &mut dyn Driver) {
        let Some(accepting) = self.all.get_mut(&key) else { return };
        if accepting.untaken > FEW || accepting.rests_until.is_some() {
            return;
        }
        let Some(listener) = accepting.stopped.take() else { return };
        match driver.listen(listener) {
            Ok(name) => {
                self.names.insert(name, key);
                let before = accepting.before.replace(accepting.name);
                accepting.name = name;
                if let Some(before) = before {
                    self.names.remove(&before);
                }
            }
            Err(refused) => {
                accepting.stopped = Some(refused.value);
                accepting.rests_until = Some(Instant::now() + REST);
                self.resting.push(key);
                // Whoever has nothing to take is to know why.
                if accepting.untaken == 0 {
                    accepting.hand_on(Err(error(&refused.reason)));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, key: Key, driver: &mut dyn Driver) -> Option<TcpListener> {
        let accepting = self.all.remove(&key)?;
        self.names.remove(&accepting.name);
        if let Some(before) = accepting.before {
            self.names.remove(&before);
        }
        accepting.stopped.or_else(|| driver.unlisten(accepting.name))
    }
}

fn error(reason: &RefuseReason) -> io::Error {
    match reason {
        RefuseReason::System { errno, .. } => io::Error::from_raw_os_error(*errno),
        other => io::Error::other(other.clone()),
    }
}
