//! The driver: the inner one, and the TLS connections on it.

use super::connection::Connection;
use super::context::Context;
use super::handshake::TlsProvider;
use crate::queue::Queue;
use lastbyte::{
    AttachOptions, Attached, CompletionSink, ConnectionId, ControlRecord, Counters, Driver,
    DriverError, Event, Limit, ListenerId, NotRegistered, OffloadError, OffloadOptions,
    OffloadWish, Offloaded, Payload, Pool, RefuseReason, Refused, Socket, Time, TlsRole,
    TlsSession, TrafficKeys, TransferId, Turn, Wake, Watch,
};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// A driver that may be movable or not.
pub(super) trait Inner {
    fn get(&self) -> &dyn Driver;
    fn get_mut(&mut self) -> &mut dyn Driver;
}

impl Inner for Box<dyn Driver> {
    fn get(&self) -> &dyn Driver {
        &**self
    }

    fn get_mut(&mut self) -> &mut dyn Driver {
        &mut **self
    }
}

impl Inner for Box<dyn Driver + Send> {
    fn get(&self) -> &dyn Driver {
        &**self
    }

    fn get_mut(&mut self) -> &mut dyn Driver {
        &mut **self
    }
}

/// The order of the fields matters: the inner driver is dropped first, and
/// what it then says reaches the user when the rest is dropped.
pub(super) struct TlsDriver<I, K: CompletionSink> {
    inner: I,
    provider: Arc<dyn TlsProvider>,
    attach_as: TlsRole,
    layer: Layer<K>,
}

/// Records and keys of a connection with TLS are not its user's to handle.
const ITS_OWN_AFFAIR: RefuseReason =
    RefuseReason::Unsupported { what: "the driver handles the TLS of this connection itself" };

/// All but the inner driver.
struct Layer<K: CompletionSink> {
    queue: Queue,
    incoming: VecDeque<Event>,
    /// By the inner driver's slot; connections without TLS have no entry.
    connections: Vec<Option<Box<Connection>>>,
    /// Have to be looked after in this turn.
    touched: Vec<ConnectionId>,
    /// Wait for the inner driver to have room, in the order in which they came.
    stuck: VecDeque<ConnectionId>,
    deadlines: BTreeSet<(Time, ConnectionId)>,
    handshake_timeout: Duration,
    cx: Context,
    sink: K,
}

impl<I: Inner, K: CompletionSink> TlsDriver<I, K> {
    pub(super) fn new(
        inner: I,
        queue: Queue,
        sink: K,
        cx: Context,
        provider: Arc<dyn TlsProvider>,
        attach_as: TlsRole,
        handshake_timeout: Duration,
    ) -> Self {
        let layer = Layer {
            queue,
            incoming: VecDeque::new(),
            connections: Vec::new(),
            touched: Vec::new(),
            stuck: VecDeque::new(),
            deadlines: BTreeSet::new(),
            handshake_timeout,
            cx,
            sink,
        };
        Self { inner, provider, attach_as, layer }
    }

    /// Lets `act` work on a TLS connection, then tidies up after it. `None` if
    /// it is none.
    fn with<R>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut dyn Driver, &mut Context) -> R,
    ) -> Option<R> {
        self.layer.with(id, self.inner.get_mut(), act)
    }

    /// The inner driver, for what is only a user's to do where TLS is the user's.
    fn without_tls(&mut self, id: ConnectionId) -> Option<&mut dyn Driver> {
        match self.layer.find(id) {
            Some(_) => None,
            None => Some(self.inner.get_mut()),
        }
    }
}

