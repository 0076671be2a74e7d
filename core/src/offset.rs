//! Byte positions in a connection, and the kernel's 32-bit view of them.

use std::fmt;

/// Count of TCP bytes of a connection since it was attached. Under TLS these
/// are ciphertext bytes, record framing included.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WireOffset(u64);

/// Count of payload bytes of a connection since it was attached.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PlainOffset(u64);

macro_rules! offset {
    ($name:ident) => {
        impl $name {
            /// The position after `bytes` bytes.
            #[must_use]
            pub const fn new(bytes: u64) -> Self {
                Self(bytes)
            }

            /// Bytes before this position.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The position `bytes` further on; saturates.
            #[must_use]
            pub const fn plus(self, bytes: u64) -> Self {
                Self(self.0.saturating_add(bytes))
            }

            /// Bytes from `earlier` to here; 0 if `earlier` lies behind.
            #[must_use]
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

offset!(WireOffset);
offset!(PlainOffset);

/// Turns the kernel's 32-bit stamp keys into wire offsets.
///
/// With `SOF_TIMESTAMPING_OPT_ID` a TCP stamp carries the position of the last
/// byte it speaks of, counted from a base and cut to 32 bits
/// (`net/ipv4/tcp.c`, `tcp_tx_timestamp`), so it wraps every 4 GiB. TCP never
/// has 2 GiB in flight (RFC 7323, section 2.3), so the only position at or
/// before the newest written byte with the right low bits is the one meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StampKeys {
    /// Wire offset that the kernel's key 0 names, cut to 32 bits.
    base: u32,
}

impl StampKeys {
    /// Keys that count from `base`: 0 for a connection that was stamped from
    /// its first byte; `-q` (wrapping) where `q` bytes were still unacknowledged
    /// on a kernel that counts from the first of those.
    #[must_use]
    pub const fn from_base(base: u32) -> Self {
        Self { base }
    }

    /// The offset just past the byte that `key` names, given that `written`
    /// bytes have been written; `None` if that would lie before the first byte.
    #[must_use]
    pub fn end(self, key: u32, written: WireOffset) -> Option<WireOffset> {
        let end = key.wrapping_add(1).wrapping_add(self.base);
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is wanted")]
        let behind = (written.0 as u32).wrapping_sub(end);
        written.0.checked_sub(u64::from(behind)).map(WireOffset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any position in the last 2 GiB is found again, wherever the 32-bit
        /// counters happen to stand.
        #[test]
        fn a_key_names_the_position_it_was_made_from(
            base in any::<u32>(),
            end in 1_u64..1 << 40,
            ahead in 0_u64..1 << 31,
        ) {
            #[expect(clippy::cast_possible_truncation, reason = "as the kernel does")]
            let key = (end as u32).wrapping_sub(1).wrapping_sub(base);
            let keys = StampKeys::from_base(base);
            prop_assert_eq!(keys.end(key, WireOffset::new(end + ahead)), Some(WireOffset::new(end)));
        }
    }

    #[test]
    fn a_key_from_before_the_first_byte_is_no_position() {
        assert_eq!(StampKeys::from_base(0).end(10, WireOffset::new(5)), None);
    }
}
