//! The epoll backend: readiness by `epoll(7)`, and every facility of Linux
//! sockets that this kernel has.

use crate::facilities::Facilities;
use crate::readiness::mio_selector::MioSelector;
use crate::readiness::{ReadinessDriver, share_of_turn};
use lastbyte::{Backend, BackendKind, CompletionSink, Driver, DriverConfig, DriverError, Report};

#[derive(Debug)]
pub(crate) struct Epoll {
    report: Report,
}

impl Epoll {
    pub(crate) fn new(report: Report) -> Self {
        Self { report }
    }

    fn with_sink<K: CompletionSink>(
        &self,
        config: &DriverConfig,
        sink: K,
    ) -> Result<ReadinessDriver<MioSelector, K>, DriverError> {
        let selector = MioSelector::new(share_of_turn(config))
            .map_err(|error| DriverError::new("making an epoll instance", &error))?;
        let facilities = Facilities::of(&self.report, BackendKind::Epoll);
        Ok(ReadinessDriver::new(selector, sink, config.clone(), facilities))
    }
}

impl Backend for Epoll {
    fn kind(&self) -> BackendKind {
        BackendKind::Epoll
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
