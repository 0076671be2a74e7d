//! Real TCP peers, one behaviour a file: each runs in a thread of its own on an
//! ordinary blocking socket, but for the puppet, which a case steps itself.

mod flooding;
mod half_closing;
mod puppet;
mod reader;
mod resetting;
mod stalling;

pub(crate) use flooding::Flooding;
pub(crate) use half_closing::half_closing;
pub(crate) use puppet::Puppet;
pub(crate) use reader::{byte_at_a_time, reader, reader_of};
pub(crate) use resetting::{reset, resetting};
pub(crate) use stalling::Stalling;

use crate::failure::{Failure, ensure};
use crate::pattern::Checker;
use std::io::{self, Read};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Instant;

/// How a stream ended for its reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// With a FIN.
    Finished,
    /// With a reset.
    Reset,
    /// The peer itself stopped.
    Left,
}

/// What a peer saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Checker,
    pub(crate) end: End,
    /// When it read the last byte.
    pub(crate) last_read: Instant,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { stream: Checker::default(), end: End::Left, last_read: Instant::now() }
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
    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        match socket.read(buffer) {
            Ok(0) => self.end = End::Finished,
            Ok(n) => {
                self.stream.take(&buffer[..n]);
                self.last_read = Instant::now();
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.end = End::Reset,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
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
    fn spawn(run: impl FnOnce() -> io::Result<Seen> + Send + 'static) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("peer".into()).spawn(run)?;
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
