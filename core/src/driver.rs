//! The interface between a backend and its users.

use crate::{
    BackendKind, CompletionSink, ConnectionId, ControlRecord, ListenerId, Method, NotRegistered,
    OffloadError, OffloadOptions, OffloadWish, Offloaded, Payload, Pool, RefuseReason, Refused,
    Report, Socket, Time, TlsOffload, TlsRole, TlsSession, TrafficKeys, TransferId, Watch,
};
use std::fmt;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// A factory of drivers, chosen at run time.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which one it is.
    fn kind(&self) -> BackendKind;

    /// What was found out about this kernel when the backend was opened, with
    /// what the operator has disabled.
    fn report(&self) -> &Report;

    /// A driver for the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a resource that the driver needs.
    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError>;

    /// A driver that may be moved to another thread, together with its
    /// connections; so its sink must be movable too.
    ///
    /// # Errors
    /// As [`Self::driver`].
    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError>;
}

/// The engine of one thread: owns connections, and their payloads until they
/// are released.
///
/// No call but [`Self::turn`] blocks, and none calls the sink but `turn` and
/// the driver's drop. Dropping it resets what is still open and delivers what
/// is still owed: `Failed`, `Released` and `Closed`.
pub trait Driver: fmt::Debug {
    /// Starts to accept from `listener`: [`Event::Accepted`](crate::Event::Accepted).
    ///
    /// # Errors
    /// Gives the listener back if the operating system will not poll it.
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>>;

    /// Stops accepting and gives the listener back, which is non-blocking now.
    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener>;

    /// Takes over a connected socket. From now on nobody else may write to it,
    /// change its timestamping or zero-copy options, or read its error queue.
    ///
    /// # Errors
    /// Gives the socket back if it is not connected, the operating system
    /// refuses it, or the driver is full.
    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>>;

    /// As [`Self::attach`], with TLS in the part that `role` says. A driver that
    /// has no TLS refuses: nothing that was to be encrypted is ever sent plain.
    ///
    /// What is submitted before the handshake is done is sent after it. A
    /// handshake that fails ends the connection with
    /// [`FailReason::Tls`](crate::FailReason::Tls).
    ///
    /// # Errors
    /// As [`Self::attach`], and if this driver has no TLS, or not in this role.
    fn attach_tls(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
        role: &TlsRole,
    ) -> Result<Attached, Refused<Socket>> {
        match role {
            TlsRole::Plain => self.attach(socket, options),
            _ => Err(Refused::new(
                socket,
                RefuseReason::Unsupported { what: "this driver has no TLS" },
            )),
        }
    }

    /// Has the kernel pin the memory of a [contiguous](Pool::contiguous) pool once
    /// for all, so that a buffer of it that goes by zero copy is not pinned, nor
    /// counted against the limit on locked memory, each time. The memory stays
    /// pinned, and allocated, until [`Self::unregister`] or the driver's end.
    /// What stages mean is the same with and without.
    ///
    /// ```no_run
    /// # fn example(driver: &mut dyn lastbyte::Driver) {
    /// let pool = lastbyte::Pool::contiguous(64 << 10, 256);
    /// if let Err(why) = driver.register(&pool) {
    ///     eprintln!("each buffer will be pinned as it is sent: {why}");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it cannot be had, or not for this pool; the pool can be used all the
    /// same. This default never can.
    fn register(&mut self, pool: &Pool) -> Result<(), NotRegistered> {
        let _ = pool;
        Err(NotRegistered::Unsupported)
    }

    /// Takes [`Self::register`] back. Buffers that are being sent stay pinned
    /// until they are released.
    fn unregister(&mut self, pool: &Pool) {
        let _ = pool;
    }

    /// Sends `payload` behind everything submitted before. What the socket
    /// takes at once is written before this returns or, by a backend that
    /// collects what is to be done, when [`Self::turn`] is called next.
    /// Completions are delivered by `turn`.
    ///
    /// # Errors
    /// Gives the payload back if nothing of it will be sent.
    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>>;

    /// Asks for the next input: exactly one
    /// [`Event::Received`](crate::Event::Received), unless the connection ends
    /// first. Asking again before that changes nothing. While nothing is asked
    /// for, nothing is read, and TCP slows the peer down.
    ///
    /// # Errors
    /// If there is no such connection.
    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason>;

