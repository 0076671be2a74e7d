//! The operations, each with a name that its completions carry.
//!
//! A descriptor that is closed or reused before the kernel has seen an
//! operation is a mistake of the caller's that the kernel answers with `EBADF`
//! or another socket's data; it endangers no memory.

use super::{Completion, Ring, SendMemory};
use io_uring::{opcode, types};
use lastbyte::{Stamp, StampOf, UnixTime};
use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, RawFd};

/// `SOCKET_URING_OP_TX_TIMESTAMP`, `include/uapi/linux/io_uring.h`, Linux 6.17.
const TX_TIMESTAMP: u32 = 4;

/// `IORING_TIMESTAMP_TYPE_SHIFT`, the same file: the bits above are `SCM_TSTAMP_…`.
const TYPE_SHIFT: u32 = 17;

/// `IORING_SEND_ZC_REPORT_USAGE`, Linux 6.2: the notification says whether the
/// kernel copied after all.
const REPORT_USAGE: u16 = 1 << 3;

/// `IORING_SEND_VECTORIZED`, Linux 6.17: a plain send takes slices.
const VECTORIZED: u16 = 1 << 5;

/// What a poll is to report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interest {
    /// Input or the peer's end.
    Input,
    /// Room for output.
    Output,
    /// The error queue or an error.
    Trouble,
}

/// How a send gets at its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// It is copied.
    Copied,
    /// The same without a message around it, for what asks for no stamps
    /// (Linux 6.17): a header less to fetch and to look at.
    Vectored,
    /// It is read where it is, and pinned for that.
    Pinned,
    /// The same out of this place of the kernel's table ([`super::Registered`]),
    /// where it is pinned already (Linux 6.15).
    Registered(u16),
}

impl Ring {
    /// Waits for readiness, once or (`repeatedly`, Linux 5.13) each time that
    /// something changes. What is ready already is reported at once. Errors,
    /// hang-ups and the peer's end are always reported (`io_uring/poll.c`,
    /// `IO_POLL_UNMASK`), so after the peer's end to wait once is not to wait.
    pub(crate) fn poll(
        &mut self,
        fd: RawFd,
        interest: Interest,
        repeatedly: bool,
        name: u64,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Input => libc::POLLIN,
            Interest::Output => libc::POLLOUT,
            Interest::Trouble => libc::POLLERR,
        };
        let events = u32::from(events.cast_unsigned());
        let poll = opcode::PollAdd::new(types::Fd(fd), events).multi(repeatedly);
        self.push(&poll.build().user_data(name))
    }

    /// Accepts again and again, non-blocking sockets (Linux 5.19).
    pub(crate) fn accept(&mut self, fd: RawFd, name: u64) -> io::Result<()> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let accept = opcode::AcceptMulti::new(types::Fd(fd)).flags(flags);
        self.push(&accept.build().user_data(name))
    }

    /// Receives again and again into buffers of `group` (Linux 6.0).
    pub(crate) fn receive(&mut self, fd: RawFd, group: u16, name: u64) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(types::Fd(fd), group);
        self.push(&receive.build().user_data(name))
    }

    /// Takes stamps out of the error queue again and again (Linux 6.17); for a
    /// wide ring.
    pub(crate) fn stamps(&mut self, fd: RawFd, name: u64) -> io::Result<()> {
        let stamps = opcode::UringCmd16::new(types::Fd(fd), TX_TIMESTAMP);
        self.push(&stamps.build().user_data(name))
    }

    /// Sends what `memory` describes, as much as there is room for; does not
    /// wait for room. The caller keeps `memory` and all it refers to until the
    /// operation has completed, and with zero copy until the kernel has said
    /// that it is done with the latter.
    pub(crate) fn send(
        &mut self,
        fd: RawFd,
        memory: &SendMemory,
        way: Way,
        name: u64,
    ) -> io::Result<()> {
        let (fd, header, flags) = (types::Fd(fd), memory.header(), memory.flags());
        let zero_copy = || opcode::SendMsgZc::new(fd, header).flags(flags).ioprio(REPORT_USAGE);
        let entry = match way {
            Way::Copied => opcode::SendMsg::new(fd, header).flags(flags).build(),
            Way::Vectored => {
                let (slices, count) = memory.vector();
                let send = opcode::Send::new(fd, slices.cast(), count);
                send.ioprio(VECTORIZED).flags(flags.cast_signed()).build()
            }
            Way::Pinned => zero_copy().build(),
            Way::Registered(place) => zero_copy().buf_index(Some(place)).build(),
        };
        self.push(&entry.user_data(name))
    }

    /// Ends the operation called `target`, which says so itself.
    pub(crate) fn cancel(&mut self, target: u64, name: u64) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new(target).build().user_data(name))
    }
}

/// The stamp that a completion of [`Ring::stamps`] carries; `None` if it is of a
/// kind that nobody here asked for.
pub(crate) fn stamp(completion: &Completion) -> Option<Stamp> {
    let of = match completion.flags >> TYPE_SHIFT {
        0 => StampOf::Transmitted,
        2 => StampOf::Acked,
        _ => return None,
    };
    let [seconds, nanos] = completion.extra;
    let at = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    // The kernel's 32-bit key goes through a signed field.
    Some(Stamp { of, key: completion.result.cast_unsigned(), at: UnixTime::from_nanos(at) })
}

/// The connection that a completion of [`Ring::accept`] brings.
pub(crate) fn accepted(completion: &Completion) -> io::Result<TcpStream> {
    if completion.result < 0 {
        return Err(io::Error::from_raw_os_error(-completion.result));
    }
    // SAFETY: the kernel has made the descriptor for this completion, which is
    // taken out once, so nobody else knows it.
    Ok(unsafe { TcpStream::from_raw_fd(completion.result) })
}
