//! What a review found, as tests: each names the behaviour that was missing.

#![cfg(all(target_os = "linux", not(lastbyte_portable)))]

mod apart;
mod bounds;
mod closing;
mod connecting;
mod fast_open;
mod input;
mod lending;
mod pace;
mod protocol;
mod receive_ahead;
mod sending;
mod stamps;
mod transmitted;
mod world;
