//! What the ledger reports.

use crate::{
    ConnectionId, Evidence, Method, Moment, Payload, Stage, TlsFailure, TransferId, Transport,
};
use std::fmt;

/// One stage of one transfer: when, how that is known, and what was done.
#[derive(Debug)]
#[must_use = "a Released completion carries the payload back"]
pub struct Completion {
    /// The connection of the transfer.
    pub connection: ConnectionId,
    /// The transfer.
    pub transfer: TransferId,
    /// What happened to it.
    pub reached: Reached,
    /// When.
    pub at: Moment,
    /// How `at` is known.
    pub evidence: Evidence,
    /// What moved its bytes, as far as is known by now. The last word is in the
    /// [`Reached::Released`] completion; under user TLS, where a payload is
    /// released before its ciphertext is moved, in the transfer's last one.
    pub method: Method,
    /// What turned its bytes into wire bytes.
    pub transport: Transport,
}

impl Completion {
    /// The stage that was reached.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.reached {
            Reached::Queued => Stage::Queued,
            Reached::Transmitted => Stage::Transmitted,
            Reached::Acked => Stage::Acked,
            Reached::Released(_) => Stage::Released,
            Reached::Failed(_) => Stage::Failed,
        }
    }
}

/// A stage and what comes with it.
#[derive(Debug)]
pub enum Reached {
    /// See [`Stage::Queued`].
    Queued,
    /// See [`Stage::Transmitted`].
    Transmitted,
    /// See [`Stage::Acked`].
    Acked,
    /// See [`Stage::Released`].
    Released(Memory),
    /// See [`Stage::Failed`].
    Failed(Failure),
}

/// What became of a payload's memory.
#[derive(Debug)]
pub enum Memory {
    /// It is the user's again.
    Returned(Payload),
    /// The kernel did not let go of it before the deadline, so it was leaked:
    /// it is never written, reused or freed.
    Leaked {
        /// Bytes of memory that are gone.
        bytes: u64,
    },
}

/// Why a transfer ended early, and how far the peer got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Why.
    pub reason: FailReason,
    /// Bytes of this transfer that the peer's TCP is known to have acknowledged. Under
    /// TLS these are the bytes of whole records; where the kernel seals, which of a
    /// call are whole is not known one by one, and those of up to 2 MiB may be missing.
    pub acked_bytes: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes acknowledged)", self.reason, self.acked_bytes)
    }
}

impl std::error::Error for Failure {}

/// Why a connection, and with it its unfinished transfers, came to an end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FailReason {
    /// The peer reset the connection.
    Reset,
    /// The peer acknowledged nothing new, or did not finish, in the time allowed.
    Timeout,
    /// The user gave the connection up.
    Cancelled,
    /// The driver was dropped.
    Closed,
    /// A file ended before the range that was to be sent.
    FileTruncated {
        /// Bytes that were still to be read.
        missing: u64,
    },
    /// A system call failed.
    System {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer, a value of `errno(3)`.
        errno: i32,
    },
    /// TLS could not go on.
    Tls(TlsFailure),
}

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the peer reset the connection"),
            Self::Timeout => f.write_str("the peer made no progress in the time allowed"),
            Self::Cancelled => f.write_str("the connection was given up"),
            Self::Closed => f.write_str("the driver was dropped"),
            Self::FileTruncated { missing } => {
                write!(f, "the file ended {missing} bytes before the range to be sent")
            }
            Self::System { doing, errno } => {
                write!(f, "{doing}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Tls(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for FailReason {}

impl From<TlsFailure> for FailReason {
    fn from(failure: TlsFailure) -> Self {
        Self::Tls(failure)
    }
}
