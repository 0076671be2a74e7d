//! The epoll backend: readiness by `epoll(7)`, and every facility of Linux
//! sockets that this kernel has.

use crate::readiness::ReadinessBackend;
use crate::readiness::mio_selector::MioSelector;
use lastbyte::{BackendKind, Report};

pub(crate) fn epoll(report: Report) -> ReadinessBackend<MioSelector> {
    ReadinessBackend::new(BackendKind::Epoll, report, MioSelector::new)
}
