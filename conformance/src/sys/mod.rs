//! The system calls that the suite makes beside the backend under test: one
//! kernel facility a file. Nothing outside of here is `unsafe`.
#![allow(unsafe_code, reason = "system calls; each file wraps one kernel facility")]

pub(crate) mod limits;
#[cfg(target_os = "linux")]
pub(crate) mod namespace;
#[cfg(target_os = "linux")]
pub(crate) mod netlink;
#[cfg(target_os = "linux")]
pub(crate) mod parent;
pub(crate) mod poll;
pub(crate) mod private_files;
pub(crate) mod process;
#[cfg(target_os = "linux")]
pub(crate) mod shared_memory;
pub(crate) mod signal;
pub(crate) mod sysctl;
pub(crate) mod tcp;
pub(crate) mod tls_ulp;
pub(crate) mod tun;
