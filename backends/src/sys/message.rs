//! `sendmsg(2)` with what TCP can be asked for by call.

use super::timestamping::Wanted;
use super::uncancelled;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

/// How one call is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Stamps on the call's last byte.
    pub(crate) stamps: Wanted,
    /// `MSG_EOR`: later bytes do not share a buffer with the last one, so its
    /// stamp is neither replaced nor delayed.
    pub(crate) end_of_record: bool,
    /// `MSG_MORE`: more follows at once, wait for it before sending a short segment.
    pub(crate) more: bool,
    /// `MSG_ZEROCOPY`.
    pub(crate) zero_copy: bool,
}

impl Options {
    pub(crate) const PLAIN: Self =
        Self { stamps: Wanted::NONE, end_of_record: false, more: false, zero_copy: false };

    /// As `MSG_…`: never blocks, never raises `SIGPIPE`.
    pub(super) fn flags(self) -> libc::c_int {
        let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        for (wanted, flag) in [
            (self.end_of_record, libc::MSG_EOR),
            (self.more, libc::MSG_MORE),
            (self.zero_copy, libc::MSG_ZEROCOPY),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        flags
    }
}

/// A control message that asks for stamps: a `cmsghdr`, and its data behind it.
#[repr(C)]
pub(super) struct StampRequest {
    header: libc::cmsghdr,
    flags: u32,
    /// Up to the alignment of the header.
    padding: u32,
}

impl StampRequest {
    /// `CMSG_SPACE(4)`. A 64-bit kernel takes anything beyond for the header of
    /// another message, also from a 32-bit process.
    pub(super) const SPACE: usize =
        size_of::<libc::cmsghdr>() + size_of::<u32>().next_multiple_of(size_of::<usize>());

    pub(super) fn new(stamps: Wanted) -> Self {
        // SAFETY: all-zero bytes are a valid `cmsghdr`: it is integers only.
        let header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        let mut request = Self { header, flags: stamps.flags(), padding: 0 };
        request.header.cmsg_level = libc::SOL_SOCKET;
        request.header.cmsg_type = libc::SO_TIMESTAMPING;
        request.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u32>()) as _;
        request
    }
}

/// Writes `slices` to a TCP socket, never blocks, never raises `SIGPIPE`.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    options: Options,
) -> io::Result<usize> {
    let mut request = StampRequest::new(options.stamps);
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    if options.stamps.any() {
        message.msg_control = (&raw mut request).cast();
        message.msg_controllen = StampRequest::SPACE as _;
    }
    // SAFETY: `IoSlice` has the layout of `iovec`, and the kernel does not write
    // through it. Slices, control message and header outlive the call; with
    // `MSG_ZEROCOPY` the kernel reads the slices' memory for longer, which the
    // caller provides for by holding the payload until the kernel reports that
    // it is done (`Ledger`).
    super::check_len(unsafe { uncancelled::sendmsg(socket, &raw const message, options.flags()) })
}
