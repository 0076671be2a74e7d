//! What a driver needs of the operating system's selector.

use super::ahead::Ahead;
use crate::sys::ring::SendMemory;
use lastbyte::{Arena, Counters, NotRegistered, Stamp, Wake};
use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// One descriptor on which something happened. Flags are hints: acting on one
/// that is not so gets `EAGAIN`, never a wrong result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The error queue or the socket's error has something.
    pub(crate) error: bool,
    /// The peer has ended its stream, or the connection is over.
    pub(crate) read_closed: bool,
    /// There is urgent data, in front of which a read stops.
    pub(crate) urgent: bool,
}

/// What a selector has to tell.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A descriptor became ready.
    Ready(Ready),
    /// The kernel has done something by itself for the owner of `token`.
    Done { token: usize, done: Done },
}

impl Happening {
    /// Whom it concerns.
    pub(crate) fn token(&self) -> usize {
        match self {
            Self::Ready(ready) => ready.token,
            Self::Done { token, .. } => *token,
        }
    }
}

/// What a kernel that completes operations has done.
#[derive(Debug)]
pub(crate) enum Done {
    /// Input came, asked for or not.
    Received(Ahead),
    /// The peer ended its stream, or reading failed.
    ReceiveEnded(io::Result<()>),
    /// A stamp.
    Stamped(Stamp),
    /// The send that was started has this result; `memory` is free again.
    Sent { memory: SendMemory, result: io::Result<usize> },
    /// The kernel is done with the payload of this zero-copy call.
    Released { call: u32, copied: bool },
    /// A connection was accepted.
    Accepted(TcpStream),
    /// Accepting has come to an end.
    AcceptFailed(io::Error),
}

/// What a selector completes by itself; what it does not, its readiness is for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Completes {
    /// [`Selector::send`] can be used.
    pub(crate) sends: bool,
    /// And with zero copy, too.
    pub(crate) zero_copy_sends: bool,
    /// [`Done::Received`] may come instead of readiness.
    pub(crate) receives: bool,
    /// [`Done::Accepted`] comes instead of readiness.
    pub(crate) accepts: bool,
}

impl Completes {
    /// Whether it does anything for connections.
    pub(crate) fn serves_connections(self) -> bool {
        self.sends || self.receives
    }

    /// Whether memory is lent by its operations, and not by `MSG_ZEROCOPY`.
    pub(crate) fn lends(self) -> bool {
        self.zero_copy_sends && self.serves_connections()
    }
}

/// Tells which descriptors became ready, and may do more.
///
/// The driver remembers readiness and clears its memory when a call says
/// `EAGAIN`, so an edge-triggered selector needs no [`Selector::want`]; a
/// level-triggered one is told what is worth reporting.
pub(crate) trait Selector: std::fmt::Debug {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()>;

    /// Forgets a descriptor, which stays open.
    fn remove(&mut self, fd: BorrowedFd<'_>, token: usize);

    /// Forgets a connection that is to be closed as soon as it is not
    /// [retiring](Self::is_retiring). Until then the token stays in use.
    fn retire(&mut self, fd: BorrowedFd<'_>, token: usize) {
        self.remove(fd, token);
    }

    /// Takes what was retired as far as it comes without waiting.
    fn end_retired(&mut self) {}

    /// Whether the kernel still has to do with what was retired: its operations
    /// keep a connection open beyond a `close(2)`.
    fn is_retiring(&self, _: usize) -> bool {
        false
    }

    /// From now on report input, output; errors always.
    fn want(&mut self, token: usize, input: bool, output: bool);

    /// From now on input of this connection is read by calls: none is to be taken
    /// ahead; or, with `false`, it may be again.
    fn read_by_call(&mut self, _: usize, _: bool) {}

    /// Waits for events, and puts those that came into `happened`, which is
    /// empty.
    fn wait(&mut self, wait: Option<Duration>, happened: &mut Vec<Happening>) -> io::Result<()>;

    /// How long its descriptor may be relied on to tell of everything; for ever if none.
    fn looks_again_after(&self) -> Option<Duration> {
        None
    }

    /// Whether there is something to do at once, though no descriptor says so.
    fn is_pressed(&self) -> bool {
        false
    }

    /// What it does by itself.
    fn completes(&self) -> Completes {
        Completes::default()
    }

    /// Starts a send. The payload that `memory` refers to stays where it is
    /// until [`Done::Sent`], and with `zero_copy` until [`Done::Released`].
    fn send(&mut self, _: usize, memory: SendMemory, _zero_copy: bool) {
        debug_assert!(false, "this selector does not send {memory:?}");
    }

    /// Has the kernel pin memory that sends are made from.
    fn register(&mut self, _: &Arena) -> Result<(), NotRegistered> {
        Err(NotRegistered::Unsupported)
    }

    /// Has the kernel pin it no longer, but for what is being sent.
    fn unregister(&mut self, _: &Arena) {}

    /// Adds to `counters` what it alone knows.
    fn count(&self, _: &mut Counters) {}

    /// Stops accepting, and gives the connections that were accepted already.
    fn stop_accepting(&mut self, _: usize) -> Vec<TcpStream> {
        Vec::new()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>>;

    fn waker(&self) -> Arc<dyn Wake>;
}
