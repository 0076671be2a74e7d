//! Everything that a driver tells its sink.

use crate::{
    Completion, ConnectionId, FailReason, ListenerId, Moment, PooledBuf, ReceivedRecord,
    TlsEstablished,
};
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// One thing that a driver has to say.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "an event may carry a socket, a buffer or a payload"]
pub enum Event {
    /// A transfer reached a stage.
    Transfer(Completion),
    /// A listener has a new connection. Attach it, or drop it to close it.
    Accepted {
        /// The listener.
        listener: ListenerId,
        /// The new socket.
        socket: Socket,
    },
    /// A listener cannot accept for now; it tries again by itself.
    AcceptPaused {
        /// The listener.
        listener: ListenerId,
        /// The kernel's reason, a value of `errno(3)`; `EMFILE` and `ENFILE`
        /// mean that descriptors have run out.
        errno: i32,
    },
    /// A socket that was attached as one that connects ([`Socket::connecting`]) has
    /// connected. Comes once, before anything was sent; if it cannot connect,
    /// [`Event::Closed`] says why.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// When that was seen.
        at: Moment,
    },
    /// The answer to one [`Driver::receive`](crate::Driver::receive).
    Received {
        /// The connection.
        connection: ConnectionId,
        /// What came.
        received: Received,
        /// When the driver saw it and set about reading it.
        at: Moment,
    },
    /// A TLS handshake is done: what was agreed on, and who has the record layer
    /// of each direction. Comes once, before the first input.
    TlsEstablished {
        /// The connection.
        connection: ConnectionId,
        /// How it goes on.
        tls: TlsEstablished,
        /// When.
        at: Moment,
    },
    /// Instead of [`Event::Received`], on a connection that was handed to the
    /// kernel by [`Driver::offload_tls`](crate::Driver::offload_tls): the next
    /// thing that came is no payload. Also told unasked of one that is closing,
    /// because keys may change.
    ReceivedRecord {
        /// The connection.
        connection: ConnectionId,
        /// What came.
        record: ReceivedRecord,
        /// When the driver saw it.
        at: Moment,
    },
    /// On a connection that was handed to the kernel: nearly as many records were
    /// sealed as one key may seal. No more payload is sent before
    /// [`Driver::update_transmit_key`](crate::Driver::update_transmit_key).
    KeyUpdateDue {
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection is gone: the last event that names it. Every transfer has
    /// ended and every payload was released before.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// How it ended.
        outcome: CloseOutcome,
        /// When.
        at: Moment,
    },
}

/// What a receive yielded.
#[derive(Debug)]
pub enum Received {
    /// At least one byte, in a buffer of the driver's pool. Drop it soon: it
    /// counts against the driver's receive memory.
    Data(PooledBuf),
    /// The peer will send no more; whoever asks again is told the same, at once. What it
    /// was sent can still be acknowledged.
    End,
    /// The same, but under TLS the peer did not say so itself (no
    /// `close_notify`, RFC 8446, section 6.1): what it sent may have been cut
    /// short by somebody else.
    Truncated,
}

/// How a connection ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// Everything accepted was sent, and the peer acknowledged all of it and
    /// the end of the stream.
    Graceful,
    /// Everything was sent and the stream was ended, but this backend cannot
    /// learn on this kernel whether the peer acknowledged it.
    Unconfirmed,
    /// It was torn down.
    Failed(FailReason),
}

impl fmt::Display for CloseOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graceful => f.write_str("closed, with everything acknowledged"),
            Self::Unconfirmed => f.write_str("closed; whether all was acknowledged is not known"),
            Self::Failed(reason) => write!(f, "torn down: {reason}"),
        }
    }
}

/// For whoever wanted something of a connection that has ended.
impl std::error::Error for CloseOutcome {}

/// A connected TCP socket on its way to a driver.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    peer: Option<SocketAddr>,
    fresh: AtomicBool,
    connects: bool,
    unlent: bool,
}

impl Socket {
    /// A socket that a backend has just accepted, non-blocking, with nothing
    /// written to it yet. For backends: what is taken for fresh but is not gets
    /// wrong offsets and so wrong completions.
    #[must_use]
    pub fn accepted(stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer: Some(peer),
            fresh: AtomicBool::new(true),
            connects: false,
            unlent: true,
        }
    }

    /// A socket on which a non-blocking `connect(2)` was begun, whatever has become of
    /// it meanwhile. It can be used as soon as it is attached: what is submitted is
    /// sent once it has connected, which [`Event::Connected`] tells. One that puts the
    /// connection off to the first write (`TCP_FASTOPEN_CONNECT`) is refused. Connecting may
    /// take as long as [`AttachOptions::stall_timeout`](crate::AttachOptions), or
    /// else as long as TCP allows.
    #[must_use]
    pub fn connecting(stream: TcpStream) -> Self {
        Self { connects: true, ..Self::from(stream) }
    }

    /// The same, of which its owner knows that nothing was ever sent by `MSG_ZEROCOPY`,
    /// though something may have been written: a greeting, or what comes before TLS.
    /// Otherwise memory is lent to the kernel only where it shows that nothing was
    /// written. Said in error, payloads come back before the kernel is done with them.
    #[must_use]
    pub fn unlent(self) -> Self {
        Self { unlent: true, ..self }
    }

    /// Whether nothing was ever sent on it by `MSG_ZEROCOPY`, as far as is known.
    #[must_use]
    pub fn is_unlent(&self) -> bool {
        self.unlent
    }

    /// Whether it was made by [`Self::connecting`].
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.connects
    }

    /// The other side's address, where the backend knows it already.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether nothing was ever written, and the socket is non-blocking.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    /// The socket itself. It may be written to until it is attached, so it does not
    /// count as fresh any more, and attaching it takes a few calls more.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.fresh.store(false, Ordering::Relaxed);
        &self.stream
    }

    /// The socket itself, for code outside of this library.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// For its options: unlike with [`Socket::stream`], it stays fresh.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Any connected TCP socket, whatever was done with it before. One of multipath TCP
/// (`IPPROTO_MPTCP`) is refused with `EPROTONOSUPPORT`: it shows the account of its
/// first path only, and has no stamps.
///
/// Where something was written before, `SO_ZEROCOPY` is on, or `TCP_INFO` cannot be had
/// to tell, memory is not lent to the kernel by `MSG_ZEROCOPY` but copied: whether that
/// was used before, and so which call its next notification is of, cannot be known
/// (unless by its owner: [`Socket::unlent`]). A
/// ring's own zero copy is used all the same. One that was written to, disconnected
/// (`connect(2)` to `AF_UNSPEC`) and connected again must not be given: it looks like
/// one that was never used.
///
/// One that was accepted with data in its SYN (`TCP_FASTOPEN`) is refused with `EBUSY`
/// if it was written to before the peer has completed the handshake: until then the
/// kernel does not tell how much is under way.
impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { stream, peer: None, fresh: AtomicBool::new(false), connects: false, unlent: false }
    }
}
