//! The fallback backend: `poll(2)`, ordinary sends, and looks at the socket where
//! the system has something to look at.

use crate::facilities::Facilities;
use crate::readiness::poll_selector::PollSelector;
use crate::readiness::{ReadinessDriver, share_of_turn};
use lastbyte::{Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Report};

#[derive(Debug)]
pub(crate) struct Fallback {
    report: Report,
}

impl Fallback {
    pub(crate) fn new(report: Report) -> Self {
        Self { report }
    }

    fn with_sink<K: CompletionSink>(
        &self,
        config: &DriverConfig,
        sink: K,
    ) -> Result<ReadinessDriver<PollSelector, K>, DriverError> {
        let selector = PollSelector::new(share_of_turn(config))
            .map_err(|error| DriverError::new("making a wake-up pipe", &error))?;
        let facilities = Facilities::of(&self.report, BackendKind::Fallback);
        Ok(ReadinessDriver::new(selector, sink, config.clone(), facilities))
    }
}

impl Backend for Fallback {
    fn kind(&self) -> BackendKind {
        BackendKind::Fallback
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
