//! The driver: tables, turns, and the order of work in a turn.

use super::connection::Connection;
use super::context::Context;
use super::listener::Listener;
use super::selector::{Done, Happening, Selector};
use super::table::Table;
use crate::facilities::Facilities;
use crate::sys::protocol;
use lastbyte::{
    AttachOptions, Attached, CompletionSink, ConnectionId, ControlRecord, Counters, Driver,
    DriverConfig, DriverError, Event, FailReason, Limit, ListenerId, Moment, NotRegistered,
    OffloadError, OffloadOptions, Offloaded, Payload, Pool, RefuseReason, Refused, Socket, Time,
    TlsSession, TrafficKeys, TransferId, Transport, Turn, Wake, Watch,
};
use slab::Slab;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the drop of a driver waits for the kernel to let go of memory that
/// it then has to leak, and how often at the least: on a machine that is starved of
/// processor time each wait takes longer, and the kernel needs longer as well.
const LAST_WAIT: Duration = Duration::from_millis(200);
const WAITS: u32 = 100;

/// How long an end is held back at the most, if the kernel does not let go of the
/// connection.
const LONGEST_HELD: Duration = Duration::from_millis(200);

pub(crate) struct SocketDriver<S: Selector, K: CompletionSink> {
    selector: S,
    sink: K,
    cx: Context,
    connections: Table,
    listeners: Slab<Listener>,
    /// Slots of connections that are gone, and that the kernel still has to do with.
    retired: Vec<usize>,
    /// Their ends, and until when they are not told yet.
    held: VecDeque<(Event, Time)>,
    generation: u32,
    happened: Vec<Happening>,
    /// The last turn delivered, and looked at no socket.
    delivered_only: bool,
    /// When the driver last began to wait.
    waited_at: Time,
}

impl<S: Selector, K: CompletionSink> SocketDriver<S, K> {
    pub(crate) fn new(selector: S, sink: K, config: DriverConfig, facilities: Facilities) -> Self {
        let completes = selector.completes();
        Self {
            selector,
            sink,
            cx: Context::new(config, facilities, completes),
            connections: Table::default(),
            listeners: Slab::new(),
            retired: Vec::new(),
            held: VecDeque::new(),
            generation: 0,
            happened: Vec::new(),
            delivered_only: false,
            waited_at: Time::default(),
        }
    }

    /// A connection that the user still knows.
    fn known(&mut self, id: ConnectionId) -> Result<&mut Connection, RefuseReason> {
        self.connections
            .get_mut(id.slot() as usize)
            .filter(|connection| connection.id == id && connection.phase.is_known())
            .ok_or(RefuseReason::UnknownConnection)
    }

    /// From now on input is read by calls, and none of it ahead.
    fn read_by_call(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if !std::mem::replace(&mut connection.by_call, true) {
            self.selector.read_by_call(connection.token, true);
        }
    }

