//! A selector that does not only wait: it accepts, receives, sends, and takes
//! stamps, in one call a turn.

use super::in_flight::{InFlight, Meaning, Purpose, Said};
use super::port::{Input, Port};
use crate::facilities::RingUse;
use crate::readiness::selector::{Completes, Done, Happening, Ready, Selector};
use crate::sys::event_fd::EventFd;
use crate::sys::poll;
use crate::sys::ring::{
    self, Completion, Interest, NOBODY, ReceiveBuffers, Ring, SendMemory, Wish,
};
use lastbyte::{DriverConfig, Pool, Wake};
use slab::Slab;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ring of a driver. Operations beyond its entries take a submission more.
/// Completions beyond its room the kernel keeps for longer, which is slow, and
/// repeating operations end.
pub(crate) const FULL: Wish = Wish { entries: 512, completions: 4096, deferred: false };

/// Buffers that the kernel may fill between two turns.
const BUFFERS: u16 = 256;

/// Where a token that is not known has its port.
const NOWHERE: usize = usize::MAX;

/// How long the end of a ring waits for operations to end that have been told
/// to; what they refer to is leaked after that.
const LAST_WAIT: Duration = Duration::from_millis(200);

pub(crate) struct RingSelector {
    ring: Ring,
    uses: RingUse,
    in_flight: InFlight<SendMemory>,
    ports: Slab<Port>,
    /// The port of each token.
    places: Vec<usize>,
    /// Ports that want something else than before.
    dirty: Vec<usize>,
    /// Retired ports whose connections are still open.
    closing: usize,
    /// What has happened and was not told.
    waiting: VecDeque<Happening>,
    /// Stamps that need not wait, and must not: whoever looks at a socket has to
    /// know of all that were taken before. So has who reads the error queue,
    /// where later ones are.
    stamps: Vec<Happening>,
    /// Happenings that one wait yields at the most; stamps do not count.
    limit: usize,
    /// After the ring, which must be closed before.
    buffers: Option<ReceiveBuffers>,
    waker: Arc<EventWaker>,
    listens_to_waker: bool,
    /// Something was started that the kernel has not been told of.
    started: bool,
    /// The kernel had more to say than was there to be taken out.
    more: bool,
    /// Set by the kernel when a turn is due, once somebody has asked for it.
    announced: OnceCell<EventFd>,
}

impl RingSelector {
    /// A ring for `config`, `bound` to the calling thread or not.
    pub(crate) fn new(
        config: &DriverConfig,
        uses: RingUse,
        bound: bool,
        limit: usize,
    ) -> io::Result<Self> {
        let deferred = bound && uses.deferred;
        let wish = Wish { deferred, ..FULL };
        Self::with_queues(config, uses, wish, limit)
    }

    /// The same with queues of these sizes.
    pub(super) fn with_queues(
        config: &DriverConfig,
        mut uses: RingUse,
        wish: Wish,
        limit: usize,
    ) -> io::Result<Self> {
        let mut ring = Ring::new(wish)?;
        uses.stamps &= ring.is_wide();
        let buffers = if uses.receives {
            let pool = Pool::new(config.receive_buffer.max(1), usize::from(BUFFERS));
            Some(ReceiveBuffers::register(&mut ring, &pool, BUFFERS)?)
        } else {
            None
        };
        Ok(Self {
            ring,
            uses,
            in_flight: InFlight::new(),
            ports: Slab::new(),
            places: Vec::new(),
            dirty: Vec::new(),
            closing: 0,
            waiting: VecDeque::new(),
            stamps: Vec::new(),
            limit,
            buffers,
            waker: Arc::new(EventWaker(EventFd::new()?)),
            listens_to_waker: false,
            started: false,
            more: false,
            announced: OnceCell::new(),
        })
    }

    fn port(&mut self, token: usize) -> Option<usize> {
        self.places.get(token).copied().filter(|&place| place != NOWHERE)
    }

    /// Nobody hears under this name any more, until it names somebody else, who
    /// must not hear what was meant for the one before.
    fn forget_token(&mut self, token: usize) {
        self.places[token] = NOWHERE;
        self.waiting.retain(|happening| happening.token() != token);
        self.stamps.retain(|happening| happening.token() != token);
    }

