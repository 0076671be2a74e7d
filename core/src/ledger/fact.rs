//! What a ledger is told.

use crate::{Method, Moment, Time, UnixTime, WireOffset};

/// A call that the kernel took bytes from.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// How it was asked to move them.
    pub method: Method,
    /// When it began.
    pub began: Time,
    /// Whether a stamp was asked for on its last byte.
    pub stamped: bool,
}

/// A kernel timestamp from the error queue or a completion queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// Of what.
    pub of: StampOf,
    /// The kernel's name for the byte (`ee_data`).
    pub key: u32,
    /// When, on the wall clock.
    pub at: UnixTime,
}

/// What a stamp dates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StampOf {
    /// The byte was handed to the device (`SCM_TSTAMP_SND`).
    Transmitted,
    /// The byte was acknowledged (`SCM_TSTAMP_ACK`).
    Acked,
}

/// A look at the socket's own account (`TCP_INFO`, out-queue).
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Bytes that the peer has acknowledged.
    pub acked: Option<WireOffset>,
    /// Bytes that were handed to the device at least once, where the backend can tell.
    /// `tcpi_notsent_bytes` does not: what TCP has sent may wait in a queue yet.
    pub transmitted: Option<WireOffset>,
    /// When the look began: what it does not show had not happened by then.
    pub began: Time,
    /// When it ended: what it shows had happened by then.
    pub at: Moment,
}