impl<K: CompletionSink> Layer<K> {
    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        find(&mut self.connections, id)
    }

    fn with<R>(
        &mut self,
        id: ConnectionId,
        inner: &mut dyn Driver,
        act: impl FnOnce(&mut Connection, &mut dyn Driver, &mut Context) -> R,
    ) -> Option<R> {
        let connection = find(&mut self.connections, id)?;
        let result = act(connection, inner, &mut self.cx);
        if connection.armed != connection.deadline {
            if let Some(at) = connection.armed {
                self.deadlines.remove(&(at, id));
            }
            if let Some(at) = connection.deadline {
                self.deadlines.insert((at, id));
            }
            connection.armed = connection.deadline;
        }
        if connection.waits_for_others() {
            self.cx.room_is_claimed |= connection.lacks_shared_memory;
            if !std::mem::replace(&mut connection.is_waiting, true) {
                self.stuck.push_back(id);
            }
        }
        Some(result)
    }

    /// Enters a connection. Of the one that had its slot before all has been heard.
    fn insert(&mut self, connection: Connection) {
        let slot = connection.id().slot() as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Box::new(connection));
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let entry = self.connections.get_mut(id.slot() as usize)?;
        entry.take_if(|connection| connection.id() == id)
    }

    /// Takes what the inner driver has said.
    fn hear(&mut self) {
        self.queue.take(&mut self.incoming);
        while let Some(event) = self.incoming.pop_front() {
            self.handle(event);
        }
        // Makes the next ones use the same memory, which is in the cache.
        self.incoming.clear();
    }

    fn handle(&mut self, event: Event) {
        let id = match &event {
            Event::Transfer(completion) => completion.connection,
            Event::Connected { connection, .. }
            | Event::Received { connection, .. }
            | Event::ReceivedRecord { connection, .. }
            | Event::KeyUpdateDue { connection }
            | Event::Closed { connection, .. } => *connection,
            _ => return self.cx.outbox.push(event),
        };
        let Some(connection) = find(&mut self.connections, id) else {
            return self.cx.outbox.push(event);
        };
        match event {
            Event::Connected { at, .. } => {
                connection.connected(at.monotonic.after(self.handshake_timeout));
                self.cx.outbox.push(event);
            }
            Event::Transfer(completion) => connection.completed(completion, &mut self.cx),
            Event::Received { received, at, .. } => {
                self.cx.heard = at;
                connection.received(received);
            }
            Event::ReceivedRecord { record, at, .. } => {
                self.cx.heard = at;
                connection.received_record(record);
            }
            Event::KeyUpdateDue { .. } => connection.key_is_used_up(),
            Event::Closed { outcome, at, .. } => {
                if let Some(at) = connection.armed {
                    self.deadlines.remove(&(at, id));
                }
                if let Some(connection) = self.remove(id) {
                    connection.closed(outcome, at, &mut self.cx);
                }
                return;
            }
            _ => return,
        }
        if !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(id);
        }
    }

    /// Looks after the connections that wait for room, those of which something was
    /// heard, and those whose time is up. Whoever has something with the inner driver is
    /// heard of when there is room: they would take it ahead of those that wait.
    fn look_after(&mut self, inner: &mut dyn Driver) {
        self.give_room(inner);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.with(id, inner, |connection, inner, cx| {
                connection.is_touched = false;
                connection.go_on(inner, cx);
            });
        }
        self.touched = touched;
        if self.deadlines.is_empty() {
            return;
        }
        let now = inner.now();
        while let Some(&(at, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            if self.with(id, inner, Connection::expire).is_none() {
                self.deadlines.remove(&(at, id));
            }
        }
    }

    /// Lets those that wait for room try again, in their order. Behind one for whom there
    /// still is no memory the others need not try, nor must they: what is too little for
    /// it may be enough for them, time and again.
    fn give_room(&mut self, inner: &mut dyn Driver) {
        let mut is_claimed = false;
        for _ in 0..self.stuck.len() {
            let Some(id) = self.stuck.pop_front() else { break };
            self.cx.room_is_claimed = false;
            let stays_first = self.with(id, inner, |connection, inner, cx| {
                connection.is_waiting = false;
                connection.try_again(inner, cx)
            });
            is_claimed |= self.cx.room_is_claimed;
            if stays_first == Some(true) {
                // It has just queued at the end.
                self.stuck.rotate_right(1);
                break;
            }
        }
        self.cx.room_is_claimed = is_claimed;
    }

    fn deliver(&mut self) -> usize {
        self.cx.deliveries += 1;
        self.cx.outbox.deliver(&mut self.sink)
    }

    fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

