//! A backend is a kind of selector and the facilities that go with it.

use super::driver::{ReadinessDriver, share_of_turn};
use super::selector::Selector;
use crate::facilities::Facilities;
use lastbyte::{Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Report};
use std::io;

#[derive(Debug)]
pub(crate) struct ReadinessBackend<S> {
    kind: BackendKind,
    report: Report,
    /// Makes a selector that yields at most so many events at once.
    selector: fn(usize) -> io::Result<S>,
}

impl<S: Selector> ReadinessBackend<S> {
    pub(crate) fn new(
        kind: BackendKind,
        report: Report,
        selector: fn(usize) -> io::Result<S>,
    ) -> Self {
        Self { kind, report, selector }
    }

    fn with_sink<K: CompletionSink>(
        &self,
        config: &DriverConfig,
        sink: K,
    ) -> Result<ReadinessDriver<S, K>, DriverError> {
        let selector = (self.selector)(share_of_turn(config))
            .map_err(|error| DriverError::new("making a selector", &error))?;
        let facilities = Facilities::of(&self.report, self.kind);
        Ok(ReadinessDriver::new(selector, sink, config.clone(), facilities))
    }
}

impl<S: Selector + Send + 'static> Backend for ReadinessBackend<S> {
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
        Ok(Box::new(self.with_sink(config, sink)?))
    }

    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        Ok(Box::new(self.with_sink(config, sink)?))
    }
}
