//! The task that turns a driver.

use super::alarm::Alarm;
use super::failing::Failing;
use super::shared::{NextTurn, Turned, Turner};
use crate::sys::poll::{self, Polled};
use crate::sys::pollable;
use lastbyte::{Completion, DriverError, RefuseReason, Turn};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Poll;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// How often a driver is turned that has nothing to be watched. Its brackets
/// are wider than that.
const TICK: Duration = Duration::from_millis(1);

/// What comes after a turn.
pub(super) enum Next {
    /// Another one.
    Now,
    /// Another one when there is something to do, or then.
    Wait(Option<Instant>),
    /// Nobody needs the driver any more.
    End,
    /// Nobody can use it any more.
    GiveUp(DriverError),
}

/// Starts it.
pub(super) fn start(turner: Turner) -> Result<(), DriverError> {
    let watched = watch(&turner)
        .map_err(|error| DriverError::new("watching the driver's descriptor", &error))?;
    tokio::spawn(run(turner, watched));
    Ok(())
}

fn watch(turner: &Turner) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let fd = turner.with(|turned| turned.driver.pollable().map(|fd| fd.try_clone_to_owned()));
    fd.ok().flatten().map(|fd| pollable::watch(fd?)).transpose()
}

async fn run(turner: Turner, watched: Option<AsyncFd<OwnedFd>>) {
    let mut failing = Failing::default();
    let mut alarm = Alarm::new();
    loop {
        let turn = || {
            let turn = |turned: &mut Turned| {
                turn(turned, &turner, watched.as_ref(), &mut failing, &mut alarm)
            };
            match turner.with(turn) {
                Ok((next, unwanted)) => {
                    // Here others can use the driver.
                    drop(unwanted);
                    next
                }
                // Its work has come to block on this runtime. It nudges at its end.
                Err(RefuseReason::WithinDriver) => {
                    turner.is_overdue();
                    Next::Wait(None)
                }
                Err(_) => Next::End,
            }
        };
        match catch_unwind(AssertUnwindSafe(turn)) {
            Ok(Next::End) => return,
            Ok(Next::GiveUp(error)) => return turner.give_up(error),
            // Others get their turn, too.
            Ok(Next::Now) => tokio::task::yield_now().await,
            Ok(Next::Wait(until)) => wait(&turner, watched.as_ref(), &mut alarm, until).await,
            Err(panic) => {
                // While a panic is under way a driver's end tells nobody.
                drop(turner);
                resume_unwind(panic);
            }
        }
    }
}

/// One turn, and the delivery of what came of it; what nobody waits for is left.
fn turn(
    turned: &mut Turned,
    turner: &Turner,
    watched: Option<&AsyncFd<OwnedFd>>,
    failing: &mut Failing,
    alarm: &mut Alarm,
) -> (Next, Vec<Completion>) {
    let turn = turned.driver.turn(Some(Duration::ZERO));
    let unwanted = turned.hand_on();
    let Turned { driver, inboxes, .. } = turned;
    inboxes.listeners.stop_full(&mut **driver);
    inboxes.listeners.try_again(&mut **driver);
    let next = match turn {
        Ok(turn) => {
            let has_to_show = failing.ended(turn.delivered > 0);
            let turn = Turn { more: turn.more || has_to_show, ..turn };
            next(turn, turned, turner, watched, alarm)
        }
        Err(error) => {
            turned.next_turn = NextTurn::WhenReadable;
            failing.next(error)
        }
    };
    (next, unwanted)
}

fn next(
    turn: Turn,
    turned: &mut Turned,
    turner: &Turner,
    watched: Option<&AsyncFd<OwnedFd>>,
    alarm: &mut Alarm,
) -> Next {
    let Turned { driver, inboxes, next_turn, .. } = turned;
    let is_idle = inboxes.listeners.is_empty() && driver.counters().connections == 0;
    if is_idle && !turner.has_users() {
        return Next::End;
    }
    let has_more = turn.more || inboxes.has_more_to_tell();
    let by = driver.next_turn_by();
    // A runtime's timer goes by milliseconds, and would make it one or two.
    let is_due = || by.is_some_and(|by| by <= driver.now());
    if has_more || is_due() || watched.is_some_and(is_readable) {
        *next_turn = NextTurn::Soon;
        return Next::Now;
    }
    *next_turn = match by {
        _ if watched.is_none() => NextTurn::Unwatched,
        Some(by) => NextTurn::At(by),
        None => NextTurn::WhenReadable,
    };
    let soon = by.map(|by| alarm.at(by, || driver.now()));
    let tick = (watched.is_none() && !is_idle).then(|| Instant::now() + TICK);
    let listening = inboxes.listeners.next_try();
    Next::Wait([soon, tick, listening].into_iter().flatten().min())
}

/// Asked because a runtime tells only of what becomes readable, and one turn
/// does not always do everything.
fn is_readable(watched: &AsyncFd<OwnedFd>) -> bool {
    let mut polled = [Polled::new(watched.get_ref().as_raw_fd())];
    polled[0].want(true, false);
    poll::wait(&mut polled, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
}

/// Until the driver's descriptor is readable, somebody nudges, or it is `until`.
async fn wait(
    turner: &Turner,
    watched: Option<&AsyncFd<OwnedFd>>,
    alarm: &mut Alarm,
    until: Option<Instant>,
) {
    poll_fn(|cx| {
        if turner.poll_nudged(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(Poll::Ready(readable)) = watched.map(|watched| watched.poll_read_ready(cx)) {
            // What becomes readable from here on is not forgotten by this.
            if let Ok(mut guard) = readable {
                guard.clear_ready();
            }
            return Poll::Ready(());
        }
        alarm.poll(until, cx)
    })
    .await;
}
