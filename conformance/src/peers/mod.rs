//! Real TCP peers, one behaviour a file: each runs in a thread of its own on an
//! ordinary blocking socket, but for those that a case steps itself.

mod answering;
mod flooding;
mod half_closing;
mod puppet;
mod raw;
mod reader;
mod record_peer;
mod resetting;
mod sending_first;
mod stalling;

pub(crate) use answering::answering;
pub(crate) use flooding::Flooding;
pub(crate) use half_closing::half_closing;
pub(crate) use puppet::Puppet;
pub(crate) use raw::wire_to_end;
pub(crate) use reader::{byte_at_a_time, reader, reader_of};
pub(crate) use record_peer::RecordPeer;
pub(crate) use resetting::{reset, resetting};
pub(crate) use sending_first::sending_first;
pub(crate) use stalling::Stalling;

use crate::failure::{Failure, ensure};
use crate::far_end::{FarEnd, Records};
use crate::pattern::Checker;
use std::io::{self, Read};
use std::thread::JoinHandle;
use std::time::Instant;

/// How a stream ended for its reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// With a FIN, and under TLS with a `close_notify` before that.
    Finished,
    /// With a FIN alone, where there should have been a `close_notify`.
    Truncated,
    /// With an alert that says that something went wrong.
    Alerted,
    /// With a reset.
    Reset,
    /// The peer itself stopped.
    Left,
}

impl End {
    /// What an error is the end by; none if it is no end.
    fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Some(Self::Truncated),
            io::ErrorKind::ConnectionReset => Some(Self::Reset),
            io::ErrorKind::ConnectionAborted => Some(Self::Alerted),
            _ => None,
        }
    }
}

/// What a peer saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Checker,
    pub(crate) end: End,
    /// When it read the last byte.
    pub(crate) last_read: Instant,
    /// Which bytes of the wire those were.
    pub(crate) records: Records,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            stream: Checker::default(),
            end: End::Left,
            last_read: Instant::now(),
            records: Records::default(),
        }
    }

    /// Fails unless it was exactly the first `len` bytes of the pattern.
    #[track_caller]
    pub(crate) fn expect(&self, len: u64, end: End) -> Result<(), Failure> {
        self.expect_intact()?;
        let got = self.stream.received();
        ensure!(got == len, "the peer got {got} bytes instead of {len} ({:?})", self.end);
        ensure!(self.end == end, "the stream ended {:?} instead of {end:?}", self.end);
        Ok(())
    }

    /// Fails if a byte was not the pattern's, however many there were.
    pub(crate) fn expect_intact(&self) -> Result<(), Failure> {
        match self.stream.wrong_at() {
            None => Ok(()),
            Some(offset) => Err(Failure::new(format!("the peer read a wrong byte at {offset}"))),
        }
    }

    /// Reads once into `buffer`; says whether the stream goes on.
    fn read(&mut self, far: &mut FarEnd, buffer: &mut [u8]) -> io::Result<bool> {
        match far.read(buffer) {
            Ok(0) => self.end = End::Finished,
            Ok(n) => {
                self.stream.take(&buffer[..n]);
                self.last_read = Instant::now();
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => self.end = End::of(&error).ok_or(error)?,
        }
        Ok(false)
    }
}

/// A peer in its thread.
#[derive(Debug)]
pub(crate) struct Peer {
    thread: JoinHandle<io::Result<Seen>>,
}

impl Peer {
    /// `run` puts down what it sees.
    fn spawn(
        mut far: FarEnd,
        run: impl FnOnce(&mut FarEnd, &mut Seen) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("peer".into()).spawn(move || {
            let mut seen = Seen::new();
            run(&mut far, &mut seen)?;
            seen.records.clone_from(far.records());
            Ok(seen)
        })?;
        Ok(Self { thread })
    }

    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it is done.
    pub(crate) fn join(self) -> Result<Seen, Failure> {
        match self.thread.join() {
            Ok(seen) => Ok(seen?),
            Err(_) => Err(Failure::new("a peer panicked")),
        }
    }
}
