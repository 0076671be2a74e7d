//! Who waits for which event.

use super::listeners::Listeners;
use super::standing::Teller;
use lastbyte::{Completion, ConnectionId, Event, Reached, Received, Stage, TransferId, Watch};
use std::collections::HashMap;
use std::io;
use tokio::sync::mpsc::UnboundedSender;

/// Where events go. Senders whose receivers are gone are no error: somebody did
/// not want to know any more.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    pub(super) listeners: Listeners,
    connections: HashMap<ConnectionId, Inbox>,
}

#[derive(Debug)]
struct Inbox {
    received: UnboundedSender<Received>,
    standing: Teller,
    transfers: HashMap<TransferId, News>,
}

/// What is still to come of a transfer.
#[derive(Debug)]
struct News {
    to: UnboundedSender<Completion>,
    last: Option<Stage>,
    is_released: bool,
}

impl Inboxes {
    pub(super) fn attached(
        &mut self,
        id: ConnectionId,
        received: UnboundedSender<Received>,
        standing: Teller,
    ) {
        self.connections.insert(id, Inbox { received, standing, transfers: HashMap::new() });
    }

    pub(super) fn submitted(
        &mut self,
        connection: ConnectionId,
        transfer: TransferId,
        watch: Watch,
        to: UnboundedSender<Completion>,
    ) {
        if let Some(inbox) = self.connections.get_mut(&connection) {
            let news = News { to, last: last_stage(watch), is_released: false };
            inbox.transfers.insert(transfer, news);
        }
    }

    /// Delivers `event`. A completion that nobody waits for comes back: with it a
    /// payload is dropped, and the user's code runs, which may ask something of
    /// the driver.
    pub(super) fn take(&mut self, event: Event) -> Option<Completion> {
        match event {
            Event::Transfer(completion) => return self.completed(completion),
            Event::Accepted { listener, socket } => self.listeners.accepted(listener, Ok(socket)),
            Event::AcceptPaused { listener, errno } => {
                self.listeners.accepted(listener, Err(io::Error::from_raw_os_error(errno)));
            }
            Event::Received { connection, received, .. } => {
                if let Some(inbox) = self.connections.get(&connection) {
                    drop(inbox.received.send(received));
                }
            }
            Event::TlsEstablished { connection, tls, .. } => {
                if let Some(inbox) = self.connections.get(&connection) {
                    inbox.standing.established(tls);
                }
            }
            Event::Closed { connection, outcome, .. } => {
                if let Some(inbox) = self.connections.remove(&connection) {
                    inbox.standing.closed(outcome);
                }
            }
            _ => {}
        }
        None
    }

    fn completed(&mut self, completion: Completion) -> Option<Completion> {
        let Some(inbox) = self.connections.get_mut(&completion.connection) else {
            return Some(completion);
        };
        let id = completion.transfer;
        let Some(news) = inbox.transfers.get_mut(&id) else { return Some(completion) };
        let stage = completion.stage();
        news.is_released |= matches!(completion.reached, Reached::Released(_));
        if stage == Stage::Failed || news.last == Some(stage) {
            news.last = None;
        }
        let unwanted = news.to.send(completion).err().map(|refused| refused.0);
        if news.is_released && news.last.is_none() {
            inbox.transfers.remove(&id);
        }
        unwanted
    }
}

/// The stage that ends a transfer if it does not fail; `None` if only its
/// release is told.
fn last_stage(watch: Watch) -> Option<Stage> {
    [
        (Watch::ACKED, Stage::Acked),
        (Watch::TRANSMITTED, Stage::Transmitted),
        (Watch::QUEUED, Stage::Queued),
    ]
    .into_iter()
    .find_map(|(bit, stage)| watch.contains(bit).then_some(stage))
}
