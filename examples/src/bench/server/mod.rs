//! The server under test: a process of its own, so that its CPU time is its own.
//!
//! `protocol` is what the bench and the server say to each other over the
//! server's standard input and output, `handle` is the bench's side, `child`
//! the server itself.

mod body;
mod child;
mod handle;
mod protocol;

pub use child::main;
pub use handle::Server;
pub use protocol::{Account, Acked, Body, Config, Ready, Stages, Transfer, Transport};