    /// As [`Self::receive`], but takes no more than `bytes` out of the socket,
    /// and none ahead: what comes behind them stays with the kernel. Whoever
    /// means to hand the peer's records to the kernel reads like that from the
    /// start, record by record. Asking again changes how much.
    ///
    /// # Errors
    /// If there is no such connection, or this driver cannot do that.
    fn receive_at_most(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
    ) -> Result<(), RefuseReason> {
        let _ = (connection, bytes);
        Err(RefuseReason::Unsupported { what: "this driver does not read by length" })
    }

    /// Hands the record layer of a TLS connection to the kernel, as far as that
    /// takes it and `options` wish for it. From then on what is submitted is
    /// plaintext, and what is received too; the rest of TLS stays with the
    /// caller: [`Self::submit_record`], [`Self::update_transmit_key`],
    /// [`Self::update_receive_key`], and
    /// [`Event::ReceivedRecord`](crate::Event::ReceivedRecord).
    ///
    /// Nothing may be submitted between the last byte that was sealed in user
    /// space and this.
    ///
    /// # Errors
    /// As [`TlsOffload::offload`]; a driver that has no kernel TLS gives the
    /// session back. [`OffloadWish::Require`] for a direction means that it is
    /// refused if that direction cannot be had.
    fn offload_tls(
        &mut self,
        connection: ConnectionId,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        let _ = (connection, options);
        let what = "this driver has no kernel TLS";
        Err(OffloadError::Refused(Refused::new(session, RefuseReason::Unsupported { what })))
    }

    /// Has the kernel seal a record that is no payload, behind everything that
    /// was submitted before.
    ///
    /// # Errors
    /// Gives it back if there is no such connection, the kernel does not seal its
    /// records, or too many such records wait.
    fn submit_record(
        &mut self,
        connection: ConnectionId,
        record: ControlRecord,
    ) -> Result<(), Refused<ControlRecord>> {
        let _ = connection;
        let what = "this driver has no kernel TLS";
        Err(Refused::new(record, RefuseReason::Unsupported { what }))
    }

    /// Has the kernel seal `message`, a KeyUpdate, at the next record boundary,
    /// and everything after it with `keys`.
    ///
    /// # Errors
    /// Gives the keys back if there is no such connection, the kernel does not
    /// seal its records, or an earlier change of keys still waits.
    fn update_transmit_key(
        &mut self,
        connection: ConnectionId,
        message: ControlRecord,
        keys: TrafficKeys,
    ) -> Result<(), Refused<TrafficKeys>> {
        let _ = (connection, message);
        let what = "this driver has no kernel TLS";
        Err(Refused::new(keys, RefuseReason::Unsupported { what }))
    }

    /// Has the kernel open what follows the peer's KeyUpdate with `keys`.
    ///
    /// # Errors
    /// If there is no such connection, or the kernel does not open its records.
    /// A kernel that does not take the key fails the connection.
    fn update_receive_key(
        &mut self,
        connection: ConnectionId,
        keys: TrafficKeys,
    ) -> Result<(), RefuseReason> {
        let _ = (connection, keys);
        Err(RefuseReason::Unsupported { what: "this driver has no kernel TLS" })
    }

    /// Sends what was accepted, ends the stream, waits for the peer to
    /// acknowledge both, and then for the peer to close, reading and discarding
    /// its input so that no reset cuts off what it has not read yet. After
    /// `within` the connection is reset instead.
    ///
    /// # Errors
    /// If there is no such connection.
    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason>;

    /// Resets the connection: its unfinished transfers fail as
    /// [`FailReason::Cancelled`](crate::FailReason::Cancelled).
    ///
    /// # Errors
    /// If there is no such connection.
    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason>;

    /// Waits until something happens, for `wait` at the longest (`None` without
    /// bound), handles a bounded number of events, and delivers what came of
    /// it. `Some(Duration::ZERO)` does not wait.
    ///
    /// # Errors
    /// If the operating system's wait fails; the driver stays usable.
    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError>;

    /// A descriptor that is readable when [`Self::turn`] has something to do,
    /// for turning the driver from another event loop; turn it also when
    /// [`Self::next_turn_by`] comes. `None` for a backend that has no such
    /// descriptor: turn that one from a thread of its own.
    fn pollable(&self) -> Option<BorrowedFd<'_>>;

