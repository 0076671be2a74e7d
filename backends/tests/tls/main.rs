//! TLS over a scripted inner driver, and over real sockets with real peers.

#![cfg(all(target_os = "linux", not(lastbyte_portable)))]

mod certificates;
mod connecting;
mod ending;
mod failing;
#[cfg(feature = "tokio")]
mod futures;
mod handshakes;
mod hostile;
mod interop;
mod kernel;
mod key_expired;
mod key_limit;
mod ownership;
mod plain;
mod property;
mod records;
mod scripted;
mod sharing;
mod truncated;
#[cfg(feature = "tokio")]
mod within;
mod world;
