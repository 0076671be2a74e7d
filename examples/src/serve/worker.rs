//! One thread: a driver, its listener and its connections.

use super::complain::complain;
use super::connection::{Connection, Service};
use super::files::{Cache, MAX_IN_MEMORY};
use super::generated::Block;
use super::log::Log;
use super::metrics::Metrics;
use super::options::{Options, Switch};
use super::outlet::Outlet;
use super::path::Root;
use super::places::{Places, Taken};
use super::respond::Responder;
use lastbyte::{
    AttachOptions, Backend, CloseOutcome, ConnectionId, DriverConfig, DriverError, Event,
    EventQueue, ListenerId, Moment, Received, Refused, Socket, Time, UnixTime, Wake,
};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Payload memory that one connection may have unreleased beyond one response, so that
/// those who do not read leave enough for the others: two of the files that are kept in
/// memory.
const SHARE: u64 = 2 * (MAX_IN_MEMORY + 1024);

/// How long clients that have acknowledged everything have to close when the
/// server ends.
const GRACE: Duration = Duration::from_secs(1);
/// Longest pause between two looks at the connections' ages.
const SWEEP: Duration = Duration::from_secs(1);
/// Shortest pause between two complaints on standard error.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Failed turns in a row after which a thread gives up.
const MAX_FAILED_TURNS: u32 = 100;

/// What the threads share.
#[derive(Debug)]
pub struct Shared {
    /// How the server is to behave.
    pub options: Options,
    /// The backend in use.
    pub backend: Arc<dyn Backend>,
    /// What is served.
    pub root: Root,
    /// What generated bodies are made of.
    pub block: Block,
    /// All threads' numbers.
    pub metrics: Metrics,
    /// Where all threads' lines go.
    pub outlet: Arc<Outlet>,
    /// Set once the server is to end.
    pub stop: AtomicBool,
    /// How many connections there may be at once.
    pub places: Arc<Places>,
    /// How many more may wait at each listener.
    pub backlog: u32,
    /// Connections ever.
    pub accepted: AtomicU64,
}

/// How a thread's work ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Responses that were cut off because time was up.
    pub cut_off: usize,
}

/// A thread's part of the server.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    service: Service,
    queue: EventQueue,
    attach: AttachOptions,
    listening: Listening,
    /// One for each open connection.
    places: Taken,
    /// Accepted, but for want of a place not taken over. Nothing more is accepted
    /// as long as there are any.
    waiting: VecDeque<Socket>,
    /// Most of them that there are descriptors for.
    crowd: usize,
    /// By the driver's slot.
    connections: Vec<Option<Connection>>,
    open: usize,
    sweep_every: Duration,
    next_sweep: Time,
    complained: Option<Time>,
    /// When the server ends, whatever is unfinished.
    deadline: Option<Time>,
    /// Since when nothing is owed to anyone, while draining.
    quiet_since: Option<Time>,
}

#[derive(Debug)]
enum Listening {
    On(ListenerId),
    Paused(TcpListener),
    Off,
}

impl Worker {
    /// The `index`th thread's worker, to be made and run on that thread.
    ///
    /// # Errors
    /// If the backend cannot give it a driver, or will not take the listener.
    pub fn new(
        shared: Arc<Shared>,
        index: usize,
        listener: TcpListener,
    ) -> Result<Self, DriverError> {
        let options = &shared.options;
        let mut config = DriverConfig::default();
        config.max_connections = options.max_connections().saturating_add(1024);
        let crowd = shared.backlog as usize + 1;
        config.accept_burst = config.accept_burst.min(crowd);
        if let Some(threshold) = options.zero_copy_threshold {
            config.zero_copy_threshold = threshold;
        }
        let connections = config.max_connections as u64;
        config.max_memory = config.max_memory.max(connections.saturating_mul(SHARE));
        let queue = EventQueue::default();
        let mut driver = shared.backend.driver(&config, Box::new(queue.sink()))?;
        let listening = driver.listen(listener).map_err(|refused| DriverError {
            doing: "listening",
            errno: match refused.reason {
                lastbyte::RefuseReason::System { errno, .. } => errno,
                _ => 0,
            },
        })?;
        let files = Cache::new(shared.root.clone(), shared.block.clone());
        let mut attach = AttachOptions::default();
        attach.stall_timeout = Some(options.idle_timeout);
        attach.max_memory = SHARE;
        let shortest = options.idle_timeout.min(options.request_timeout);
        let sweep_every = SWEEP.min(shortest / 4).max(Duration::from_millis(20));
        let now = moment(driver.now());
        let places = Arc::clone(&shared.places).taken_by(index, driver.waker());
        let service = Service {
            responder: Responder::new(files, shared.metrics.clone()),
            log: Log::new(options.log, Arc::clone(&shared.outlet)),
            counters: shared.metrics.thread(index),
            backend: shared.backend.kind().name(),
            stamps: options.stamps == Switch::On,
            is_draining: false,
            now,
            request_timeout: options.request_timeout,
            idle_timeout: options.idle_timeout,
            submitted: 0,
            driver,
        };
        Ok(Self {
            shared,
            service,
            queue,
            attach,
            listening: Listening::On(listening),
            places,
            waiting: VecDeque::new(),
            crowd,
            connections: Vec::new(),
            open: 0,
            sweep_every,
            next_sweep: now.monotonic.after(sweep_every),
            complained: None,
            deadline: None,
            quiet_since: None,
        })
    }

