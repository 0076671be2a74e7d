//! What the driver sees.

use super::{NOWHERE, RETIRING, RingSelector};
use crate::ring::in_flight::Purpose;
use crate::ring::port::Port;
use crate::sockets::selector::{Completes, Done, Happening, Ready, Selector};
use crate::sys::event_fd::EventFd;
use crate::sys::ring::{PLACES, ReceiveBuffers, SendMemory, Way};
use lastbyte::{Arena, Counters, NotRegistered, Wake};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// When to ask a kernel again that would not start an operation, for want of
/// memory (`io_uring/io_uring.c`, `io_submit_sqes`).
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// A ring whose completions wait for its thread is entered this often, though neither
/// its flag nor its event tells of any. On Linux 6.12.117, under emulation on a busy
/// machine, one turn of some thousands left behind what neither told of, and what came
/// next on the ring did not tell either, until it was entered; not on 6.1, 6.18.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// So is one that is only ever turned without waiting, by turns.
const LOOK_AFTER_TURNS: u32 = 64;

impl Selector for RingSelector {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        self.forget_stale();
        let listens = crate::sockets::is_listener(token);
        let place = self.ports.insert(Port::new(fd.as_raw_fd(), token, listens));
        if self.places.len() <= token {
            self.places.resize(token + 1, NOWHERE);
        }
        self.places[token] = place;
        self.mark(place);
        Ok(())
    }

    fn remove(&mut self, _: BorrowedFd<'_>, token: usize) {
        let Some(place) = self.port(token) else { return };
        // The descriptor is somebody else's from now on, so nothing of ours may
        // be under way.
        self.forget_token(token);
        self.ports[place].token = None;
        self.cancel_all(place);
        if self.ports[place].busy > 0 {
            self.enter_until(|selector| {
                selector.ports.get(place).is_none_or(|port| port.token.is_some() || port.busy == 0)
            });
        } else {
            self.forget(place);
        }
    }

    fn retire(&mut self, _: BorrowedFd<'_>, token: usize) {
        let Some(place) = self.port(token) else { return };
        self.forget_token(token);
        let port = &mut self.ports[place];
        port.token = None;
        if port.busy == 0 {
            self.forget(place);
        } else {
            port.retired = Some(token);
            self.places[token] = RETIRING;
            self.retiring += 1;
            self.cancel_all(place);
        }
    }

    /// What this thread has started mostly ends with that. What another one has ends
    /// when that one, or a work item in place of one that is gone, gets to it
    /// (`io_uring/io_uring.c`, `io_req_normal_work_add`).
    fn end_retired(&mut self) {
        if self.retiring == 0 {
            return;
        }
        self.cancel_left();
        if self.started || self.ring.has_more() {
            // An error here would show again at the next turn.
            drop(self.ring.submit());
            self.started = !self.ring.has_handed_over();
        }
        self.reap();
    }

    fn is_retiring(&self, token: usize) -> bool {
        self.places.get(token) == Some(&RETIRING)
    }

    fn want(&mut self, token: usize, input: bool, output: bool) {
        let Some(place) = self.port(token) else { return };
        let port = &mut self.ports[place];
        let changed = port.wants_input != input;
        let output_changed = std::mem::replace(&mut port.wants_output, output) != output;
        port.wants_input = input;
        let input_matters = if port.listens {
            changed
        } else {
            // What receives ahead goes on, asked or not.
            input && port.input.is_none()
        };
        if input_matters || output_changed {
            self.mark(place);
        }
    }

    fn read_by_call(&mut self, token: usize, by_call: bool) {
        let Some(place) = self.port(token) else { return };
        self.ports[place].one_by_one = by_call;
        self.mark(place);
    }

    fn wait(&mut self, wait: Option<Duration>, happened: &mut Vec<Happening>) -> io::Result<()> {
        if let Some(buffers) = &mut self.buffers {
            buffers.fill_up(self.ahead.get());
        }
        self.start_wanted()?;
        // With a turn's worth of work at hand, nothing more is fetched.
        if self.waiting.len() < self.limit {
            let idle = self.waiting.is_empty()
                && self.stamps.is_empty()
                && self.starved.is_empty()
                && !self.woken;
            let wait = match wait {
                _ if !idle => Some(Duration::ZERO),
                // Nothing would tell of what could not be started.
                wait if self.is_behind() => {
                    Some(wait.map_or(TRY_AGAIN, |wait| wait.min(TRY_AGAIN)))
                }
                wait => wait,
            };
            self.idle_turns =
                if wait == Some(Duration::ZERO) { self.idle_turns.saturating_add(1) } else { 0 };
            let is_left = self.waker.announced().is_some()
                || self.ring.is_deferred() && self.idle_turns >= LOOK_AFTER_TURNS;
            let is_due = is_left || self.started || self.ring.has_more();
            if wait != Some(Duration::ZERO) || is_due {
                self.idle_turns = 0;
                let entered = self.ring.enter(wait);
                // The kernel may take less than it was handed, and would not say when
                // it takes more (`io_uring/io_uring.c`, `io_submit_sqes`).
                self.started = !self.ring.has_handed_over();
                entered?;
            }
            self.reap();
            if let Some(event) = self.waker.announced() {
                // Entering sets it too. What sets it after this look has not been seen,
                // and what did before shows in the next.
                event.clear();
            }
            self.more = self.ring.has_more();
        } else if self.started {
            // What was started does not wait until all of that is handled. (The kernel
            // puts nothing on a deferred ring for that: `io_uring/io_uring.c`,
            // `io_uring_enter`, without `IORING_ENTER_GETEVENTS`.)
            let handed_over = self.ring.hand_over();
            self.started = !self.ring.has_handed_over();
            handed_over?;
        }
        self.woken = false;
        if self.has_stale && !self.stamps.is_empty() {
            self.forget_stale();
        }
        happened.append(&mut self.stamps);
        let mut left = self.limit;
        while left > 0 {
            let Some(happening) = self.waiting.pop_front() else { break };
            if self.port(happening.token()).is_none() {
                continue;
            }
            left -= usize::from(!is_stamp(&happening));
            self.before_yielding(&happening);
            happened.push(self.as_of_now(happening));
        }
        Ok(())
    }

    fn is_pressed(&self) -> bool {
        self.started
            || self.more
            || !self.waiting.is_empty()
            || !self.stamps.is_empty()
            || self.is_behind() && !self.is_refused
    }

    fn looks_again_after(&self) -> Option<Duration> {
        let refused = self.is_refused.then_some(TRY_AGAIN);
        refused.or_else(|| self.waker.announced().map(|_| LOOK_AGAIN))
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        if !self.ring.is_deferred() {
            return Some(self.ring.as_fd());
        }
        if self.waker.announced().is_none() {
            let event = EventFd::new().ok()?;
            self.ring.announce(&event).ok()?;
            // What came before has not set it.
            event.set();
            self.waker.announce(event);
        }
        self.waker.announced().map(EventFd::as_fd)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn completes(&self) -> Completes {
        Completes {
            sends: self.uses.sends,
            zero_copy_sends: self.uses.zero_copy_sends,
            receives: self.buffers.is_some(),
            accepts: self.uses.accepts,
        }
    }

    fn send(&mut self, token: usize, memory: SendMemory, zero_copy: bool) {
        let Some(place) = self.port(token) else { return };
        let port = &mut self.ports[place];
        port.busy += 1;
        let (fd, call) = (port.fd, port.zero_copies);
        let purpose = if zero_copy { Purpose::SendZeroCopy { call } } else { Purpose::Send };
        let name = self.in_flight.start(place, purpose, Some(memory));
        self.started = true;
        let Some(memory) = self.in_flight.memory(name) else { return };
        let way = if !zero_copy && self.uses.vectored_sends && !memory.asks() {
            Way::Vectored
        } else if !zero_copy {
            Way::Copied
        } else if let Some(place) = self.registered.place_of(memory) {
            self.sent_registered += memory.len();
            Way::Registered(place)
        } else {
            Way::Pinned
        };
        if self.ring.send(fd, memory, way, name).is_err() {
            // No room, not even after a submission: as if the socket had none.
            self.ports[place].busy -= 1;
            if let Some(memory) = self.in_flight.withdraw(name) {
                let result = Err(io::ErrorKind::WouldBlock.into());
                let done = Done::Sent { memory, result };
                self.waiting.push_back(Happening::Done { token, done });
            }
        }
    }

    fn register(&mut self, arena: &Arena) -> Result<(), NotRegistered> {
        if !self.uses.fixed_buffers {
            return Err(NotRegistered::Unsupported);
        }
        if arena.is_empty() || self.registered.has(arena) {
            return Ok(());
        }
        let system = |errno| NotRegistered::System { bytes: arena.len(), errno };
        self.registered.add(&self.ring, arena).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => NotRegistered::TooMany { allowed: usize::from(PLACES) },
            errno => system(errno.unwrap_or(0)),
        })
    }

    fn unregister(&mut self, arena: &Arena) {
        if !self.registered.has(arena) {
            return;
        }
        // What was started and not handed over goes by its place in the table.
        if !self.ring.has_handed_over() {
            self.enter_until(|selector| selector.ring.has_handed_over());
        }
        if self.ring.has_handed_over() {
            // If the kernel keeps it, so is it kept.
            drop(self.registered.remove(&self.ring, arena));
        }
    }

    fn count(&self, counters: &mut Counters) {
        let size = self.buffers.as_ref().map_or(0, ReceiveBuffers::size);
        counters.received_ahead_bytes = (self.ahead.get() * size) as u64;
        (counters.submissions_full, counters.completions_full) = self.ring.full;
        counters.registered_bytes = self.registered.bytes();
        counters.sent_registered_bytes = self.sent_registered;
    }

    fn stop_accepting(&mut self, token: usize) -> Vec<TcpStream> {
        let Some(place) = self.port(token) else { return Vec::new() };
        self.ports[place].wants_input = false;
        if !self.has_stopped_input(place) {
            self.enter_until(|selector| selector.has_stopped_input(place));
        }
        let mut accepted = Vec::new();
        for happening in std::mem::take(&mut self.waiting) {
            match happening {
                Happening::Done { token: of, done: Done::Accepted(stream) } if of == token => {
                    accepted.push(stream);
                }
                other => self.waiting.push_back(other),
            }
        }
        accepted
    }
}

