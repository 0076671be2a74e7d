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
    /// Bytes of data that have been sent, those sent again included. `None` where
    /// the kernel does not count them (before Linux 4.19).
    pub(crate) bytes_sent: Option<u64>,
    /// See [`is_half_open`].
    pub(crate) half_open: bool,
    /// Smoothed round-trip time.
    pub(crate) rtt: Duration,
}

impl TcpInfo {
    /// Whether something that was written is not acknowledged.
    pub(crate) fn is_under_way(&self) -> bool {
        self.unacked_segments > 0 || self.not_sent > 0
    }

    /// Whether nothing was ever written since the socket connected.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.bytes_sent == Some(0) && self.not_sent == 0
    }
}

/// `TCP_SYN_RECV` (`include/net/tcp_states.h`).
const SYN_RECV: u8 = 3;

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
    let counts_sent = known >= offset_of!(libc::tcp_info, tcpi_bytes_sent) + size_of::<u64>();
    Ok(TcpInfo {
        bytes_acked: info.0.tcpi_bytes_acked,
        unacked_segments: info.0.tcpi_unacked,
        not_sent: u64::from(info.0.tcpi_notsent_bytes),
        bytes_sent: counts_sent.then_some(info.0.tcpi_bytes_sent),
        half_open: info.0.tcpi_state == SYN_RECV,
        rtt: Duration::from_micros(u64::from(info.0.tcpi_rtt)),
    })
}

/// Whether the peer has still to complete the handshake of a connection that was
/// accepted with data in its SYN (`TCP_FASTOPEN`). It can be written to, but its
/// out-queue is shown as empty (`net/ipv4/tcp.c`, `tcp_ioctl`). Any kernel's
/// `tcp_info` begins with the state; where it cannot be read at all, not.
pub(crate) fn is_half_open(fd: BorrowedFd<'_>) -> bool {
    let mut state = [0];
    let read = option::get_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state);
    read.is_ok() && state == [SYN_RECV]
}
