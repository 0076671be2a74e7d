//! Drivers over rings.

use super::selector::RingSelector;
use crate::facilities::Facilities;
use crate::readiness::{ReadinessDriver, share_of_turn};
use lastbyte::{Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Report};

#[derive(Debug)]
pub(crate) struct RingBackend {
    report: Report,
}

impl RingBackend {
    pub(crate) fn new(report: Report) -> Self {
        Self { report }
    }

    fn with_sink<K: CompletionSink>(
        &self,
        config: &DriverConfig,
        sink: K,
        bound: bool,
    ) -> Result<ReadinessDriver<RingSelector, K>, DriverError> {
        let facilities = Facilities::of(&self.report, BackendKind::IoUring);
        let selector = RingSelector::new(config, facilities.ring, bound, share_of_turn(config))
            .map_err(|error| DriverError::new("making a ring", &error))?;
        Ok(ReadinessDriver::new(selector, sink, config.clone(), facilities))
    }
}

impl Backend for RingBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::IoUring
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
