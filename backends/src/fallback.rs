//! The fallback backend: `poll(2)`, ordinary sends, and looks at the socket where
//! the system has something to look at.

use crate::readiness::ReadinessBackend;
use crate::readiness::poll_selector::PollSelector;
use lastbyte::{BackendKind, Report};

pub(crate) fn fallback(report: Report) -> ReadinessBackend<PollSelector> {
    ReadinessBackend::new(BackendKind::Fallback, report, PollSelector::new)
}