    /// When `turn` has to be called at the latest, though no descriptor is
    /// ready; on the clock of [`Self::now`].
    fn next_turn_by(&self) -> Option<Time>;

    /// The clock that completions are dated with.
    fn now(&self) -> Time;

    /// Wakes a waiting `turn` from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// What this driver has done so far.
    fn counters(&self) -> Counters;
}

/// Wakes a driver that waits in [`Driver::turn`].
pub trait Wake: fmt::Debug + Send + Sync {
    /// Makes the current or else the next `turn` return. Never blocks.
    fn wake(&self);
}

/// Sends payloads on one connection.
///
/// [`Connection`] implements it over any driver; wrap it to add a layer.
pub trait ZeroCopySend {
    /// Sends `payload` behind everything sent before, without copying it where
    /// that can be had and pays.
    ///
    /// # Errors
    /// Gives the payload back if nothing of it will be sent.
    fn send(&mut self, payload: Payload, watch: Watch) -> Result<TransferId, Refused<Payload>>;
}

/// A connection of a borrowed driver.
///
/// ```no_run
/// # fn example(driver: &mut dyn lastbyte::Driver, id: lastbyte::ConnectionId)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use lastbyte::{Connection, Payload, Watch, ZeroCopySend};
/// let mut connection = Connection::new(driver, id);
/// let sender: &mut dyn ZeroCopySend = &mut connection;
/// sender.send(Payload::from(&b"hello"[..]), Watch::ACKED)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Connection<'d> {
    driver: &'d mut dyn Driver,
    id: ConnectionId,
}

impl<'d> Connection<'d> {
    /// The connection `id` of `driver`.
    pub fn new(driver: &'d mut dyn Driver, id: ConnectionId) -> Self {
        Self { driver, id }
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }
}

impl ZeroCopySend for Connection<'_> {
    fn send(&mut self, payload: Payload, watch: Watch) -> Result<TransferId, Refused<Payload>> {
        self.driver.submit(self.id, payload, watch)
    }
}

impl TlsOffload for Connection<'_> {
    fn offload(
        &mut self,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        self.driver.offload_tls(self.id, session, options)
    }
}

/// Bounds and habits of a driver.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverConfig {
    /// Connections at once.
    pub max_connections: u32,
    /// Bytes of payload memory that may be unreleased, over all connections.
    pub max_memory: u64,
    /// Size of a receive buffer in bytes: the most that one receive yields.
    pub receive_buffer: usize,
    /// Bytes of buffers that may wait for input that nobody has asked for, or be
    /// full of it, over all connections, where a backend receives ahead. Beyond
    /// that it reads when asked. One buffer is always allowed.
    pub receive_ahead: u64,
    /// Sockets that one turn handles at the most: half of them because
    /// something happened, half because they had more to do than an earlier
    /// turn allowed. Smaller batches stay in the processor's cache.
    pub events_per_turn: usize,
    /// Bytes that one connection may write in a row before others get their turn.
    pub write_burst: u64,
    /// Connections that one listener may yield in a turn.
    pub accept_burst: usize,
    /// Shortest payload that zero copy is tried for, in bytes.
    pub zero_copy_threshold: u64,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_memory: 1 << 30,
            receive_buffer: 16 << 10,
            receive_ahead: 16 << 20,
            events_per_turn: 64,
            write_burst: 2 << 20,
            accept_burst: 64,
            zero_copy_threshold: 32 << 10,
        }
    }
}

/// How a connection is to be treated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AttachOptions {
    /// Bytes of payload memory that may be unreleased on this connection. One
    /// payload is always taken, whatever its size.
    pub max_memory: u64,
    /// Transfers that may be unfinished on this connection.
    pub max_transfers: usize,
    /// The connection is reset when the peer has acknowledged nothing new for
    /// this long while something is unacknowledged. `None`: only TCP's own
    /// limits apply.
    pub stall_timeout: Option<Duration>,
    /// How long zero-copied memory may stay with the kernel after the
    /// connection has ended before it is leaked.
    pub release_timeout: Duration,
    /// `TCP_NODELAY`. Without it the last short segment of a transfer waits for
    /// the peer to acknowledge the ones before.
    pub no_delay: bool,
    /// Whether this TLS connection's record layer goes to the kernel; `None`: as
    /// the TLS backend is configured. Says nothing to a connection without TLS.
    pub offload: Option<OffloadWish>,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            max_transfers: 1024,
            stall_timeout: Some(Duration::from_secs(60)),
            release_timeout: Duration::from_secs(10),
            no_delay: true,
            offload: None,
        }
    }
}