    /// Lets `act` work on a known connection, then tidies up after it.
    fn with<R>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Context) -> R,
    ) -> Result<R, RefuseReason> {
        self.known(id)?;
        let slot = id.slot() as usize;
        let result = act(&mut self.connections[slot], &mut self.cx);
        self.tidy(slot);
        Ok(result)
    }

    /// Lets `act` work on the owner of `token`, if it still exists.
    fn with_token(
        &mut self,
        token: usize,
        on_connection: impl FnOnce(&mut Connection, &mut Context),
        on_listener: impl FnOnce(&mut Listener, &mut Context),
    ) {
        let slot = token / 2;
        if is_listener(token) {
            if let Some(listener) = self.listeners.get_mut(slot) {
                on_listener(listener, &mut self.cx);
                self.tidy_listener(slot);
            }
        } else if let Some(connection) = active(&mut self.connections, slot) {
            on_connection(connection, &mut self.cx);
            self.tidy(slot);
        }
    }

    /// Tells the selector what is worth reporting, or removes what is gone.
    fn tidy(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let token = connection.token;
        if connection.phase.is_gone() {
            return self.retire(slot);
        }
        // Whoever reads from a socket that cannot connect takes its error away.
        let reads =
            !connection.connecting && (connection.wants_input || connection.discards_input());
        let input = reads && !connection.has_input() && !connection.input_ended;
        let output = !connection.writable && (connection.connecting || connection.has_output());
        let prepared = connection.take_prepared();
        self.selector.want(token, input, output);
        if let Some((memory, zero_copy)) = prepared {
            self.selector.send(token, memory, zero_copy);
        }
    }

    fn retire(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let token = connection.token;
        self.selector.retire(connection.stream.as_fd(), token);
        self.cx.outbox.counters.connections -= 1;
        if self.selector.is_retiring(token) {
            self.retired.push(slot);
        } else {
            self.connections.remove(slot);
        }
    }

    /// Closes what was retired, unless the kernel still has to do with it.
    fn close_retired(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        self.selector.end_retired();
        let Self { selector, connections, retired, .. } = self;
        retired.retain(|&slot| {
            let is_retiring =
                connections.get(slot).is_some_and(|gone| selector.is_retiring(gone.token));
            if !is_retiring {
                connections.remove(slot);
            }
            is_retiring
        });
    }

    /// Tells the ends that were held back for long enough.
    fn tell_held(&mut self) -> usize {
        let held = self.held.len();
        if held == 0 {
            return 0;
        }
        let now = self.cx.time();
        for _ in 0..held {
            let Some((event, until)) = self.held.pop_front() else { break };
            if until > now && is_early(&event, &self.connections) {
                self.held.push_back((event, until));
            } else {
                self.sink.complete(event);
            }
        }
        held - self.held.len()
    }

    /// Tells everything but the ends of connections that are not closed yet.
    fn tell(&mut self) -> usize {
        if self.retired.is_empty() {
            return self.cx.outbox.deliver(&mut self.sink);
        }
        let until = self.cx.time().after(LONGEST_HELD);
        let Self { sink, connections, held, .. } = self;
        let before = held.len();
        let told = self.cx.outbox.deliver(&mut Holding { sink, connections, held, until });
        told + before - self.held.len()
    }

    /// When there is something to do whatever happens.
    fn next_alarm(&self) -> Option<Time> {
        let held = self.held.front().map(|(_, until)| *until);
        [self.cx.timers.next(), held].into_iter().flatten().min()
    }

    fn tidy_listener(&mut self, slot: usize) {
        let listener = &self.listeners[slot];
        self.selector.want(listener.token, listener.wants_more(), false);
    }

    fn wait(&mut self, wait: Option<Duration>) -> Option<Duration> {
        if !self.cx.again.is_empty() || !self.cx.outbox.is_empty() {
            // Alarms are held against what is read after this.
            self.waited_at = self.cx.recent();
            return Some(Duration::ZERO);
        }
        self.waited_at = self.cx.time();
        let until_alarm = self.next_alarm().map(|at| at.since(self.waited_at));
        match (wait, until_alarm) {
            (Some(wait), Some(alarm)) => Some(wait.min(alarm)),
            (wait, alarm) => wait.or(alarm),
        }
    }

    fn handle_happened(&mut self) {
        let mut happened = std::mem::take(&mut self.happened);
        // Whatever was done was done by now, and what stamps date was before.
        let completes = happened.iter().any(|what| matches!(what, Happening::Done { .. }));
        let now = if completes { self.cx.now_with_clock().0 } else { Moment::default() };
        for happening in happened.drain(..) {
            match happening {
                Happening::Ready(ready) => self.with_token(
                    ready.token,
                    |connection, cx| connection.ready(ready, cx),
                    Listener::ready,
                ),
                Happening::Done { token, done } => self.handle_done(token, done, now),
            }
        }
        self.happened = happened;
    }

    fn handle_done(&mut self, token: usize, done: Done, now: Moment) {
        let slot = token / 2;
        if is_listener(token) {
            if let Some(listener) = self.listeners.get_mut(slot) {
                listener.done(done, &mut self.cx);
                self.tidy_listener(slot);
            }
        } else if let Some(connection) = active(&mut self.connections, slot) {
            let stamped = matches!(done, Done::Stamped(_));
            connection.done(done, now, &mut self.cx);
            // One that is in use wants after a stamp what it wanted before.
            if !stamped || !connection.phase.is_open() {
                self.tidy(slot);
            }
        }
    }

    /// Of the first `waiting`, who had more to do before this turn, as many as are its
    /// share get one go. Those that are gone by now do not count, so they do not pile up.
    fn handle_again(&mut self, waiting: usize) {
        let mut left = share_of_turn(&self.cx.config);
        for _ in 0..waiting {
            if left == 0 {
                return;
            }
            let Some(token) = self.cx.again.pop_front() else { return };
            left -= usize::from(self.go_again(token));
        }
    }

    /// Says whether there was something to do: a token may be of one that is gone, or
    /// of its successor, who has an entry of its own.
    fn go_again(&mut self, token: usize) -> bool {
        let went = Cell::new(false);
        self.with_token(
            token,
            |connection, cx| {
                went.set(std::mem::take(&mut connection.in_again));
                if went.get() {
                    connection.go_on(None, cx);
                }
            },
            |listener, cx| {
                went.set(std::mem::take(&mut listener.in_again));
                if went.get() {
                    listener.accept(cx);
                }
            },
        );
        went.get()
    }

    fn handle_alarms(&mut self) {
        if self.cx.timers.next().is_none() {
            return;
        }
        self.weed_alarms();
        // Whoever had something to do has mostly read the clock.
        let recent = self.cx.recent();
        let now = if recent > self.waited_at { recent } else { self.cx.time() };
        for _ in 0..self.cx.config.events_per_turn {
            let Some((at, token)) = self.cx.timers.due(now) else { return };
            self.with_token(
                token,
                |connection, cx| connection.alarm(at, cx),
                |listener, cx| listener.alarm(at, cx),
            );
        }
    }

    fn weed_alarms(&mut self) {
        let owners = self.connections.len() + self.listeners.len();
        if self.cx.timers.len() <= 64 + 4 * owners {
            return;
        }
        let (connections, listeners) = (&self.connections, &self.listeners);
        self.cx.timers.retain(|at, token| {
            if is_listener(token) {
                listeners.contains(token / 2)
            } else {
                connections.get(token / 2).is_some_and(|owner| owner.armed == Some(at))
            }
        });
    }

    fn fail_all(&mut self, reason: &FailReason) {
        for slot in 0..self.connections.slots() {
            if let Some(connection) = active(&mut self.connections, slot) {
                connection.die(reason, &mut self.cx);
                self.tidy(slot);
            }
        }
    }

    /// Waits a little for memory that the kernel still references, then leaks it.
    fn reclaim_all(&mut self) {
        let started = Instant::now();
        let mut waits = 0;
        while self.connections.len() > 0 && (waits < WAITS || started.elapsed() < LAST_WAIT) {
            waits += 1;
            // An error would only mean that the wait was shorter.
            drop(self.selector.wait(Some(Duration::from_millis(1)), &mut self.happened));
            self.handle_happened();
            for slot in 0..self.connections.slots() {
                if let Some(connection) = active(&mut self.connections, slot) {
                    connection.drain_error_queue(&mut self.cx);
                    connection.progress_phase(&mut self.cx);
                    self.tidy(slot);
                }
            }
            self.close_retired();
        }
        let never = Time::from_nanos(u64::MAX);
        for slot in 0..self.connections.slots() {
            if let Some(connection) = active(&mut self.connections, slot) {
                connection.suppose_sent(&mut self.cx);
                connection.enforce_deadline(never, &mut self.cx);
                connection.progress_phase(&mut self.cx);
                self.tidy(slot);
            }
        }
    }
}

