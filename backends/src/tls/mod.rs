//! TLS as a layer over any backend, in user space or by the kernel.
//!
//! [`TlsBackend`] is a backend that wraps another. Its drivers make the
//! handshake by a TLS library ([`TlsProvider`]; [`Rustls`] is shipped), take the
//! keys over when it is done, and from then on seal and open the records
//! themselves: so the ciphertext is in buffers that belong to this layer, goes
//! to the inner driver as an owned payload, and comes back when that has
//! released it. The kernel may read such a buffer until then, however long after
//! the write that is; no later record can get into it.
//!
//! What was promised of plain connections holds here too, of the *wire's* bytes:
//! a transfer is acknowledged when the last byte of its last record is. One thing
//! is different: a payload is released when it is sealed, which is before it is
//! sent. What is in flight is ciphertext, counted in
//! [`Counters::ciphertext_bytes`](lastbyte::Counters::ciphertext_bytes) and
//! bounded per connection.
//!
//! Where the inner driver has kernel TLS ([`TlsOptions::offload`]), it is handed
//! the keys after the handshake: then payloads go to it as they are, and this
//! layer is left with alerts, tickets, and changes of keys.
//!
//! This module makes no system call but reading files, and contains nothing of
//! any backend's.
//!
//! `driver` (tables, turns) → `connection` (phases) → `handshake`, `session`
//! (messages), `sealing` and `input` (payloads to records and back), `aead`,
//! `transfers` (whose ciphertext is whose), `forwarding` (kernel TLS).

#![forbid(unsafe_code)]

mod aead;
mod backend;
mod connection;
mod context;
mod driver;
mod forwarding;
mod handshake;
mod input;
mod record;
mod rustls_023;
mod sealing;
mod session;
mod transfers;

pub use backend::{TlsBackend, TlsOptions};
pub use handshake::{Established, Handshake, KeySchedule, Step, TlsProvider};
pub use rustls_023::{ClientCertificates, Rustls, TlsConfigError, TlsTerms};
