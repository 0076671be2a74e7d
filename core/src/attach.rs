//! What a driver is told with a connection, and says of it.

use crate::{ConnectionId, OffloadWish};
use std::time::Duration;

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
    /// this long while something is unacknowledged, or has not connected by then.
    /// `None`: only TCP's own limits apply.
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
    /// What its stages will rest on; of one that is still connecting, if its socket
    /// turns out to be like others.
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
