//! The fallback backend: `poll(2)`, ordinary sends, and looks at the socket where
//! the system has something to look at.

use crate::sockets::poll_selector::PollSelector;
use crate::sockets::{SocketBackend, share_of_turn};
use lastbyte::{BackendKind, Report};

pub(crate) fn fallback(report: Report) -> SocketBackend<PollSelector> {
    SocketBackend::new(BackendKind::Fallback, report, |config, _, _| {
        PollSelector::new(share_of_turn(config))
    })
}
