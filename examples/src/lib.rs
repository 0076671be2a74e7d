//! The reference server of [`lastbyte`], and what it is made of.
//!
//! Nothing in here names a backend: everything is written against
//! [`lastbyte::Driver`] and its neighbours, as a server of your own would be.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod bench;
pub mod serve;
