//! What completions mean for the ports that they are of.

use super::{NOWHERE, RingSelector};
use crate::ring::in_flight::{Meaning, Purpose, Said};
use crate::ring::port::Port;
use crate::sockets::ahead::AheadCount;
use crate::sockets::selector::{Done, Happening, Ready};
use crate::sys::ring::{self, Completion, ReceiveBuffers, SendMemory};
use slab::Slab;
use std::collections::VecDeque;
use std::io;

impl RingSelector {
    /// Takes in what the kernel has to say.
    pub(super) fn reap(&mut self) {
        let Self {
            ring,
            in_flight,
            ports,
            buffers,
            ahead,
            waiting,
            stamps,
            dirty,
            starved,
            places,
            retiring,
            waker,
            listens_to_waker,
            woken,
            ..
        } = self;
        let mut told =
            Told { ports, places, buffers, ahead, waiting, stamps, dirty, starved, retiring };
        ring.reap(|completion| {
            let said = Said {
                result: completion.result,
                more: completion.more(),
                notification: completion.is_notification(),
            };
            match in_flight.said(completion.name, said) {
                Meaning::Nothing => {}
                Meaning::Plain { purpose: Purpose::Wake, .. } => {
                    waker.clear();
                    (*listens_to_waker, *woken) = (false, true);
                }
                Meaning::Plain { port, purpose, more } => {
                    told.plain(port, purpose, more, &completion);
                }
                Meaning::Sent { port, memory, result, pinned, released } => {
                    told.sent(port, memory, result, pinned, released);
                }
                Meaning::Released { port, call, copied } => told.released(port, call, copied),
            }
        });
    }
}

/// What a completion touches.
struct Told<'a> {
    ports: &'a mut Slab<Port>,
    places: &'a mut [usize],
    buffers: &'a mut Option<ReceiveBuffers>,
    ahead: &'a AheadCount,
    waiting: &'a mut VecDeque<Happening>,
    stamps: &'a mut Vec<Happening>,
    dirty: &'a mut VecDeque<usize>,
    starved: &'a mut VecDeque<usize>,
    retiring: &'a mut usize,
}

