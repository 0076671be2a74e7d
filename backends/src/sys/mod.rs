//! The kernel ABI: one facility a file, each with its probe beside it. The only
//! place in the workspace's libraries that contains `unsafe`.
//!
//! What is listed first exists on every Unix; the rest is Linux's. A build with
//! `--cfg lastbyte_portable` leaves the latter out on Linux too, so that the
//! portable build can be tested there.

#![allow(unsafe_code, reason = "this is the layer that talks to the kernel")]

pub(crate) mod clock;
pub(crate) mod poll;
pub(crate) mod pollable;
pub(crate) mod pread;
#[cfg(feature = "tls")]
pub(crate) mod preadv;

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(lastbyte_portable)))] {
        pub(crate) mod accept;
        pub(crate) mod disconnect;
        pub(crate) mod error_queue;
        pub(crate) mod event_fd;
        pub(crate) mod fast_open;
        mod huge_page;
        pub(crate) mod input;
        pub(crate) mod message;
        mod option;
        pub(crate) mod out_queue;
        pub(crate) mod protocol;
        pub(crate) mod ring;
        pub(crate) mod sealed_memory;
        pub(crate) mod sendfile;
        pub(crate) mod tcp_info;
        pub(crate) mod timestamping;
        pub(crate) mod tls_ulp;
        mod uncancelled;
        pub(crate) mod zero_copy;
    } else {
        #[allow(dead_code, reason = "the probe keeps callers away from what is lacking")]
        mod portable;
        pub(crate) use portable::*;
    }
}

/// Turns a system call's -1 into the error it left in `errno`.
fn check(returned: libc::c_int) -> std::io::Result<libc::c_int> {
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(returned) }
}

/// As [`check`], for calls that return a length.
fn check_len(returned: isize) -> std::io::Result<usize> {
    usize::try_from(returned).map_err(|_| std::io::Error::last_os_error())
}
