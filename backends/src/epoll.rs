//! The epoll backend: readiness by `epoll(7)`, and every facility of Linux
//! sockets that this kernel has.

use crate::sockets::mio_selector::MioSelector;
use crate::sockets::{SocketBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn epoll(report: Report) -> SocketBackend<MioSelector> {
    SocketBackend::new(BackendKind::Epoll, report, |config, _, _| {
        MioSelector::new(share_of_turn(config))
    })
}
