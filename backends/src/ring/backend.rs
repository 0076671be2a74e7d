//! Drivers over rings.

use super::selector::RingSelector;
use crate::readiness::{ReadinessBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn io_uring(report: Report) -> ReadinessBackend<RingSelector> {
    ReadinessBackend::new(BackendKind::IoUring, report, |config, facilities, bound| {
        RingSelector::new(config, facilities.ring, bound, share_of_turn(config))
    })
}