impl Told<'_> {
    fn plain(&mut self, place: usize, purpose: Purpose, more: bool, completion: &Completion) {
        let Some(port) = self.ports.get_mut(place) else { return };
        if !more {
            port.ended(purpose);
        }
        let token = port.token;
        match purpose {
            Purpose::Receive => self.received(place, completion),
            Purpose::Stamps => self.stamped(place, more, completion),
            Purpose::Accept => self.accepted(place, completion),
            // Polled again once the driver has been told, and has said what it wants then:
            // until then nothing would have changed.
            Purpose::Input | Purpose::Output | Purpose::Trouble
                if self.polled(place, completion.result) =>
            {
                return self.tidy(place);
            }
            _ => {}
        }
        if !more && token.is_some() {
            self.mark(place);
        }
        self.tidy(place);
    }

    fn received(&mut self, place: usize, completion: &Completion) {
        let port = &mut self.ports[place];
        let buffer =
            completion.buffer().zip(self.buffers.as_mut()).and_then(
                |(id, buffers)| match completion.value() {
                    Ok(len) if len > 0 => {
                        let buffer = buffers.take(id, len).map(|buffer| self.ahead.of(buffer));
                        // The next wait lends more; what one call brings in must
                        // not use up all of them, though.
                        if buffers.are_few() {
                            buffers.fill_up(self.ahead.get());
                        }
                        buffer
                    }
                    _ => {
                        buffers.give_back(id);
                        None
                    }
                },
            );
        let Some(token) = port.token else { return };
        let done = match (buffer, completion.value()) {
            (Some(buffer), _) => {
                if port.input_came() {
                    self.mark(place);
                }
                Done::Received(buffer)
            }
            (None, Ok(_)) => {
                (port.half_closed, port.input_ended) = (true, true);
                Done::ReceiveEnded(Ok(()))
            }
            (None, Err(error)) => match error.raw_os_error() {
                // Cancelled, by whomever; nothing there.
                Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => return,
                Some(libc::ENOBUFS) => {
                    if self.buffers.as_ref().is_some_and(ReceiveBuffers::are_tight) {
                        port.one_by_one = true;
                    } else {
                        port.is_starved = true;
                        self.starved.push_back(place);
                    }
                    return;
                }
                // The kernel does not receive like that from this socket.
                Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                    port.one_by_one = true;
                    return;
                }
                _ => {
                    (port.hung_up, port.input_ended) = (true, true);
                    Done::ReceiveEnded(Err(error))
                }
            },
        };
        self.ports[place].untold += 1;
        self.waiting.push_back(Happening::Done { token, done });
    }

    fn stamped(&mut self, place: usize, more: bool, completion: &Completion) {
        let port = &mut self.ports[place];
        let Some(token) = port.token else { return };
        if more {
            if let Some(stamp) = ring::stamp(completion) {
                let happening = Happening::Done { token, done: Done::Stamped(stamp) };
                if port.sent_waits || port.stamps_wait > 0 {
                    port.stamps_wait += 1;
                    self.waiting.push_back(happening);
                } else {
                    self.stamps.push(happening);
                }
            }
            return;
        }
        let cancelled = completion.result == -libc::ECANCELED;
        // Completions ran out of room: what is in the error queue stays there.
        let crowded = completion.result == -libc::ENOBUFS;
        port.no_stamps |= !cancelled && !crowded;
        let ready = Ready { token, error: true, ..Ready::default() };
        self.waiting.push_back(Happening::Ready(ready));
    }

    fn accepted(&mut self, place: usize, completion: &Completion) {
        let stream = ring::accepted(completion);
        let Some(token) = self.ports[place].token else { return };
        let done = match stream {
            Ok(stream) => Done::Accepted(stream),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return,
            Err(error) => Done::AcceptFailed(error),
        };
        self.waiting.push_back(Happening::Done { token, done });
    }

    /// Says whether there is something to tell.
    fn polled(&mut self, place: usize, result: i32) -> bool {
        let port = &mut self.ports[place];
        let Some(token) = port.token else { return false };
        let Ok(events) = libc::c_short::try_from(result) else { return false };
        if events < 0 {
            // Cancelled, by whomever: the next try shows what is left.
            return false;
        }
        let has = |event| events & event != 0;
        port.half_closed |= has(libc::POLLRDHUP);
        port.hung_up |= has(libc::POLLHUP | libc::POLLNVAL);
        self.waiting.push_back(Happening::Ready(Ready {
            token,
            readable: has(libc::POLLIN | libc::POLLHUP),
            writable: has(libc::POLLOUT | libc::POLLHUP),
            error: has(libc::POLLERR),
            read_closed: has(libc::POLLRDHUP | libc::POLLHUP),
            urgent: false,
        }));
        true
    }

    fn sent(
        &mut self,
        place: usize,
        memory: SendMemory,
        result: i32,
        pinned: Option<u32>,
        released: Option<bool>,
    ) {
        let Some(port) = self.ports.get_mut(place) else { return };
        port.busy = port.busy.saturating_sub(1);
        if pinned.is_some() {
            port.zero_copies = port.zero_copies.wrapping_add(1);
            port.pinned += u32::from(released.is_none());
        }
        if let Some(token) = port.token {
            port.sent_waits = true;
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            self.waiting.push_back(Happening::Done { token, done: Done::Sent { memory, result } });
            if let (Some(call), Some(copied)) = (pinned, released) {
                let done = Done::Released { call, copied };
                self.waiting.push_back(Happening::Done { token, done });
            }
        }
        self.tidy(place);
    }

    fn released(&mut self, place: usize, call: u32, copied: bool) {
        let Some(port) = self.ports.get_mut(place) else { return };
        port.pinned = port.pinned.saturating_sub(1);
        if let Some(token) = port.token {
            let done = Done::Released { call, copied };
            self.waiting.push_back(Happening::Done { token, done });
        }
        self.tidy(place);
    }

    fn mark(&mut self, place: usize) {
        let port = &mut self.ports[place];
        if !std::mem::replace(&mut port.is_dirty, true) {
            self.dirty.push_back(place);
        }
    }

    /// Lets go of what was retired and is at rest.
    fn tidy(&mut self, place: usize) {
        let port = &mut self.ports[place];
        if port.token.is_some() || port.busy > 0 {
            return;
        }
        if let Some(token) = port.retired.take() {
            self.places[token] = NOWHERE;
            *self.retiring -= 1;
        }
        if port.pinned == 0 {
            self.ports.remove(place);
        }
    }
}
