//! Drivers over rings.

use super::selector::RingSelector;
use crate::sockets::{SocketBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn io_uring(report: Report) -> SocketBackend<RingSelector> {
    SocketBackend::new(BackendKind::IoUring, report, |config, facilities, bound| {
        RingSelector::new(config, facilities.ring, bound, share_of_turn(config))
    })
}
