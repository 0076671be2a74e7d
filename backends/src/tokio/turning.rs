//! The task that turns a driver.

use super::handle::{Shared, Turned};
use crate::sys::poll::{self, Polled};
use crate::sys::pollable;
use lastbyte::DriverError;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// How often a driver is turned that has nothing to be watched. Its brackets
/// are wider than that.
const TICK: Duration = Duration::from_millis(1);

/// Pause after a turn that failed. The driver stays usable, and the kernel may
/// be short of something for a moment.
const RECOVERY: Duration = Duration::from_millis(100);

/// What comes after a turn.
enum Next {
    /// Another one.
    Now,
    /// Another one when there is something to do, or then.
    Wait(Option<Instant>),
    /// Nobody needs the driver any more.
    End,
}

/// Starts it.
pub(super) fn start(shared: Arc<Shared>) -> Result<(), DriverError> {
    let watched = watch(&shared)
        .map_err(|error| DriverError::new("watching the driver's descriptor", &error))?;
    tokio::spawn(run(shared, watched));
    Ok(())
}

fn watch(shared: &Shared) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(fd) = shared.lock().driver.pollable().map(|fd| fd.try_clone_to_owned()) else {
        return Ok(None);
    };
    Ok(Some(pollable::watch(fd?)?))
}

async fn run(shared: Arc<Shared>, watched: Option<AsyncFd<OwnedFd>>) {
    loop {
        match turn(&shared, watched.as_ref()) {
            Next::End => return,
            // Others get their turn, too.
            Next::Now => tokio::task::yield_now().await,
            Next::Wait(until) => wait(&shared, watched.as_ref(), until).await,
        }
    }
}

/// One turn, and the delivery of what came of it.
fn turn(shared: &Shared, watched: Option<&AsyncFd<OwnedFd>>) -> Next {
    let mut guard = shared.lock();
    let Turned { driver, events, inboxes, listeners } = &mut *guard;
    let turned = driver.turn(Some(Duration::ZERO));
    for event in events.try_iter() {
        inboxes.take(event);
    }
    let Ok(turned) = turned else { return Next::Wait(Some(Instant::now() + RECOVERY)) };
    let is_idle = *listeners == 0 && driver.counters().connections == 0;
    if is_idle && !shared.has_users() {
        return Next::End;
    }
    if turned.more || turned.delivered > 0 || watched.is_some_and(is_readable) {
        return Next::Now;
    }
    let soon = driver.next_turn_by().map(|by| Instant::now() + by.since(driver.now()));
    let tick = (watched.is_none() && !is_idle).then(|| Instant::now() + TICK);
    Next::Wait([soon, tick].into_iter().flatten().min())
}

/// Asked because a runtime tells only of what becomes readable, and one turn
/// does not always do everything.
fn is_readable(watched: &AsyncFd<OwnedFd>) -> bool {
    let mut polled = [Polled::new(watched.get_ref().as_raw_fd())];
    polled[0].want(true, false);
    poll::wait(&mut polled, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
}

async fn wait(shared: &Shared, watched: Option<&AsyncFd<OwnedFd>>, until: Option<Instant>) {
    let readable = async {
        match watched {
            // What became readable since it was asked is not forgotten by this.
            Some(watched) => {
                if let Ok(mut guard) = watched.readable().await {
                    guard.clear_ready();
                }
            }
            None => std::future::pending().await,
        }
    };
    let late = async {
        match until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readable => {}
        () = late => {}
        () = shared.nudged() => {}
    }
}