impl<S: Selector, K: CompletionSink> Driver for SocketDriver<S, K> {
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        if let Err(error) = protocol::expect_tcp(listener.as_fd()) {
            return Err(Refused::new(listener, system("SO_PROTOCOL", &error)));
        }
        let entry = self.listeners.vacant_entry();
        let (slot, token) = (entry.key(), entry.key() * 2 + 1);
        let added = listener
            .set_nonblocking(true)
            .and_then(|()| self.selector.add(listener.as_fd(), token));
        if let Err(error) = added {
            return Err(Refused::new(listener, system("polling the listener", &error)));
        }
        let id = ListenerId::new(u32::try_from(slot).unwrap_or(u32::MAX), self.generation);
        self.generation = self.generation.wrapping_add(1);
        entry.insert(Listener::new(listener, id, token));
        self.selector.want(token, true, false);
        Ok(id)
    }

    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener> {
        let slot = listener.slot() as usize;
        self.listeners.get(slot).filter(|owner| owner.id == listener)?;
        let accepted = self.selector.stop_accepting(self.listeners[slot].token);
        let mut listener = self.listeners.try_remove(slot)?;
        listener.hand_on_all(accepted, &mut self.cx);
        self.selector.remove(listener.socket.as_fd(), listener.token);
        Some(listener.socket)
    }

    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>> {
        let outstanding = (self.connections.len() - self.retired.len()) as u64;
        let allowed = u64::from(self.cx.config.max_connections);
        if outstanding >= allowed {
            let limit = Limit::Connections;
            let reason = RefuseReason::BackPressure { limit, outstanding, allowed };
            return Err(Refused::new(socket, reason));
        }
        let slot = self.connections.vacant();
        let token = slot * 2;
        if let Err(error) = self.selector.add(socket.as_fd(), token) {
            return Err(Refused::new(socket, system("polling the socket", &error)));
        }
        let id = ConnectionId::new(u32::try_from(slot).unwrap_or(u32::MAX), self.generation);
        match Connection::attach(socket, id, token, options, &mut self.cx) {
            Ok(connection) => {
                let stages = connection.stages;
                self.connections.insert(connection);
                self.generation = self.generation.wrapping_add(1);
                self.cx.outbox.counters.connections += 1;
                self.tidy(slot);
                Ok(Attached { connection: id, stages })
            }
            Err(refused) => {
                self.selector.remove(refused.value.as_fd(), token);
                Err(refused)
            }
        }
    }

    fn register(&mut self, pool: &Pool) -> Result<(), NotRegistered> {
        self.selector.register(pool.arena().ok_or(NotRegistered::NotContiguous)?)
    }

    fn unregister(&mut self, pool: &Pool) {
        if let Some(arena) = pool.arena() {
            self.selector.unregister(arena);
        }
    }

    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        let outstanding = self.cx.outbox.counters.unreleased_bytes;
        let allowed = self.cx.config.max_memory;
        if outstanding > 0 && outstanding + payload.memory_len() > allowed {
            let limit = Limit::DriverMemory;
            let reason = RefuseReason::BackPressure { limit, outstanding, allowed };
            return Err(Refused::new(payload, reason));
        }
        // The payload must come back whole if there is no such connection.
        if let Err(reason) = self.known(connection) {
            return Err(Refused::new(payload, reason));
        }
        let slot = connection.slot() as usize;
        let result = self.connections[slot].submit(payload, watch, &mut self.cx);
        self.tidy(slot);
        result
    }

    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        let owner = self.known(connection)?;
        if owner.by_call && !owner.opens() {
            owner.by_call = false;
            let token = owner.token;
            self.selector.read_by_call(token, false);
        }
        self.with(connection, Connection::receive)?
    }

    fn receive_at_most(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
    ) -> Result<(), RefuseReason> {
        let owner = self.known(connection)?;
        if owner.may_have_read_ahead() {
            let what = "input may have been taken ahead already";
            return Err(RefuseReason::Unsupported { what });
        }
        self.read_by_call(connection.slot() as usize);
        self.with(connection, |connection, cx| connection.receive_at_most(bytes, cx))?
    }

    fn offload_tls(
        &mut self,
        connection: ConnectionId,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        if let Err(reason) = self.known(connection) {
            return Err(OffloadError::Refused(Refused::new(session, reason)));
        }
        let slot = connection.slot() as usize;
        let result = self.connections[slot].offload(session, options, &mut self.cx);
        // Whoever receives for such a socket has to say where the types of records
        // go, which only a call does.
        if matches!(&result, Ok(offloaded) if offloaded.receive == Transport::KernelTls) {
            self.read_by_call(slot);
        }
        self.tidy(slot);
        result
    }

    fn submit_record(
        &mut self,
        connection: ConnectionId,
        record: ControlRecord,
    ) -> Result<(), Refused<ControlRecord>> {
        if let Err(reason) = self.known(connection) {
            return Err(Refused::new(record, reason));
        }
        let slot = connection.slot() as usize;
        let result = self.connections[slot].submit_record(record, &mut self.cx);
        self.tidy(slot);
        result
    }

    fn update_transmit_key(
        &mut self,
        connection: ConnectionId,
        message: ControlRecord,
        keys: TrafficKeys,
    ) -> Result<(), Refused<TrafficKeys>> {
        if let Err(reason) = self.known(connection) {
            return Err(Refused::new(keys, reason));
        }
        let slot = connection.slot() as usize;
        let result = self.connections[slot].update_transmit_key(message, keys, &mut self.cx);
        self.tidy(slot);
        result
    }

    fn update_receive_key(
        &mut self,
        connection: ConnectionId,
        keys: TrafficKeys,
    ) -> Result<(), RefuseReason> {
        self.with(connection, |connection, cx| connection.update_receive_key(&keys, cx))?
    }

    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.with(connection, Connection::finish_stream)
    }

    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason> {
        self.with(connection, |connection, cx| connection.close(within, cx))
    }

    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.with(connection, |connection, cx| connection.die(&FailReason::Cancelled, cx))
    }

    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError> {
        self.connections.turn_begins();
        // What submissions have brought about is delivered without a look at
        // the sockets: the user's reaction may be to submit more, and one wait
        // for all of it is cheaper than two.
        // But not twice in a row, or a user who submits at each delivery would
        // keep everybody else waiting.
        let delivered = self.deliver();
        self.delivered_only = delivered > 0 && !self.delivered_only;
        if self.delivered_only {
            return Ok(Turn { delivered, more: !self.cx.again.is_empty() });
        }
        self.cx.start_turn();
        let wait = self.wait(if delivered > 0 { Some(Duration::ZERO) } else { wait });
        self.selector
            .wait(wait, &mut self.happened)
            .map_err(|error| DriverError::new("waiting for readiness", &error))?;
        let waiting = self.cx.again.len();
        self.handle_happened();
        self.handle_again(waiting);
        self.handle_alarms();
        let delivered = delivered + self.deliver();
        Ok(Turn { delivered, more: !self.cx.again.is_empty() })
    }

    fn deliver(&mut self) -> usize {
        // Whoever hears that a connection is closed may rely on it.
        self.close_retired();
        let delivered = self.tell_held() + self.tell();
        self.connections.delivered();
        delivered
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.selector.pollable()
    }

    fn next_turn_by(&self) -> Option<Time> {
        if self.cx.again.is_empty() && self.cx.outbox.is_empty() && !self.selector.is_pressed() {
            let again = self.selector.looks_again_after().map(|most| self.waited_at.after(most));
            [self.next_alarm(), again].into_iter().flatten().min()
        } else {
            Some(self.now())
        }
    }

    fn now(&self) -> Time {
        self.cx.time()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.selector.waker()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.cx.outbox.counters;
        self.selector.count(&mut counters);
        counters
    }
}

