//! A refusal gives back what was handed over.

use crate::Facility;
use std::fmt;

/// Something that was not accepted, with the reason.
#[derive(Debug)]
#[must_use = "the refused value is still yours"]
pub struct Refused<T> {
    /// What was handed over, untouched.
    pub value: T,
    /// Why it was not taken.
    pub reason: RefuseReason,
}

impl<T> Refused<T> {
    /// Refuses `value`.
    pub fn new(value: T, reason: RefuseReason) -> Self {
        Self { value, reason }
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

/// Why something was not accepted, and so what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// An empty payload has no last byte that could be acknowledged.
    Empty,
    /// It would be more than a connection can count in 64 bits, or a range that no
    /// file can have.
    TooLong,
    /// No such connection: it is over. A peer can end
    /// one at any time, so this may come before [`Event::Closed`](crate::Event::Closed)
    /// does, which says why: it is no error of the server.
    UnknownConnection,
    /// The connection is closing or has failed, or its direction was
    /// [finished](crate::Driver::finish); it takes nothing more.
    Closing,
    /// Whoever turned the driver has ended, and the driver with it.
    DriverGone,
    /// The driver is at work on this very thread, and has called the code that asks.
    /// Ask from elsewhere.
    WithinDriver,
    /// Too much is outstanding. Submit again when what counts against the limit is
    /// over, which each [`Limit`] says.
    BackPressure {
        /// What is full.
        limit: Limit,
        /// How much is outstanding.
        outstanding: u64,
        /// How much may be.
        allowed: u64,
    },
    /// This kernel lacks what that takes, or the operator has switched it off:
    /// see the [`Report`](crate::Report).
    Lacks {
        /// What it takes.
        facility: Facility,
    },
    /// This driver cannot do that at all.
    Unsupported {
        /// What it lacks.
        what: &'static str,
    },
    /// TLS cannot be begun with what was asked for.
    Tls {
        /// What is wrong.
        what: Box<str>,
    },
    /// The operating system refused.
    System {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer, a value of `errno(3)`.
        errno: i32,
    },
}

/// A bound that a submission ran into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// Payload memory that a connection has not released: ends with `Released`.
    ConnectionMemory,
    /// Transfers that a connection has not finished: ends with the last stage of one,
    /// mostly `Acked`. Its memory may long be released.
    ConnectionTransfers,
    /// Payload memory that all connections of a driver have not released: ends with
    /// `Released`, be it another connection's.
    DriverMemory,
    /// Connections of a driver. One that is closed counts until its descriptor is,
    /// which may be two seconds after `Closed`, while what the peer still sends is
    /// discarded.
    Connections,
    /// Bytes that were submitted before, and that TCP has to have first.
    Unwritten,
    /// Records that are no payload, and that are still to be sealed.
    Records,
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the payload is empty"),
            Self::TooLong => f.write_str("the payload is longer than a connection can count"),
            Self::UnknownConnection => f.write_str("there is no such connection"),
            Self::Closing => f.write_str("the connection is closing"),
            Self::DriverGone => f.write_str("the driver is gone"),
            Self::WithinDriver => f.write_str("it is asked out of the driver's own work"),
            Self::Lacks { facility } => {
                write!(f, "{facility} is lacking: {}", facility.effect_of_lack())
            }
            Self::Unsupported { what } => f.write_str(what),
            Self::Tls { what } => f.write_str(what),
            Self::BackPressure { limit, outstanding, allowed } => {
                let what = match limit {
                    Limit::ConnectionMemory => "bytes of the connection's payloads",
                    Limit::ConnectionTransfers => "transfers of the connection",
                    Limit::DriverMemory => "bytes of the driver's payloads",
                    Limit::Connections => "connections of the driver",
                    Limit::Unwritten => "bytes submitted before",
                    Limit::Records => "control records",
                };
                write!(f, "{outstanding} {what} are outstanding, {allowed} may be")
            }
            Self::System { doing, errno } => {
                write!(f, "{doing}: {}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for RefuseReason {}
