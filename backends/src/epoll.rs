//! The epoll backend: readiness by `epoll(7)`, and every facility of Linux
//! sockets that this kernel has.

use crate::readiness::mio_selector::MioSelector;
use crate::readiness::{ReadinessBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn epoll(report: Report) -> ReadinessBackend<MioSelector> {
    ReadinessBackend::new(BackendKind::Epoll, report, |config, _, _| {
        MioSelector::new(share_of_turn(config))
    })
}
