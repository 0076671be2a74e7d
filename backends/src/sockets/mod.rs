//! The driver of the kernel's TCP sockets: it does what a socket is ready for,
//! takes in what a ring has done by itself, and turns what the kernel answers
//! into facts for the connection's ledger.
//!
//! Every backend is this driver over a selector (`mio`, `poll(2)`, the ring of
//! [`crate::ring`]) and a set of facilities. A connection's files follow its life: [`attach`],
//! [`send`], [`receive`], [`notice`] (what became of sent bytes), [`closing`];
//! [`kernel_tls`] for those whose records the kernel seals and opens.

pub(crate) mod ahead;
mod attach;
mod backend;
mod closing;
mod connecting;
mod connection;
mod context;
pub(crate) mod driver;
mod kernel_tls;
mod listener;
pub(crate) mod mio_selector;
pub(crate) mod native;
mod notice;
pub(crate) mod poll_selector;
mod receive;
pub(crate) mod selector;
mod send;
mod shape;
mod standing;
mod table;
mod timers;

pub(crate) use backend::{SocketBackend, receive_buffer};
pub(crate) use driver::{is_listener, share_of_turn};
