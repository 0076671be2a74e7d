//! The engine that a backend's user drives.

use crate::{
    AttachOptions, Attached, ConnectionId, ControlRecord, Counters, DriverError, ListenerId,
    NotRegistered, OffloadError, OffloadOptions, Offloaded, Payload, Pool, RefuseReason, Refused,
    Socket, Time, TlsRole, TlsSession, TrafficKeys, TransferId, Watch,
};
use std::fmt;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// The engine of one thread: owns connections, and their payloads until they
/// are released.
///
/// No call but [`Self::turn`] blocks, and none calls the sink but `turn`,
/// [`Self::deliver`] and the driver's drop. Dropping it resets what is still open and delivers what
/// is still owed: `Failed`, `Released` and `Closed`.
pub trait Driver: fmt::Debug {
    /// Starts to accept from `listener`: [`Event::Accepted`](crate::Event::Accepted).
    ///
    /// # Errors
    /// Gives the listener back if the operating system will not poll it, or if it is
    /// not TCP's own: one of multipath TCP (`IPPROTO_MPTCP`) is refused with
    /// `EPROTONOSUPPORT`, because it does not tell what becomes of what is sent.
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

    /// Whether a connection speaks TLS, or is to, be it only because that is what
    /// [`Self::attach`] makes of it here. This default says no.
    fn speaks_tls(&self, connection: ConnectionId) -> bool {
        let _ = connection;
        false
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
        Err(match pool.arena() {
            Some(_) => NotRegistered::Unsupported,
            None => NotRegistered::NotContiguous,
        })
    }

    /// Takes [`Self::register`] back. Buffers that are being sent stay pinned
    /// until they are released.
    fn unregister(&mut self, pool: &Pool) {
        let _ = pool;
    }

    /// Sends `payload` behind everything submitted before. What the socket
    /// takes at once is written before this returns or, by a backend that
    /// collects what is to be done, when [`Self::turn`] is called next.
    /// Completions are delivered by `turn`, or by [`Self::deliver`].
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
    /// If there is no such connection, or [`Self::close`] was called: what still comes
    /// is discarded then.
    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason>;

    /// As [`Self::receive`], but takes no more than `bytes` out of the socket,
    /// and none ahead: what comes behind them stays with the kernel. Whoever
    /// means to hand the peer's records to the kernel reads like that from the
    /// start, record by record. Asking again changes how much.
    ///
    /// # Errors
    /// As [`Self::receive`], or if this driver cannot do that.
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
    /// As [`TlsOffload::offload`](crate::TlsOffload::offload); a driver that has
    /// no kernel TLS gives the session back.
    /// [`OffloadWish::Require`](crate::OffloadWish::Require) for a direction means
    /// that it is refused if that direction cannot be had.
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

    /// Ends this direction only: what was accepted is sent, then the end of the
    /// stream, under TLS behind a `close_notify`. Nothing more is accepted for it.
    /// The other direction goes on, and so do the stages of what was sent: a proxy
    /// passes on with this that one of its two peers has ended. Asking again
    /// changes nothing.
    ///
    /// The connection is there until it fails or [`Self::close`] is called, which is
    /// due once both directions have ended: see [`Received::End`](crate::Received::End).
    /// Whether the peer acknowledges the end is told by that close;
    /// [`stall_timeout`](crate::AttachOptions::stall_timeout) bounds the payload before it.
    ///
    /// In TLS 1.2 a peer may answer by ending its own direction at once (RFC 5246,
    /// section 7.2.1), and most do; in TLS 1.3 the directions end by themselves
    /// (RFC 8446, section 6.1).
    ///
    /// # Errors
    /// If there is no such connection.
    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason>;

    /// Sends what was accepted, ends the stream, waits for the peer to
    /// acknowledge both, and then for the peer to close, reading and discarding
    /// its input so that no reset cuts off what it has not read yet. After
    /// `within` the connection is reset instead, whatever progress its peer makes;
    /// of one that makes none
    /// [`AttachOptions::stall_timeout`](crate::AttachOptions::stall_timeout) takes care.
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

    /// Delivers what calls since the last turn have brought about, without a look at
    /// the sockets, as [`Self::turn`] does first; says how many events that were.
    /// Never waits. For a loop whose turns are dear: after this, no turn is due before
    /// [`Self::next_turn_by`] or until [`Self::pollable`] is readable.
    ///
    /// This default delivers nothing, and leaves it to the next turn.
    fn deliver(&mut self) -> usize {
        0
    }

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

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Turn {
    /// Events delivered to the sink.
    pub delivered: usize,
    /// Whether there is more to do at once: the next turn will not wait.
    pub more: bool,
}
