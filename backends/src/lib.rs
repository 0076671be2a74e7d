//! Backends of [`lastbyte`] and the choice among them at run time.
//!
//! ```no_run
//! use lastbyte::{Choice, DriverConfig, EventQueue, Restrictions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
//! println!("{} on {}", backend.kind(), backend.report());
//! let queue = EventQueue::default();
//! let mut driver = backend.driver(&DriverConfig::default(), Box::new(queue.sink()))?;
//! driver.turn(Some(std::time::Duration::ZERO))?;
//! # Ok(()) }
//! ```
//!
//! Semantics live in [`lastbyte`]; a backend here is a thin driver that turns
//! what sockets tell into facts. `sys` is the only module that contains `unsafe`.

#![deny(unsafe_code)]

mod connect;
mod epoll;
#[cfg_attr(
    not(all(target_os = "linux", not(lastbyte_portable))),
    allow(dead_code, unused_imports, reason = "only a ring completes operations by itself")
)]
mod facilities;
mod fallback;
mod open;
mod probe;
#[cfg(any(feature = "tls", feature = "tokio"))]
mod queue;
#[cfg(all(target_os = "linux", not(lastbyte_portable)))]
mod ring;
#[cfg_attr(
    not(all(target_os = "linux", not(lastbyte_portable))),
    allow(dead_code, unused_imports, reason = "only a ring completes operations by itself")
)]
mod sockets;
mod sys;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use connect::connect;
pub use open::{
    BACKEND_VARIABLE, BUILT, DISABLE_VARIABLE, EnvError, ZERO_COPY_THRESHOLD_VARIABLE,
    choice_from_env, open, restrictions_from_env, zero_copy_threshold_from_env,
};
pub use probe::report;
pub use sys::sealed_memory::SealedMemory;

/// The README's and the book's examples, compiled as documentation tests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/integration.md")]
    struct Integration;
    #[cfg(feature = "tls")]
    #[doc = include_str!("../../docs/tls.md")]
    struct Tls;
}