/// Resets what is open, tells what is owed, and leaks what the kernel keeps.
impl<S: Selector, K: CompletionSink> Drop for SocketDriver<S, K> {
    fn drop(&mut self) {
        self.fail_all(&FailReason::Closed);
        self.close_retired();
        if self.connections.len() > 0 {
            self.reclaim_all();
        }
        // A sink that panics while a panic is under way would end the process.
        if !std::thread::panicking() {
            self.deliver();
            while let Some((event, _)) = self.held.pop_front() {
                self.sink.complete(event);
            }
        }
    }
}

/// A connection that has something to do; one that is retired has not.
fn active(connections: &mut Table, slot: usize) -> Option<&mut Connection> {
    connections.get_mut(slot).filter(|connection| !connection.phase.is_gone())
}

/// Whether this is the end of a connection that is not closed yet.
fn is_early(event: &Event, connections: &Table) -> bool {
    let Event::Closed { connection: id, .. } = event else { return false };
    let owner = connections.get(id.slot() as usize);
    owner.is_some_and(|owner| owner.id == *id && owner.phase.is_gone())
}

/// Hands on all but early ends. Nothing else follows the end of a connection, so
/// what is told of each stays in order.
struct Holding<'a, K> {
    sink: &'a mut K,
    connections: &'a Table,
    held: &'a mut VecDeque<(Event, Time)>,
    until: Time,
}

impl<K: CompletionSink> CompletionSink for Holding<'_, K> {
    fn complete(&mut self, event: Event) {
        if is_early(&event, self.connections) {
            self.held.push_back((event, self.until));
        } else {
            self.sink.complete(event);
        }
    }
}

impl<S: Selector, K: CompletionSink> fmt::Debug for SocketDriver<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketDriver")
            .field("selector", &self.selector)
            .field("connections", &self.connections.len())
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

/// How many sockets a turn handles for either cause: see
/// [`DriverConfig::events_per_turn`].
pub(crate) fn share_of_turn(config: &DriverConfig) -> usize {
    (config.events_per_turn / 2).max(1)
}

/// Tokens of connections are even, of listeners odd.
pub(crate) fn is_listener(token: usize) -> bool {
    token % 2 == 1
}

fn system(doing: &'static str, error: &std::io::Error) -> RefuseReason {
    RefuseReason::System { doing, errno: error.raw_os_error().unwrap_or(0) }
}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<TcpStream>();
    is_send::<SocketDriver<super::mio_selector::MioSelector, Box<dyn CompletionSink + Send>>>();
};
