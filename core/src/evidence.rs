//! How a completion is known, and what was actually done.

use crate::Time;
use std::fmt;

/// How the time of a completion is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Evidence {
    /// A kernel timestamp of the event itself.
    Kernel,
    /// It happened between two looks: after `after` and not later than the
    /// completion's own time.
    Bracketed {
        /// The last time at which it was known not to have happened.
        after: Time,
    },
    /// This kernel or backend cannot tell. The completion is delivered so that
    /// the transfer ends, and says nothing about the stage.
    Unavailable,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Bracketed { .. } => "bracketed",
            Self::Unavailable => "unavailable",
        })
    }
}

/// What moved a payload's bytes into the connection. Where parts of a payload
/// went different ways, the one that moved most of them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// The kernel copied them during the call.
    #[default]
    Copy,
    /// The kernel, and the device, read the payload's own memory.
    ZeroCopy,
    /// Zero copy was asked for, but the kernel copied after all.
    ZeroCopyRefused,
    /// The kernel took them from the page cache.
    Sendfile,
    /// The kernel took them from a pipe.
    Splice,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zerocopy",
            Self::ZeroCopyRefused => "zerocopy-refused",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
        })
    }
}

/// What turns payload bytes into wire bytes, in one direction.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// They are the same.
    #[default]
    Plain,
    /// TLS records sealed in user space.
    UserTls,
    /// TLS records sealed by the kernel.
    KernelTls,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::UserTls => "user-tls",
            Self::KernelTls => "kernel-tls",
        })
    }
}