fn find(connections: &mut [Option<Box<Connection>>], id: ConnectionId) -> Option<&mut Connection> {
    let entry = connections.get_mut(id.slot() as usize).and_then(Option::as_deref_mut);
    entry.filter(|connection| connection.id() == id)
}

impl<I: Inner, K: CompletionSink> Driver for TlsDriver<I, K> {
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        self.inner.get_mut().listen(listener)
    }

    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener> {
        self.inner.get_mut().unlisten(listener)
    }

    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>> {
        let role = self.attach_as.clone();
        self.attach_tls(socket, options, &role)
    }

    fn attach_tls(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
        role: &TlsRole,
    ) -> Result<Attached, Refused<Socket>> {
        let inner = self.inner.get_mut();
        if *role == TlsRole::Plain {
            return inner.attach(socket, options);
        }
        let wish = options.offload.unwrap_or(self.layer.cx.offload.wish);
        if let (OffloadWish::Require, Some(facility)) = (wish, self.layer.cx.offload.lacks) {
            return Err(Refused::new(socket, RefuseReason::Lacks { facility }));
        }
        let handshake = match self.provider.begin(role) {
            Ok(handshake) => handshake,
            Err(what) => {
                let what = what.into_boxed_str();
                return Err(Refused::new(socket, RefuseReason::Tls { what }));
            }
        };
        let mut below = options.clone();
        // A transfer is several below, and there are some that are none here.
        below.max_transfers = options.max_transfers.saturating_mul(4).saturating_add(64);
        let is_connecting = socket.is_connecting();
        let attached = inner.attach(socket, &below)?;
        let id = attached.connection;
        // Connecting has a time of its own, which the inner driver keeps.
        let by = (!is_connecting).then(|| inner.now().after(self.layer.handshake_timeout));
        self.layer.insert(Connection::new(id, handshake, options, wish, by));
        self.with(id, Connection::start);
        Ok(attached)
    }

    fn speaks_tls(&self, connection: ConnectionId) -> bool {
        let entry = self.layer.connections.get(connection.slot() as usize);
        entry.and_then(Option::as_deref).is_some_and(|owner| owner.id() == connection)
    }

    fn register(&mut self, pool: &Pool) -> Result<(), NotRegistered> {
        self.inner.get_mut().register(pool)
    }

    fn unregister(&mut self, pool: &Pool) {
        self.inner.get_mut().unregister(pool);
    }

    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        if self.layer.find(connection).is_none() {
            return self.inner.get_mut().submit(connection, payload, watch);
        }
        let outstanding = self.layer.cx.outbox.counters.unreleased_bytes;
        let allowed = self.layer.cx.max_memory;
        if outstanding > 0 && outstanding + payload.memory_len() > allowed {
            let limit = Limit::DriverMemory;
            let reason = RefuseReason::BackPressure { limit, outstanding, allowed };
            return Err(Refused::new(payload, reason));
        }
        let mut payload = Some(payload);
        self.with(connection, |connection, inner, cx| {
            connection.submit(payload.take().unwrap_or_default(), watch, inner, cx)
        })
        .unwrap_or_else(|| {
            let payload = payload.take().unwrap_or_default();
            Err(Refused::new(payload, RefuseReason::UnknownConnection))
        })
    }

    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        match self.with(connection, Connection::receive) {
            Some(asked) => asked,
            None => self.inner.get_mut().receive(connection),
        }
    }

    fn receive_at_most(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
    ) -> Result<(), RefuseReason> {
        match self.without_tls(connection) {
            Some(inner) => inner.receive_at_most(connection, bytes),
            None => Err(ITS_OWN_AFFAIR),
        }
    }

    fn offload_tls(
        &mut self,
        connection: ConnectionId,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        match self.without_tls(connection) {
            Some(inner) => inner.offload_tls(connection, session, options),
            None => Err(OffloadError::Refused(Refused::new(session, ITS_OWN_AFFAIR))),
        }
    }

    fn submit_record(
        &mut self,
        connection: ConnectionId,
        record: ControlRecord,
    ) -> Result<(), Refused<ControlRecord>> {
        match self.without_tls(connection) {
            Some(inner) => inner.submit_record(connection, record),
            None => Err(Refused::new(record, ITS_OWN_AFFAIR)),
        }
    }

    fn update_transmit_key(
        &mut self,
        connection: ConnectionId,
        message: ControlRecord,
        keys: TrafficKeys,
    ) -> Result<(), Refused<TrafficKeys>> {
        match self.without_tls(connection) {
            Some(inner) => inner.update_transmit_key(connection, message, keys),
            None => Err(Refused::new(keys, ITS_OWN_AFFAIR)),
        }
    }

    fn update_receive_key(
        &mut self,
        connection: ConnectionId,
        keys: TrafficKeys,
    ) -> Result<(), RefuseReason> {
        match self.without_tls(connection) {
            Some(inner) => inner.update_receive_key(connection, keys),
            None => Err(ITS_OWN_AFFAIR),
        }
    }

    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        match self.with(connection, Connection::finish) {
            Some(()) => Ok(()),
            None => self.inner.get_mut().finish(connection),
        }
    }

    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason> {
        match self.with(connection, |connection, inner, cx| connection.close(within, inner, cx)) {
            Some(()) => Ok(()),
            None => self.inner.get_mut().close(connection, within),
        }
    }

    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        match self.with(connection, |connection, inner, _| connection.abort(inner)) {
            Some(()) => Ok(()),
            None => self.inner.get_mut().abort(connection),
        }
    }

    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError> {
        let mut delivered = self.layer.deliver();
        let inner = self.inner.get_mut();
        let wait = match (wait, self.layer.next_deadline()) {
            _ if delivered > 0 => Some(Duration::ZERO),
            (wait, None) => wait,
            (wait, Some(at)) => {
                let left = at.since(inner.now());
                Some(wait.map_or(left, |wait| wait.min(left)))
            }
        };
        let turn = inner.turn(wait)?;
        self.layer.hear();
        self.layer.look_after(inner);
        delivered += self.layer.deliver();
        Ok(Turn { delivered, more: turn.more })
    }

    fn deliver(&mut self) -> usize {
        let inner = self.inner.get_mut();
        inner.deliver();
        self.layer.hear();
        self.layer.look_after(inner);
        self.layer.deliver()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.get().pollable()
    }

    fn next_turn_by(&self) -> Option<Time> {
        if !self.layer.cx.outbox.is_empty() {
            return Some(self.now());
        }
        let own = self.layer.next_deadline();
        [self.inner.get().next_turn_by(), own].into_iter().flatten().min()
    }

    fn now(&self) -> Time {
        self.inner.get().now()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.get().waker()
    }

    /// The inner driver's, whose payload memory is this one's ciphertext; and
    /// this one's payload memory.
    fn counters(&self) -> Counters {
        let own = &self.layer.cx.outbox.counters;
        let mut counters = self.inner.get().counters();
        counters.unreleased_bytes =
            counters.unreleased_bytes.saturating_sub(own.ciphertext_bytes) + own.unreleased_bytes;
        counters.ciphertext_bytes += own.ciphertext_bytes;
        counters.sealed_bytes += own.sealed_bytes;
        counters.copied_to_seal_bytes += own.copied_to_seal_bytes;
        counters.handshakes += own.handshakes;
        counters.handshakes_failed += own.handshakes_failed;
        counters.offloaded_transmit += own.offloaded_transmit;
        counters.offloaded_receive += own.offloaded_receive;
        counters
    }
}

/// Tells what the inner driver has said when it was dropped.
impl<K: CompletionSink> Drop for Layer<K> {
    fn drop(&mut self) {
        self.hear();
        // A sink that panics while a panic is under way would end the process.
        if !std::thread::panicking() {
            self.deliver();
        }
    }
}

impl<I: Inner, K: CompletionSink> fmt::Debug for TlsDriver<I, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.layer.connections.iter().flatten().count();
        f.debug_struct("TlsDriver")
            .field("inner", &self.inner.get())
            .field("tls_connections", &connections)
            .finish_non_exhaustive()
    }
}
