//! What a readiness driver needs of the operating system's selector.

use lastbyte::Wake;
use std::io;
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
}

/// Tells which descriptors became ready.
///
/// The driver remembers readiness and clears its memory when a call says
/// `EAGAIN`, so an edge-triggered selector needs no [`Selector::want`]; a
/// level-triggered one is told what is worth reporting.
pub(crate) trait Selector: std::fmt::Debug {
    fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()>;

    fn remove(&mut self, fd: BorrowedFd<'_>, token: usize);

    /// From now on report input, output; errors always.
    fn want(&mut self, token: usize, input: bool, output: bool);

    /// Waits for events, and puts those that came into `ready`, which is empty.
    fn wait(&mut self, wait: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    fn pollable(&self) -> Option<BorrowedFd<'_>>;

    fn waker(&self) -> Arc<dyn Wake>;
}
