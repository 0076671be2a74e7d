//! Who waits for which event.

use super::listeners::Listeners;
use super::standing::Teller;
use super::waiting::Waiting;
use lastbyte::{
    Completion, ConnectionId, Driver, Event, Limit, Reached, Received, RefuseReason, Stage,
    TransferId, Watch,
};
use std::collections::HashMap;
use std::io;
use tokio::sync::mpsc::UnboundedSender;

/// Where events go. Senders whose receivers are gone are no error: somebody did
/// not want to know any more.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    pub(super) listeners: Listeners,
    connections: HashMap<ConnectionId, Inbox>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Inbox {
    received: UnboundedSender<Received>,
    standing: Teller,
    /// It is among those that wait for the driver's memory.
    is_waiting: bool,
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
        let (is_waiting, transfers) = (false, HashMap::new());
        self.connections.insert(id, Inbox { received, standing, is_waiting, transfers });
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

    /// Remembers that a payload was refused, if that may change.
    pub(super) fn refused(
        &mut self,
        connection: ConnectionId,
        reason: &RefuseReason,
        driver: &dyn Driver,
    ) {
        let RefuseReason::BackPressure { limit, .. } = reason else { return };
        let Some(inbox) = self.connections.get_mut(&connection) else { return };
        inbox.standing.refused();
        let is_its_own = matches!(limit, Limit::ConnectionMemory | Limit::ConnectionTransfers);
        if !is_its_own && !inbox.is_waiting {
            inbox.is_waiting = true;
            self.waiting.enter(connection, &driver.counters());
        }
    }

    /// Tells some of those that wait for the driver's memory, if some came free.
    pub(super) fn tell_waiting(&mut self, driver: &dyn Driver) {
        if self.waiting.is_empty() {
            return;
        }
        for connection in self.waiting.take(&driver.counters()) {
            if let Some(inbox) = self.connections.get_mut(&connection) {
                inbox.is_waiting = false;
                inbox.standing.has_room();
            }
        }
    }

    /// Whether more of them are to be told.
    pub(super) fn has_more_to_tell(&self) -> bool {
        self.waiting.has_due()
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
            Event::Connected { connection, .. } => {
                if let Some(inbox) = self.connections.get(&connection) {
                    inbox.standing.connected();
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
                    if inbox.is_waiting {
                        self.waiting.leave(connection);
                    }
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
        let is_released = matches!(completion.reached, Reached::Released(_));
        let has_ended = stage == Stage::Failed || news.last == Some(stage);
        news.is_released |= is_released;
        if has_ended {
            news.last = None;
        }
        if has_ended || is_released {
            inbox.standing.has_room();
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
