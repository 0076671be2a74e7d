//! `SO_TIMESTAMPING` on TCP: who gets a stamp, and how it is named
//! (`Documentation/networking/timestamping.rst`).

use super::option;
use std::io;
use std::os::fd::BorrowedFd;

/// Reporting and naming, set once for a socket's life. No transmit bit is
/// among them: those are asked for by call.
///
/// `OPT_TSONLY` keeps payload out of the error queue, `OPT_ID` names the byte.
const REPORT: libc::c_uint = libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY;

/// `SOF_TIMESTAMPING_OPT_ID_TCP`, `include/uapi/linux/net_tstamp.h`, Linux 6.2:
/// names count from the next byte written, not from the first unacknowledged.
const OPT_ID_TCP: libc::c_uint = 1 << 16;

/// Which stamps a call asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) acked: bool,
    pub(crate) transmitted: bool,
}

impl Wanted {
    pub(crate) const NONE: Self = Self { acked: false, transmitted: false };

    pub(super) fn flags(self) -> libc::c_uint {
        (if self.acked { libc::SOF_TIMESTAMPING_TX_ACK } else { 0 })
            | (if self.transmitted { libc::SOF_TIMESTAMPING_TX_SOFTWARE } else { 0 })
    }

    pub(crate) fn any(self) -> bool {
        self.acked || self.transmitted
    }
}

/// Makes stamps reportable on a connected socket, named from the byte that is
/// written next (`from_next_byte`, Linux 6.2) or from the first unacknowledged.
pub(crate) fn enable(fd: BorrowedFd<'_>, from_next_byte: bool) -> io::Result<()> {
    set(fd, REPORT | if from_next_byte { OPT_ID_TCP } else { 0 })
}

/// As [`enable`] did, and from now on every call asks for these stamps. Under
/// kernel TLS calls cannot ask by themselves (`net/tls/tls_main.c`,
/// `tls_process_cmsg`). Names go on as they were.
pub(crate) fn always(fd: BorrowedFd<'_>, from_next_byte: bool, stamps: Wanted) -> io::Result<()> {
    set(fd, REPORT | stamps.flags() | if from_next_byte { OPT_ID_TCP } else { 0 })
}

/// Undoes what a former owner of the socket has set, so that names start anew.
pub(crate) fn clear(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, 0)
}

fn set(fd: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    option::set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags.cast_signed())
}
