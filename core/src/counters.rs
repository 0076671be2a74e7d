//! What a driver counts.

use crate::Method;

/// What a driver has done so far. Numbers only grow, but for those that say
/// "now".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections now.
    pub connections: u64,
    /// Bytes of payload memory now unreleased.
    pub unreleased_bytes: u64,
    /// Bytes of payload memory that the kernel now references.
    pub pinned_bytes: u64,
    /// Bytes of payload memory leaked because the kernel would not let go.
    pub leaked_bytes: u64,
    /// Bytes the kernel took by each method; index with [`Counters::method`].
    pub bytes: [u64; 4],
    /// Stamps that were asked for and made up for by a look at the socket.
    pub stamps_recovered: u64,
    /// Stamps whose time was useless because the wall clock was stepped.
    pub stamps_undated: u64,
    /// Zero-copy sends that the kernel had no room for and that were copied.
    pub zero_copy_no_room: u64,
    /// Bytes of buffers now full of input that nobody has asked for: see
    /// [`DriverConfig::receive_ahead`](crate::DriverConfig::receive_ahead).
    pub received_ahead_bytes: u64,
    /// Bytes of memory registered with the kernel now ([`Driver::register`](crate::Driver::register)).
    pub registered_bytes: u64,
    /// Bytes that the kernel was asked to send out of registered memory.
    pub sent_registered_bytes: u64,
    /// Times that more was started in a turn than the queue of a ring holds, which
    /// took a call more.
    pub submissions_full: u64,
    /// Times that the kernel had to keep completions back because the queue of a
    /// ring was full of them. None is lost.
    pub completions_full: u64,
    /// Bytes of ciphertext that were sealed in user space and are not yet
    /// released by the kernel, now.
    pub ciphertext_bytes: u64,
    /// Payload bytes that were sealed in user space.
    pub sealed_bytes: u64,
    /// Payload bytes that were copied from memory to memory to be sealed.
    pub copied_to_seal_bytes: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// Connections whose sent records, and whose received records, were handed
    /// to the kernel after the handshake.
    pub offloaded_transmit: u64,
    /// See [`Self::offloaded_transmit`].
    pub offloaded_receive: u64,
}

impl Counters {
    /// Where a method's bytes are counted. Bytes that zero copy was asked for
    /// count as [`Method::ZeroCopy`], refused or not: that is known later only.
    #[must_use]
    pub const fn slot(method: Method) -> usize {
        match method {
            Method::Copy => 0,
            Method::ZeroCopy | Method::ZeroCopyRefused => 1,
            Method::Sendfile => 2,
            Method::Splice => 3,
        }
    }

    /// Bytes that `method` moved.
    #[must_use]
    pub const fn method(&self, method: Method) -> u64 {
        self.bytes[Self::slot(method)]
    }
}
