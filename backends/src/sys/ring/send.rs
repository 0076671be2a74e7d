//! What the kernel reads of a send beside the bytes themselves.

use crate::sys::message::{Options, StampRequest};
use std::ops::Range;
use std::ptr;

/// Slices that one send takes.
const SLICES: usize = 17;

/// A `msghdr` with its slices and its control message. The kernel reads it when
/// the send is submitted, and the control message also later.
///
/// It refers to itself, so it stays in its box, and to payload memory, which the
/// connection's ledger keeps until the send has completed and, for zero copy,
/// until the kernel has let go of it.
pub(crate) struct SendMemory(Box<Message>);

struct Message {
    header: libc::msghdr,
    slices: [libc::iovec; SLICES],
    count: usize,
    request: StampRequest,
    flags: u32,
}

// SAFETY: the pointers are only followed by the kernel. The box may move between
// threads together with the driver whose ledgers keep what they point to.
unsafe impl Send for SendMemory {}

impl SendMemory {
    pub(crate) fn new() -> Self {
        let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and integers.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let request = StampRequest::new(Options::PLAIN.stamps);
        Self(Box::new(Message { header, slices: [none; SLICES], count: 0, request, flags: 0 }))
    }

    /// Describes a send of `slices`, as many as fit, and says how many bytes
    /// that is.
    pub(crate) fn fill<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        options: Options,
    ) -> u64 {
        let mut len = 0;
        let mut count = 0;
        for (place, bytes) in self.0.slices.iter_mut().zip(slices) {
            *place =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            len += bytes.len() as u64;
            count += 1;
        }
        self.0.request = StampRequest::new(options.stamps);
        self.0.flags = options.flags().cast_unsigned();
        self.0.header.msg_iov = self.0.slices.as_mut_ptr();
        self.0.header.msg_iovlen = count as _;
        self.0.count = count;
        if options.stamps.any() {
            self.0.header.msg_control = (&raw mut self.0.request).cast();
            self.0.header.msg_controllen = StampRequest::SPACE as _;
        } else {
            self.0.header.msg_control = ptr::null_mut();
            self.0.header.msg_controllen = 0;
        }
        len
    }

    /// Bytes that are to be sent.
    pub(crate) fn len(&self) -> u64 {
        self.slices().iter().map(|slice| slice.iov_len as u64).sum()
    }

    /// From the first to the last address of what is to be sent.
    pub(super) fn span(&self) -> Range<usize> {
        let start = self.slices().iter().map(|slice| slice.iov_base.addr()).min();
        let end = self.slices().iter().map(|slice| slice.iov_base.addr() + slice.iov_len).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    fn slices(&self) -> &[libc::iovec] {
        &self.0.slices[..self.0.count]
    }

    /// Whether it asks for stamps, which takes a message.
    pub(crate) fn asks(&self) -> bool {
        !self.0.header.msg_control.is_null()
    }

    /// The slices, and how many they are.
    pub(super) fn vector(&self) -> (*const libc::iovec, u32) {
        // No more than `SLICES`.
        (self.0.slices.as_ptr(), u32::try_from(self.0.count).unwrap_or(0))
    }

    pub(super) fn header(&self) -> *const libc::msghdr {
        &raw const self.0.header
    }

    pub(super) fn flags(&self) -> u32 {
        self.0.flags
    }
}

impl std::fmt::Debug for SendMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendMemory").finish_non_exhaustive()
    }
}