    /// Wakes this worker from another thread.
    #[must_use]
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.service.driver.waker()
    }

    /// Serves until [`Shared::stop`] is set and clients have got what they were
    /// promised, or the time for that is up.
    ///
    /// # Errors
    /// If the driver keeps failing.
    pub fn run(mut self) -> Result<Ended, DriverError> {
        let mut failed = 0;
        let mut now = self.service.driver.now();
        loop {
            match self.service.driver.turn(self.wait(now)) {
                Ok(_) => failed = 0,
                Err(error) => {
                    failed += 1;
                    self.complain(&error.to_string());
                    if failed >= MAX_FAILED_TURNS {
                        return Err(error);
                    }
                }
            }
            let newest = self.service.now.monotonic;
            self.handle_events();
            // Input was seen in this very turn; where none was, the clock is read.
            now = self.service.now.monotonic;
            if now <= newest {
                now = self.service.driver.now();
            }
            if now >= self.next_sweep {
                self.sweep(now);
            }
            if !matches!(self.listening, Listening::On(_)) {
                self.make_room();
            }
            if self.deadline.is_none() && self.shared.stop.load(Ordering::Relaxed) {
                self.start_to_drain(now);
            }
            self.service.counters.publish(&self.service.driver.counters());
            self.flush_log();
            if let Some(deadline) = self.deadline {
                if self.is_drained(now) {
                    // The clients have everything; now it is the log's turn.
                    self.service.log.finish(deadline.since(now));
                    return Ok(self.leave());
                }
                if now >= deadline {
                    return Ok(self.cut_off());
                }
            }
        }
    }

    fn wait(&self, now: Time) -> Option<Duration> {
        let is_idle = self.open == 0 && matches!(self.listening, Listening::On(_));
        if is_idle && self.deadline.is_none() {
            return None;
        }
        let mut until = self.next_sweep;
        if let Some(deadline) = self.deadline {
            until = until.min(deadline);
            if let Some(quiet) = self.quiet_since {
                until = until.min(quiet.after(GRACE));
            }
        }
        Some(until.since(now))
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.queue.pop() {
            match event {
                Event::Transfer(completion) => {
                    if let Some(connection) = find(&mut self.connections, completion.connection) {
                        connection.completed(completion, &mut self.service);
                    }
                }
                Event::Received { connection, received, at } => {
                    self.service.now = at;
                    let Some(connection) = find(&mut self.connections, connection) else {
                        continue;
                    };
                    match received {
                        Received::Data(bytes) => connection.received(&bytes, at, &mut self.service),
                        Received::End | Received::Truncated => connection.ended(&mut self.service),
                    }
                }
                Event::Accepted { socket, .. } => self.accepted(socket),
                Event::AcceptPaused { errno, .. } => {
                    self.service.counters.accept_pauses.add(1);
                    let error = std::io::Error::from_raw_os_error(errno);
                    self.complain(&format!("cannot accept for now: {error}"));
                    // Files that nobody needs at the moment hold descriptors too.
                    self.service.responder.expire(self.service.now);
                }
                Event::TlsEstablished { connection, tls, .. } => {
                    if let Some(connection) = find(&mut self.connections, connection) {
                        connection.established(&tls);
                    }
                }
                Event::Closed { connection, outcome, .. } => self.closed(connection, &outcome),
                _ => {}
            }
        }
    }

    fn accepted(&mut self, socket: Socket) {
        if self.service.is_draining {
            return;
        }
        if self.waiting.is_empty() && self.places.take() {
            self.attach(socket);
            return;
        }
        // A ring goes on accepting whoever comes while it does: who is too many then is
        // turned away, because descriptors are needed by those who are served.
        if self.waiting.len() < self.crowd {
            self.waiting.push_back(socket);
        } else {
            self.service.counters.refused.add(1);
        }
        self.pause();
    }

    /// Takes over a connection that there is a place for.
    fn attach(&mut self, socket: Socket) {
        let peer = socket.peer().or_else(|| socket.stream().peer_addr().ok());
        let attached = match self.service.driver.attach(socket, &self.attach) {
            Ok(attached) => attached,
            Err(Refused { reason, .. }) => {
                self.places.give_back();
                self.service.counters.refused.add(1);
                return self.complain(&format!("a connection cannot be taken over: {reason}"));
            }
        };
        let number = self.shared.accepted.fetch_add(1, Ordering::Relaxed);
        self.service.counters.accepted.add(1);
        self.open += 1;
        let id = attached.connection;
        let slot = id.slot() as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        let now = self.service.driver.now();
        let connection = Connection::new(id, number, peer, now);
        self.connections[slot].insert(connection).start(&mut self.service);
    }

    fn closed(&mut self, id: ConnectionId, outcome: &CloseOutcome) {
        if find(&mut self.connections, id).is_none() {
            return;
        }
        debug_assert!(
            find(&mut self.connections, id).is_some_and(|c| c.unfinished() == 0),
            "{id} ended ({outcome:?}) before its transfers"
        );
        self.connections[id.slot() as usize] = None;
        self.open -= 1;
        self.places.give_back();
    }

    /// Leaves new connections to the kernel.
    fn pause(&mut self) {
        if let Listening::On(id) = self.listening {
            self.listening = match self.service.driver.unlisten(id) {
                Some(listener) => Listening::Paused(listener),
                None => Listening::Off,
            };
            self.service.counters.accept_pauses.add(1);
        }
    }

    /// Takes new connections again when there is room.
    fn make_room(&mut self) {
        while !self.waiting.is_empty() {
            if !self.places.take() {
                return;
            }
            if let Some(socket) = self.waiting.pop_front() {
                self.attach(socket);
            }
        }
        match std::mem::replace(&mut self.listening, Listening::Off) {
            Listening::Paused(listener) => {
                self.listening = match self.service.driver.listen(listener) {
                    Ok(id) => Listening::On(id),
                    Err(Refused { value, reason }) => {
                        self.complain(&format!("cannot listen for now: {reason}"));
                        Listening::Paused(value)
                    }
                };
            }
            other => self.listening = other,
        }
    }

    fn sweep(&mut self, now: Time) {
        self.next_sweep = now.after(self.sweep_every);
        self.service.now = moment(now);
        for connection in self.connections.iter_mut().flatten() {
            connection.sweep(&mut self.service);
        }
        self.service.responder.expire(self.service.now);
    }

    fn start_to_drain(&mut self, now: Time) {
        self.deadline = Some(now.after(self.shared.options.drain_timeout));
        self.service.is_draining = true;
        self.service.now = moment(now);
        if let Listening::On(id) = std::mem::replace(&mut self.listening, Listening::Off) {
            drop(self.service.driver.unlisten(id));
        }
        self.waiting.clear();
        self.take_what_has_come();
        for connection in self.connections.iter_mut().flatten() {
            connection.drain(&mut self.service);
        }
    }

    /// Takes the requests that are here already: nobody who has asked is to be sent away
    /// without an answer. Each connection is closed by the one that it has, so this ends.
    fn take_what_has_come(&mut self) {
        // A turn may do no more than tell what an earlier one has seen.
        const IDLE_TURNS: u32 = 2;
        let mut idle = 0;
        for _ in 0..MAX_FAILED_TURNS as usize + self.open {
            let turned = self.service.driver.turn(Some(Duration::ZERO));
            let is_quiet = self.queue.is_empty();
            self.handle_events();
            idle = if is_quiet { idle + 1 } else { 0 };
            if idle == IDLE_TURNS || turned.is_err() {
                return;
            }
        }
    }

    /// Whether everybody has got everything, and had a moment to close.
    fn is_drained(&mut self, now: Time) -> bool {
        if self.open == 0 {
            return true;
        }
        if !self.connections.iter().flatten().all(Connection::is_quiet) {
            self.quiet_since = None;
            return false;
        }
        now.since(*self.quiet_since.get_or_insert(now)) >= GRACE
    }

    /// Ends with nothing owed. Clients that keep their side open lose nothing:
    /// they have the end of the stream, and the kernel sees to the rest. The
    /// driver would reset them.
    fn leave(self) -> Ended {
        if self.open > 0 {
            std::mem::forget(self.service.driver);
        }
        Ended { cut_off: 0 }
    }

    /// Ends though something is owed, and says so in the log.
    fn cut_off(mut self) -> Ended {
        let cut_off = self.connections.iter().flatten().map(Connection::owed).sum();
        let connections: Vec<_> = self.connections.iter().flatten().map(|c| c.id).collect();
        for connection in connections {
            // Gone already if this fails.
            let _ = self.service.driver.abort(connection);
        }
        // What is left after this is reset by dropping the driver.
        for _ in 0..MAX_FAILED_TURNS {
            let turned = self.service.driver.turn(Some(Duration::from_millis(1)));
            self.handle_events();
            if self.open == 0 || turned.is_err() {
                break;
            }
        }
        self.flush_log();
        Ended { cut_off }
    }

    fn flush_log(&mut self) {
        let lost = self.service.log.flush();
        if lost > 0 {
            self.service.counters.log_lines_lost.add(lost);
        }
    }

    /// Tells standard error, but not all the time.
    fn complain(&mut self, what: &str) {
        let now = self.service.driver.now();
        if self.complained.is_none_or(|before| now.since(before) >= COMPLAIN) {
            self.complained = Some(now);
            complain(what);
        }
    }
}

fn find(connections: &mut [Option<Connection>], id: ConnectionId) -> Option<&mut Connection> {
    let connection = connections.get_mut(id.slot() as usize)?.as_mut()?;
    (connection.id == id).then_some(connection)
}

/// `monotonic`, and what the wall clock shows.
fn moment(monotonic: Time) -> Moment {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = UnixTime::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
    Moment { monotonic, wall, error: Duration::ZERO }
}