/// A connection that a driver has taken over, and what can be known of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attached {
    /// Its name from now on.
    pub connection: ConnectionId,
    /// What its stages will rest on.
    pub stages: StageSupport,
}

/// What a stage rests on, said when attaching.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StageEvidence {
    /// A kernel timestamp, normally; a bracket where the kernel dropped it.
    Kernel,
    /// Two looks at the socket.
    Bracketed,
    /// Nothing: completions of the stage will say `Unavailable`.
    Unavailable,
}

/// What the later stages of a connection's transfers rest on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StageSupport {
    /// For [`Stage::Transmitted`](crate::Stage::Transmitted).
    pub transmitted: StageEvidence,
    /// For [`Stage::Acked`](crate::Stage::Acked).
    pub acked: StageEvidence,
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Turn {
    /// Events delivered to the sink.
    pub delivered: usize,
    /// Whether there is more to do at once: the next turn will not wait.
    pub more: bool,
}

/// What a driver has done so far. Numbers only grow, but for those that say
/// "now".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections now.
    pub connections: u64,
    /// Bytes of payload memory now unreleased.
    pub unreleased_bytes: u64,
    /// Bytes of payload memory that the kernel now references.
    pub pinned_bytes: u64,
    /// Bytes of payload memory leaked because the kernel would not let go.
    pub leaked_bytes: u64,
    /// Bytes the kernel took by each method; index with [`Counters::method`].
    pub bytes: [u64; 4],
    /// Stamps that were asked for and made up for by a look at the socket.
    pub stamps_recovered: u64,
    /// Stamps whose time was useless because the wall clock was stepped.
    pub stamps_undated: u64,
    /// Zero-copy sends that the kernel had no room for and that were copied.
    pub zero_copy_no_room: u64,
    /// Bytes of buffers now full of input that nobody has asked for: see
    /// [`DriverConfig::receive_ahead`].
    pub received_ahead_bytes: u64,
    /// Bytes of memory registered with the kernel now ([`Driver::register`]).
    pub registered_bytes: u64,
    /// Bytes that the kernel was asked to send out of registered memory.
    pub sent_registered_bytes: u64,
    /// Times that more was started in a turn than the queue of a ring holds, which
    /// took a call more.
    pub submissions_full: u64,
    /// Times that the kernel had to keep completions back because the queue of a
    /// ring was full of them. None is lost.
    pub completions_full: u64,
    /// Bytes of ciphertext that were sealed in user space and are not yet
    /// released by the kernel, now.
    pub ciphertext_bytes: u64,
    /// Payload bytes that were sealed in user space.
    pub sealed_bytes: u64,
    /// Payload bytes that were copied from memory to memory to be sealed.
    pub copied_to_seal_bytes: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// Connections whose sent records, and whose received records, were handed
    /// to the kernel after the handshake.
    pub offloaded_transmit: u64,
    /// See [`Self::offloaded_transmit`].
    pub offloaded_receive: u64,
}

impl Counters {
    /// Where a method's bytes are counted. Bytes that zero copy was asked for
    /// count as [`Method::ZeroCopy`], refused or not: that is known later only.
    #[must_use]
    pub const fn slot(method: Method) -> usize {
        match method {
            Method::Copy => 0,
            Method::ZeroCopy | Method::ZeroCopyRefused => 1,
            Method::Sendfile => 2,
            Method::Splice => 3,
        }
    }

    /// Bytes that `method` moved.
    #[must_use]
    pub const fn method(&self, method: Method) -> u64 {
        self.bytes[Self::slot(method)]
    }
}

/// A driver could not be made or turned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DriverError {
    /// What was being done.
    pub doing: &'static str,
    /// The kernel's answer, a value of `errno(3)`.
    pub errno: i32,
}

impl DriverError {
    /// `error` while `doing` something.
    #[must_use]
    pub fn new(doing: &'static str, error: &std::io::Error) -> Self {
        Self { doing, errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, std::io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for DriverError {}
