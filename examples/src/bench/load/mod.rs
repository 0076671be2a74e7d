//! What keeps a server busy: connections that each ask, read, and ask again.
//!
//! The server connects to the load, not the other way round, so that it can be
//! measured where nobody can connect to it. `generator` is the load itself;
//! `peer` makes one of another machine available.

mod connection;
mod generator;
mod peer;

pub use generator::{Generator, Load};
pub use peer::{Options as PeerOptions, Remote, serve};

use std::net::SocketAddr;
use std::time::Duration;

/// A load, here or on another machine.
pub trait Loader {
    /// Where a server has to connect to.
    fn address(&self) -> SocketAddr;

    /// A server is about to connect so many times, with that certificate if it
    /// speaks TLS.
    ///
    /// # Errors
    /// A line for people.
    fn expect(&mut self, connections: usize, certificate: Option<&str>) -> Result<(), String>;

    /// The connections that were expected, as a group.
    ///
    /// # Errors
    /// A line for people.
    fn group(&mut self) -> Result<usize, String>;

    /// Has each connection of `group` ask for `size` bytes again and again for
    /// `time`; all answers are waited for.
    ///
    /// # Errors
    /// A line for people.
    fn run(&mut self, group: usize, size: u64, time: Duration) -> Result<Load, String>;
}
