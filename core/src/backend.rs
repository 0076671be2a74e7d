//! Where drivers come from.

use crate::{BackendKind, CompletionSink, Driver, DriverConfig, Report};
use std::fmt;

/// A factory of drivers, chosen at run time.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which one it is. A backend of one's own says the one whose facilities it uses: the
    /// conformance suite expects of `IoUring` and `Epoll` what the report has, and of
    /// `Fallback` what portable calls can do.
    fn kind(&self) -> BackendKind;

    /// What was found out about this kernel when the backend was opened, with
    /// what the operator has disabled.
    fn report(&self) -> &Report;

    /// A driver for the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a resource that the driver needs.
    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError>;

    /// A driver that may be moved to another thread, together with its
    /// connections; so its sink must be movable too. With io_uring, what the kernel
    /// does by itself for a connection is done by the thread that attached it, when that
    /// next enters the kernel: where threads compute for long, epoll tells sooner.
    ///
    /// # Errors
    /// As [`Self::driver`].
    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError>;
}

/// A driver could not be made or turned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DriverError {
    /// What was being done.
    pub doing: &'static str,
    /// The kernel's answer, a value of `errno(3)`.
    pub errno: i32,
}

impl DriverError {
    /// `error` while `doing` something.
    #[must_use]
    pub fn new(doing: &'static str, error: &std::io::Error) -> Self {
        Self { doing, errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, std::io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for DriverError {}
