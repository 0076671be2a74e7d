//! Who waits for which event.

use super::listeners::Listeners;
use super::news::Feed;
use super::standing::Teller;
use super::waiting::Waiting;
use lastbyte::{
    Completion, ConnectionId, Driver, Event, Limit, Reached, Received, RefuseReason, Stage,
    TransferId, Watch,
};
use std::collections::VecDeque;
use std::io;
use tokio::sync::mpsc::UnboundedSender;

/// Where events go. Senders whose receivers are gone are no error: somebody did
/// not want to know any more.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    pub(super) listeners: Listeners,
    connections: Connections,
    waiting: Waiting,
}

/// By the driver's slots.
#[derive(Debug, Default)]
struct Connections(Vec<Option<Inbox>>);

#[derive(Debug)]
struct Inbox {
    id: ConnectionId,
    received: UnboundedSender<Received>,
    standing: Teller,
    /// It is among those that wait for the driver's memory.
    is_waiting: bool,
    /// In the order of their numbers.
    transfers: VecDeque<Following>,
}

/// What is still to come of a transfer.
#[derive(Debug)]
struct Following {
    transfer: TransferId,
    feed: Feed,
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
        let (is_waiting, transfers) = (false, VecDeque::new());
        self.connections.insert(Inbox { id, received, standing, is_waiting, transfers });
    }

    pub(super) fn submitted(
        &mut self,
        connection: ConnectionId,
        transfer: TransferId,
        watch: Watch,
        feed: Feed,
    ) {
        if let Some(inbox) = self.connections.find(connection) {
            let (last, is_released) = (last_stage(watch), false);
            inbox.transfers.push_back(Following { transfer, feed, last, is_released });
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
        let Some(inbox) = self.connections.find(connection) else { return };
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
            if let Some(inbox) = self.connections.find(connection) {
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
                if let Some(inbox) = self.connections.find(connection) {
                    drop(inbox.received.send(received));
                }
            }
            Event::Connected { connection, .. } => {
                if let Some(inbox) = self.connections.find(connection) {
                    inbox.standing.connected();
                }
            }
            Event::TlsEstablished { connection, tls, .. } => {
                if let Some(inbox) = self.connections.find(connection) {
                    inbox.standing.established(tls);
                }
            }
            Event::Closed { connection, outcome, .. } => {
                if let Some(inbox) = self.connections.remove(connection) {
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
        let Some(inbox) = self.connections.find(completion.connection) else {
            return Some(completion);
        };
        let id = completion.transfer;
        let Ok(at) = inbox.transfers.binary_search_by_key(&id, |following| following.transfer)
        else {
            return Some(completion);
        };
        let news = &mut inbox.transfers[at];
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
        let unwanted = news.feed.tell(completion).err();
        if news.is_released && news.last.is_none() {
            drop(inbox.transfers.remove(at));
        }
        unwanted
    }
}

impl Connections {
    fn insert(&mut self, inbox: Inbox) {
        let slot = inbox.id.slot() as usize;
        if slot >= self.0.len() {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(inbox);
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Inbox> {
        let entry = self.0.get_mut(id.slot() as usize)?;
        entry.as_mut().filter(|inbox| inbox.id == id)
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Inbox> {
        let entry = self.0.get_mut(id.slot() as usize)?;
        entry.take_if(|inbox| inbox.id == id)
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
