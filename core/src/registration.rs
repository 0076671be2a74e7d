//! Why a pool's memory is not registered.

use std::fmt;

/// A driver has not registered a pool. Its buffers are sent all the same, each
/// pinned, or copied, as it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NotRegistered {
    /// This driver cannot, or not on this kernel: the report says more of
    /// [`Facility::UringFixedBuffers`](crate::Facility::UringFixedBuffers).
    Unsupported,
    /// The pool's buffers are not parts of one piece of memory: see
    /// [`Pool::contiguous`](crate::Pool::contiguous).
    NotContiguous,
    /// Whoever turned the driver has ended, and the driver with it.
    DriverGone,
    /// The driver is at work on this very thread, and has called the code that asks.
    WithinDriver,
    /// As many pools are registered as one driver can have.
    TooMany {
        /// How many that is.
        allowed: usize,
    },
    /// The kernel refused.
    System {
        /// Bytes that were to be registered.
        bytes: usize,
        /// Its answer, a value of `errno(3)`. `ENOMEM` is mostly the limit on
        /// locked memory (`RLIMIT_MEMLOCK`), of all processes of this user
        /// together.
        errno: i32,
    },
}

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => {
                f.write_str("this driver registers no memory here (uring-fixed-buffers)")
            }
            Self::NotContiguous => {
                f.write_str("the pool's buffers are not parts of one piece of memory")
            }
            Self::DriverGone => f.write_str("the driver is gone"),
            Self::WithinDriver => f.write_str("it is asked out of the driver's own work"),
            Self::TooMany { allowed } => write!(f, "{allowed} pools are registered already"),
            Self::System { bytes, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "registering {bytes} bytes of a pool: {error}")?;
                if error.kind() == std::io::ErrorKind::OutOfMemory {
                    f.write_str("; the limit on locked memory (ulimit -l) may be too low")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for NotRegistered {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_can_be_done() {
        /// `ENOMEM`, `include/uapi/asm-generic/errno-base.h`.
        const NO_MEMORY: i32 = 12;
        let text = NotRegistered::System { bytes: 4096, errno: NO_MEMORY }.to_string();
        assert!(text.contains("4096 bytes") && text.contains("ulimit -l"), "{text}");
    }
}
