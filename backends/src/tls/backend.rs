//! The backend: another one, with TLS.

use super::context::{Context, OffloadTerms};
use super::driver::{Inner, TlsDriver};
use super::handshake::TlsProvider;
use super::record::{MAX_CONTENT, MAX_OVERHEAD};
use crate::queue::Queue;
use lastbyte::{
    Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Facility, OffloadWish,
    Report, TlsRole,
};
use std::sync::Arc;
use std::time::Duration;

/// Room for a record and what comes behind it, so that most records are opened
/// where they were read to.
const RECEIVE_BUFFER: usize = 2 * (MAX_CONTENT + MAX_OVERHEAD);

/// A backend whose connections speak TLS, over any other.
///
/// Everything else is the other backend's: its drivers move the ciphertext, and
/// its evidence is what the completions rest on.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use lastbyte::{Choice, Restrictions};
/// use lastbyte_backends::tls::{Rustls, TlsBackend, TlsOptions, TlsTerms};
/// use std::sync::Arc;
/// let (certificates, key) = (std::fs::read("cert.pem")?, std::fs::read("key.pem")?);
/// let provider = Rustls::new().with_server(&certificates, &key, &TlsTerms::default())?;
/// let plain = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
/// let backend = TlsBackend::new(plain, Arc::new(provider), TlsOptions::default());
/// # let _ = backend;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TlsBackend {
    inner: Arc<dyn Backend>,
    provider: Arc<dyn TlsProvider>,
    options: TlsOptions,
}

/// Bounds and habits of a TLS backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// What [`Driver::attach`] makes of a connection. [`Driver::attach_tls`] says
    /// for each.
    pub attach_as: TlsRole,
    /// Time in which a handshake has to be done, once there is a connection
    /// ([`AttachOptions::stall_timeout`](lastbyte::AttachOptions) bounds connecting).
    pub handshake_timeout: Duration,
    /// Records after which the sending key is changed, if the cipher does not
    /// want that earlier (TLS 1.3; with TLS 1.2 the connection ends there).
    /// Less than two counts as two: a key has to seal something before the record
    /// that changes it.
    pub rekey_after: u64,
    /// Whether the record layer goes to the kernel when the handshake is done,
    /// in both directions. [`AttachOptions::offload`](lastbyte::AttachOptions)
    /// says otherwise for one connection.
    pub offload: OffloadWish,
    /// See [`OffloadOptions::unchanging_files`](lastbyte::OffloadOptions).
    pub unchanging_files: bool,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            attach_as: TlsRole::Server,
            handshake_timeout: Duration::from_secs(10),
            rekey_after: u64::MAX,
            offload: OffloadWish::Never,
            unchanging_files: false,
        }
    }
}

impl TlsBackend {
    /// TLS by `provider` over the drivers of `inner`.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Backend>,
        provider: Arc<dyn TlsProvider>,
        options: TlsOptions,
    ) -> Self {
        Self { inner, provider, options }
    }

    fn over<I: Inner, K: CompletionSink>(
        &self,
        inner: I,
        queue: Queue,
        config: &DriverConfig,
        sink: K,
    ) -> TlsDriver<I, K> {
        let TlsOptions { attach_as, handshake_timeout, rekey_after, .. } = self.options.clone();
        let now = inner.get().now();
        let cx = Context::new(config, rekey_after, self.offload_terms(), now);
        let provider = Arc::clone(&self.provider);
        TlsDriver::new(inner, queue, sink, cx, provider, attach_as, handshake_timeout)
    }
}

impl TlsBackend {
    fn offload_terms(&self) -> OffloadTerms {
        let report = self.inner.report();
        // It keeps to what every Unix has.
        let is_portable = self.inner.kind() == BackendKind::Fallback;
        let has = |facility| !is_portable && report.has(facility);
        let needed = [Facility::KernelTls, Facility::TlsTransmit, Facility::TlsReceive];
        OffloadTerms {
            wish: self.options.offload,
            unchanging_files: self.options.unchanging_files,
            lacks: needed.into_iter().find(|&facility| !has(facility)),
            receives: has(Facility::KernelTls) && has(Facility::TlsReceive),
        }
    }
}

impl Backend for TlsBackend {
    fn kind(&self) -> BackendKind {
        self.inner.kind()
    }

    fn report(&self) -> &Report {
        self.inner.report()
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        let queue = Queue::default();
        let inner = self.inner.driver(&below(config), Box::new(queue.clone()))?;
        Ok(Box::new(self.over(inner, queue, config, sink)))
    }

    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        let queue = Queue::default();
        let inner = self.inner.movable_driver(&below(config), Box::new(queue.clone()))?;
        Ok(Box::new(self.over(inner, queue, config, sink)))
    }
}

/// What the inner driver is asked for.
fn below(config: &DriverConfig) -> DriverConfig {
    let mut below = config.clone();
    below.receive_buffer = config.receive_buffer.max(RECEIVE_BUFFER);
    below
}