    fn mark(&mut self, place: usize) {
        if let Some(port) = self.ports.get_mut(place)
            && !std::mem::replace(&mut port.is_dirty, true)
        {
            self.dirty.push(place);
        }
    }

    /// Starts what the ports that changed their mind are to wait for. If the
    /// kernel takes no more for now, the rest has to wait for the next turn.
    fn start_wanted(&mut self) -> io::Result<()> {
        match self.try_start_wanted() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            other => other,
        }
    }

    fn try_start_wanted(&mut self) -> io::Result<()> {
        if !self.listens_to_waker {
            let fd = self.waker.0.as_raw_fd();
            self.start(NOWHERE, Purpose::Wake, |ring, name| {
                ring.poll(fd, Interest::Input, false, name)
            })?;
            self.listens_to_waker = true;
        }
        while let Some(&place) = self.dirty.last() {
            self.look_after(place)?;
            self.dirty.pop();
            if let Some(port) = self.ports.get_mut(place) {
                port.is_dirty = false;
            }
        }
        Ok(())
    }

    /// Starts an operation of a port, and says what it is called.
    fn start(
        &mut self,
        place: usize,
        purpose: Purpose,
        operation: impl FnOnce(&mut Ring, u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let name = self.in_flight.start(place, purpose, None);
        if let Err(error) = operation(&mut self.ring, name) {
            drop(self.in_flight.withdraw(name));
            return Err(error);
        }
        self.started = true;
        if let Some(port) = self.ports.get_mut(place) {
            port.busy += 1;
        }
        Ok(name)
    }

    fn look_after(&mut self, place: usize) -> io::Result<()> {
        let Some(port) = self.ports.get(place).filter(|port| port.token.is_some()) else {
            return Ok(());
        };
        let (listens, idle) = (port.listens, port.input.is_none());
        let accepts = listens && self.uses.accepts;
        let receives = !listens && self.buffers.is_some() && !port.one_by_one;
        if port.wants_input && idle {
            self.begin_input(place, accepts, receives)?;
        } else if let Some(input) = port.input.filter(|input| !input.cancelled)
            && (accepts && !port.wants_input
                || port.one_by_one && input.purpose == Purpose::Receive)
        {
            self.cancel_input(place, input)?;
        }
        let port = &self.ports[place];
        if listens || port.hung_up {
            return Ok(());
        }
        let (fd, repeatedly) = (port.fd, port.half_closed);
        let stamps = self.uses.stamps && !port.no_stamps;
        // Receiving tells of errors and the peer's end, too.
        let watches = !stamps || port.input.is_none();
        let output = port.wants_output && port.output.is_none();
        let trouble = watches && port.trouble.is_none();
        let stamps = stamps && port.stamps.is_none();
        let polls_for_output = port.wants_output && port.output.is_some();
        if polls_for_output && repeatedly && poll::has_room(port) {
            // The poll that goes on told of that before it was wanted.
            let token = port.token.unwrap_or(NOWHERE);
            let ready = Ready { token, writable: true, ..Ready::default() };
            self.waiting.push_back(Happening::Ready(ready));
        }
        if output {
            self.ports[place].output = Some(self.start(place, Purpose::Output, |ring, name| {
                ring.poll(fd, Interest::Output, repeatedly, name)
            })?);
        }
        if stamps {
            let name = self.start(place, Purpose::Stamps, |ring, name| ring.stamps(fd, name))?;
            self.ports[place].stamps = Some(name);
        }
        if trouble {
            self.ports[place].trouble =
                Some(self.start(place, Purpose::Trouble, |ring, name| {
                    ring.poll(fd, Interest::Trouble, repeatedly, name)
                })?);
        }
        Ok(())
    }

    fn begin_input(&mut self, place: usize, accepts: bool, receives: bool) -> io::Result<()> {
        let fd = self.ports[place].fd;
        let group = self.buffers.as_ref().map_or(0, ReceiveBuffers::group);
        let purpose = match (accepts, receives) {
            (true, _) => Purpose::Accept,
            (_, true) => Purpose::Receive,
            _ => Purpose::Input,
        };
        let name = self.start(place, purpose, |ring, name| match purpose {
            Purpose::Accept => ring.accept(fd, name),
            Purpose::Receive => ring.receive(fd, group, name),
            _ => ring.poll(fd, Interest::Input, false, name),
        })?;
        self.ports[place].input = Some(Input { name, purpose, cancelled: false });
        Ok(())
    }

    fn cancel_input(&mut self, place: usize, input: Input) -> io::Result<()> {
        self.ring.cancel(input.name, NOBODY)?;
        self.started = true;
        self.ports[place].input = Some(Input { cancelled: true, ..input });
        Ok(())
    }

    /// Takes in what the kernel has to say.
    fn reap(&mut self) {
        let Self {
            ring,
            in_flight,
            ports,
            buffers,
            waiting,
            stamps,
            dirty,
            closing,
            waker,
            listens_to_waker,
            ..
        } = self;
        let mut told = Told { ports, buffers, waiting, stamps, dirty, closing };
        ring.reap(|completion| {
            let said = Said {
                result: completion.result,
                more: completion.more(),
                notification: completion.is_notification(),
            };
            match in_flight.said(completion.name, said) {
                Meaning::Nothing => {}
                Meaning::Plain { purpose: Purpose::Wake, .. } => {
                    waker.0.clear();
                    *listens_to_waker = false;
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

    /// Waits for the completions of a port that was told to end, but not for
    /// ever.
    fn enter_until(&mut self, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            // An error here would show again at the next turn.
            let entered = self.ring.enter(Some(Duration::from_millis(2)));
            self.reap();
            if done(self) || entered.is_err() || began.elapsed() > LAST_WAIT {
                return;
            }
        }
    }

    /// Tells everything that operations of a port go by to end.
    fn cancel_all(&mut self, place: usize) {
        let armed: Vec<u64> = self.ports[place].armed().collect();
        for name in armed {
            // If there is no room even for that, the ring's end waits for it.
            drop(self.ring.cancel(name, NOBODY));
            self.started = true;
        }
    }
}

/// What a completion touches.
struct Told<'a> {
    ports: &'a mut Slab<Port>,
    buffers: &'a mut Option<ReceiveBuffers>,
    waiting: &'a mut VecDeque<Happening>,
    stamps: &'a mut Vec<Happening>,
    dirty: &'a mut Vec<usize>,
    closing: &'a mut usize,
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
            Purpose::Input | Purpose::Output | Purpose::Trouble => {
                self.polled(place, completion.result);
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
                    Ok(len) if len > 0 => buffers.take(id, len),
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
                port.half_closed = true;
                Done::ReceiveEnded(Ok(()))
            }
            (None, Err(error)) => match error.raw_os_error() {
                // Cancelled, by whomever; no buffer was left; nothing there.
                Some(libc::ECANCELED | libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => return,
                // The kernel does not receive like that from this socket.
                Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                    port.one_by_one = true;
                    return;
                }
                _ => {
                    port.hung_up = true;
                    Done::ReceiveEnded(Err(error))
                }
            },
        };
        self.waiting.push_back(Happening::Done { token, done });
    }

    fn stamped(&mut self, place: usize, more: bool, completion: &Completion) {
        let port = &mut self.ports[place];
        let Some(token) = port.token else { return };
        if more {
            if let Some(stamp) = ring::stamp(completion) {
                let happening = Happening::Done { token, done: Done::Stamped(stamp) };
                if port.sent_waits {
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

    fn polled(&mut self, place: usize, result: i32) {
        let port = &mut self.ports[place];
        let Some(token) = port.token else { return };
        let Ok(events) = libc::c_short::try_from(result) else { return };
        if events < 0 {
            // Cancelled, by whomever: the next try shows what is left.
            return;
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
        }));
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
            self.dirty.push(place);
        }
    }

    /// Closes what was retired and is at rest.
    fn tidy(&mut self, place: usize) {
        let port = &mut self.ports[place];
        if port.token.is_some() || port.busy > 0 {
            return;
        }
        *self.closing -= usize::from(port.closing.take().is_some());
        if port.pinned == 0 {
            self.ports.remove(place);
        }
    }
}

impl Selector for RingSelector {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        let listens = crate::readiness::is_listener(token);
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

    fn retire(&mut self, stream: TcpStream, token: usize) {
        let Some(place) = self.port(token) else { return };
        self.forget_token(token);
        let port = &mut self.ports[place];
        port.token = None;
        if port.busy == 0 {
            drop(stream);
            self.forget(place);
        } else {
            port.closing = Some(stream);
            self.closing += 1;
            self.cancel_all(place);
        }
    }

    fn close_retired(&mut self) {
        if self.closing > 0 {
            self.enter_until(|selector| selector.closing == 0);
        }
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

    fn wait(&mut self, wait: Option<Duration>, happened: &mut Vec<Happening>) -> io::Result<()> {
        self.start_wanted()?;
        if let Some(event) = self.announced.get() {
            event.clear();
        }
        // With a turn's worth of work at hand, nothing more is fetched.
        if self.waiting.len() < self.limit {
            let idle = self.waiting.is_empty() && self.stamps.is_empty();
            let wait = if idle { wait } else { Some(Duration::ZERO) };
            if wait != Some(Duration::ZERO) || self.started || self.ring.has_more() {
                self.started = false;
                self.ring.enter(wait)?;
            }
            self.reap();
            self.more = self.ring.has_more();
        }
        happened.append(&mut self.stamps);
        let mut left = self.limit;
        while left > 0 {
            let Some(happening) = self.waiting.pop_front() else { break };
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
            || !self.dirty.is_empty()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        if self.announced.get().is_none() {
            let event = EventFd::new().ok()?;
            self.ring.announce(&event).ok()?;
            // What came before has not set it.
            event.set();
            drop(self.announced.set(event));
        }
        self.announced.get().map(EventFd::as_fd)
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
        if self.ring.send(fd, memory, zero_copy, name).is_err() {
            // No room, not even after a submission: as if the socket had none.
            self.ports[place].busy -= 1;
            if let Some(memory) = self.in_flight.withdraw(name) {
                let result = Err(io::ErrorKind::WouldBlock.into());
                let done = Done::Sent { memory, result };
                self.waiting.push_back(Happening::Done { token, done });
            }
        }
    }

    fn stop_accepting(&mut self, token: usize) -> Vec<TcpStream> {
        let Some(place) = self.port(token) else { return Vec::new() };
        self.ports[place].wants_input = false;
        if let Some(input) = self.ports[place].input {
            drop(self.cancel_input(place, input));
            self.enter_until(|selector| {
                selector.ports.get(place).is_none_or(|port| port.input.is_none())
            });
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
    /// What a happening means now that later ones may have come: a socket that
    /// the kernel receives from must not be read.
    fn as_of_now(&self, happening: Happening) -> Happening {
        match happening {
            Happening::Ready(ready) => {
                let place = self.places.get(ready.token).copied().unwrap_or(NOWHERE);
                let receiving = self.ports.get(place).is_some_and(Port::is_receiving);
                if receiving {
                    let error = ready.error || ready.read_closed;
                    Happening::Ready(Ready { readable: false, read_closed: false, error, ..ready })
                } else {
                    Happening::Ready(ready)
                }
            }
            done @ Happening::Done { .. } => done,
        }
    }

    /// What came of a send has to be known before its stamps.
    fn before_yielding(&mut self, happening: &Happening) {
        if let Happening::Done { token, done: Done::Sent { .. } } = happening
            && let Some(place) = self.port(*token)
        {
            self.ports[place].sent_waits = false;
        }
    }

    /// Forgets a port that nothing is under way for.
    fn forget(&mut self, place: usize) {
        let port = &self.ports[place];
        if port.pinned == 0 {
            self.ports.remove(place);
        }
    }
}

/// Ends everything that is under way. What the kernel does not let go of is
/// leaked: freed, it could be written to, or sent, with other content.
impl Drop for RingSelector {
    fn drop(&mut self) {
        let places: Vec<usize> = self.ports.iter().map(|(place, _)| place).collect();
        for place in places {
            self.ports[place].token = None;
            self.cancel_all(place);
        }
        self.waker.0.set();
        self.enter_until(|selector| selector.in_flight.len() == 0);
        if self.in_flight.len() > 0 {
            self.in_flight.leak();
            std::mem::forget(self.buffers.take());
        }
    }
}

impl std::fmt::Debug for RingSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSelector")
            .field("ring", &self.ring)
            .field("uses", &self.uses)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

fn is_stamp(happening: &Happening) -> bool {
    matches!(happening, Happening::Done { done: Done::Stamped(_), .. })
}

#[derive(Debug)]
struct EventWaker(EventFd);

impl Wake for EventWaker {
    fn wake(&self) {
        self.0.set();
    }
}
