//! Futures over any backend, for programs on tokio. With the feature `tokio`.
//!
//! [`spawn`] gives a driver to a task of the current runtime, which turns it
//! whenever there is something to do; no thread is started. What it hands out is
//! `Send`, and cancel-safe: a future that is dropped gives up the news, never
//! the bytes. Payloads belong to the driver until it releases them.
//!
//! ```
//! use lastbyte::{AttachOptions, Choice, DriverConfig, Payload, Restrictions, Watch};
//! use std::{io::Read, net::{TcpListener, TcpStream}, time::Duration};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
//! let handle = lastbyte_backends::tokio::spawn(&*backend, &DriverConfig::default())?;
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut peer = TcpStream::connect(listener.local_addr()?)?;
//!
//! let mut listener = handle.listen(listener)?;
//! let connection = handle.attach(listener.accept().await?, &AttachOptions::default())?;
//! let mut transfer = connection.send(Payload::from(&b"hello"[..]), Watch::ACKED)?;
//! let acked = transfer.acked().await?;
//! println!("the client has it: {} ({})", acked.at, acked.evidence);
//! connection.close(Duration::from_secs(10)).await;
//! # let mut all = String::new();
//! # peer.read_to_string(&mut all)?;
//! # assert_eq!(all, "hello");
//! # Ok(()) })
//! # }
//! ```

mod connection;
mod failing;
mod halves;
mod handle;
mod inbox;
mod listener;
mod listeners;
mod shared;
mod standing;
mod transfer;
mod turning;
mod waiting;
mod within;

pub use connection::Connection;
pub use halves::{Receiver, Sender};
pub use handle::{Handle, spawn};
pub use listener::Listener;
pub use transfer::{Ended, Transfer};
