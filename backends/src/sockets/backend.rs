//! A backend is a kind of selector and the facilities that go with it.

use super::driver::SocketDriver;
use super::selector::Selector;
use crate::facilities::Facilities;
use lastbyte::{Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Report};
use std::io;

/// The longest receive buffer. Linux lets a socket hold 6 MiB of input by default
/// (`net.ipv4.tcp_rmem`), so that one receive yields no more anyway.
const LONGEST_BUFFER: usize = 8 << 20;

/// Size of a receive buffer: nothing at a time would never get done, and memory for
/// any size there is not.
pub(crate) fn receive_buffer(config: &DriverConfig) -> usize {
    config.receive_buffer.clamp(1, LONGEST_BUFFER)
}

/// Makes a selector for a driver, from what can be used; `bound` to the calling
/// thread or not.
pub(crate) type Make<S> = fn(&DriverConfig, &Facilities, bound: bool) -> io::Result<S>;

#[derive(Debug)]
pub(crate) struct SocketBackend<S> {
    kind: BackendKind,
    report: Report,
    selector: Make<S>,
}

impl<S: Selector> SocketBackend<S> {
    pub(crate) fn new(kind: BackendKind, report: Report, selector: Make<S>) -> Self {
        Self { kind, report, selector }
    }

    fn with_sink<K: CompletionSink>(
        &self,
        config: &DriverConfig,
        sink: K,
        bound: bool,
    ) -> Result<SocketDriver<S, K>, DriverError> {
        let facilities = Facilities::of(&self.report, self.kind);
        let selector = (self.selector)(config, &facilities, bound)
            .map_err(|error| DriverError::new("making a selector", &error))?;
        Ok(SocketDriver::new(selector, sink, config.clone(), facilities))
    }
}

impl<S: Selector + Send + 'static> Backend for SocketBackend<S> {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        Ok(Box::new(self.with_sink(config, sink, true)?))
    }

    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        Ok(Box::new(self.with_sink(config, sink, false)?))
    }
}