impl RingSelector {
    /// Whether something that is to be waited for could not be started.
    fn is_behind(&self) -> bool {
        !self.dirty.is_empty()
            || !self.starved.is_empty()
            || !self.uncancelled.is_empty()
            || !self.listens_to_waker
    }

    /// Whether no input is awaited any more; if it is, that is told to end.
    fn has_stopped_input(&mut self, place: usize) -> bool {
        let Some(input) = self.ports.get(place).and_then(|port| port.input) else { return true };
        if !input.cancelled {
            // If there was no room, there is more next time.
            drop(self.cancel_input(place, input));
        }
        false
    }

    /// What a happening means now that later ones may have come: a socket that
    /// the kernel receives from must not be read.
    fn as_of_now(&mut self, happening: Happening) -> Happening {
        let Happening::Ready(ready) = happening else { return happening };
        let Some(place) = self.port(ready.token) else { return happening };
        let port = &mut self.ports[place];
        if port.is_receiving() {
            let error = ready.error || ready.read_closed;
            return Happening::Ready(Ready { readable: false, read_closed: false, error, ..ready });
        }
        port.one_by_one |= ready.readable || ready.read_closed;
        happening
    }

    /// What came of a send has to be known before its stamps, these in their order,
    /// and what was received before anything else is read.
    fn before_yielding(&mut self, happening: &Happening) {
        let Some(place) = self.port(happening.token()) else { return };
        let Happening::Done { done, .. } = happening else { return self.mark(place) };
        let port = &mut self.ports[place];
        match done {
            Done::Sent { .. } => port.sent_waits = false,
            Done::Stamped(_) => port.stamps_wait = port.stamps_wait.saturating_sub(1),
            Done::Received(_) | Done::ReceiveEnded(_) => {
                port.untold = port.untold.saturating_sub(1)
            }
            _ => {}
        }
    }
}

fn is_stamp(happening: &Happening) -> bool {
    matches!(happening, Happening::Done { done: Done::Stamped(_), .. })
}
