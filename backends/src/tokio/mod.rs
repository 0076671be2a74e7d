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
//!
//! A proxy uses both directions of two connections at once:
//!
//! ```
//! use lastbyte::{CloseOutcome, Payload, Watch};
//! use lastbyte_backends::tokio::{Connection, Receiver, Sender};
//! use std::{error::Error, time::Duration};
//! # use lastbyte::{AttachOptions, Choice, DriverConfig, Restrictions};
//! # use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
//!
//! /// Carries what comes on one connection to another, until it ends. The next is only
//! /// received when the kernel has the last, so that the slower side sets the pace.
//! /// The end is passed on too, and the other direction goes on.
//! async fn carry(from: &mut Receiver, to: &Sender) -> Result<(), Box<dyn Error + Send + Sync>> {
//!     while let Some(data) = from.receive().await? {
//!         to.send(Payload::from(data), Watch::QUEUED)?.queued().await?;
//!     }
//!     to.finish();
//!     Ok(())
//! }
//!
//! /// Until both sides have ended.
//! async fn proxy(
//!     mut client: Connection,
//!     mut server: Connection,
//! ) -> Result<[CloseOutcome; 2], Box<dyn Error + Send + Sync>> {
//!     let (to_client, from_client) = client.split();
//!     let (to_server, from_server) = server.split();
//!     let carried = tokio::try_join!(
//!         carry(from_client, to_server),
//!         carry(from_server, to_client),
//!     );
//!     if let Err(error) = carried {
//!         // What was cut off on one side must not look complete on the other.
//!         client.abort();
//!         server.abort();
//!         return Err(error);
//!     }
//!     // However slowly they read: whoever stops is given up by `stall_timeout`.
//!     let within = Duration::from_secs(24 * 3600);
//!     let (client, server) = tokio::join!(client.close(within), server.close(within));
//!     Ok([client, server])
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
//! # let handle = lastbyte_backends::tokio::spawn(&*backend, &DriverConfig::default())?;
//! # let pair = || -> Result<(Connection, TcpStream), Box<dyn std::error::Error>> {
//! #     let listener = TcpListener::bind("127.0.0.1:0")?;
//! #     let far = TcpStream::connect(listener.local_addr()?)?;
//! #     let near = listener.accept()?.0.into();
//! #     Ok((handle.attach(near, &AttachOptions::default())?, far))
//! # };
//! # let ((one, mut client), (other, mut server)) = (pair()?, pair()?);
//! # let peers = std::thread::spawn(move || -> std::io::Result<String> {
//! #     client.write_all(b"ping")?;
//! #     client.shutdown(std::net::Shutdown::Write)?;
//! #     let mut asked = String::new();
//! #     server.read_to_string(&mut asked)?;
//! #     assert_eq!(asked, "ping");
//! #     server.write_all(b"pong")?;
//! #     drop(server);
//! #     let mut answer = String::new();
//! #     client.read_to_string(&mut answer)?;
//! #     Ok(answer)
//! # });
//! # let outcomes = tokio::spawn(proxy(one, other)).await?.map_err(|error| error.to_string())?;
//! # assert_eq!(outcomes[0], CloseOutcome::Graceful);
//! # assert_eq!(peers.join().unwrap()?, "pong");
//! # Ok(()) })
//! # }
//! ```

mod alarm;
mod connection;
mod failing;
mod halves;
mod handle;
mod inbox;
mod listener;
mod listeners;
mod news;
mod nudge;
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
