//! The fallback backend: `poll(2)`, ordinary sends, and looks at the socket where
//! the system has something to look at.

use crate::readiness::poll_selector::PollSelector;
use crate::readiness::{ReadinessBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn fallback(report: Report) -> ReadinessBackend<PollSelector> {
    ReadinessBackend::new(BackendKind::Fallback, report, |config, _, _| {
        PollSelector::new(share_of_turn(config))
    })
}
