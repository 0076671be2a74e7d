//! `TCP_INFO`, tcp(7): the socket's own account, readable even after a reset.

use super::option::{self, OptionValue};
use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The part of `struct tcp_info` that is used here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpInfo {
    /// Bytes of data acknowledged so far; the SYN of the side that connected and
    /// an acknowledged FIN count as one each. 64 bits, does not wrap.
    pub(crate) bytes_acked: u64,
    /// Segments sent and not acknowledged.
    pub(crate) unacked_segments: u32,
    /// Bytes that have not been sent even once.
    pub(crate) not_sent: u64,
    /// Smoothed round-trip time.
    pub(crate) rtt: Duration,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw(libc::tcp_info);

// SAFETY: `tcp_info` is a C struct of integers.
unsafe impl OptionValue for Raw {}

/// Reads it.
///
/// # Errors
/// `ENOPROTOOPT` also where the kernel's `tcp_info` ends before
/// `tcpi_bytes_acked` (before Linux 4.1).
pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: all-zero bytes are a valid `tcp_info`: it is integers only.
    let mut info = Raw(unsafe { std::mem::zeroed() });
    let known = option::get(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let needed = offset_of!(libc::tcp_info, tcpi_notsent_bytes) + size_of::<u32>();
    if known < needed {
        return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
    }
    Ok(TcpInfo {
        bytes_acked: info.0.tcpi_bytes_acked,
        unacked_segments: info.0.tcpi_unacked,
        not_sent: u64::from(info.0.tcpi_notsent_bytes),
        rtt: Duration::from_micros(u64::from(info.0.tcpi_rtt)),
    })
}
