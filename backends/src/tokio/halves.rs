//! The two directions of a connection.

use super::news::news;
use super::shared::{Turned, User};
use super::standing::Standing;
use super::transfer::Transfer;
use lastbyte::{
    Attached, CloseOutcome, ConnectionId, Payload, PooledBuf, Received, Refused, StageSupport,
    TlsEstablished, Watch, ZeroCopySend,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a connection that is merely dropped may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What both halves share. With the last of them the connection is closed.
pub(super) struct Joint {
    user: User,
    attached: Attached,
    is_tls: bool,
    standing: Arc<Standing>,
    is_over: AtomicBool,
}

/// The half of a connection that sends. Tasks may share it: `send` takes `&self`.
///
/// Dropping it ends nothing while the [`Receiver`] is there. When both are dropped,
/// the connection is closed, as a [`Connection`](super::Connection) that is dropped.
pub struct Sender(Arc<Joint>);

/// The half of a connection that receives.
///
/// Dropping it stops reading: what the peer sends waits in the kernel, and TCP slows
/// it down. When the [`Sender`] is dropped too, the connection is closed.
pub struct Receiver {
    joint: Arc<Joint>,
    received: mpsc::UnboundedReceiver<Received>,
    /// The driver was asked for input that has not been taken yet.
    asked: bool,
    has_ended: bool,
    is_truncated: bool,
}

/// Both halves of a connection that was attached.
pub(super) fn halves(
    user: User,
    attached: Attached,
    is_tls: bool,
    standing: Arc<Standing>,
    received: mpsc::UnboundedReceiver<Received>,
) -> (Sender, Receiver) {
    let is_over = AtomicBool::new(false);
    let joint = Arc::new(Joint { user, attached, is_tls, standing, is_over });
    let sender = Sender(Arc::clone(&joint));
    let (asked, has_ended, is_truncated) = (false, false, false);
    (sender, Receiver { joint, received, asked, has_ended, is_truncated })
}

impl Joint {
    fn id(&self) -> ConnectionId {
        self.attached.connection
    }

    async fn established(&self) -> Result<Option<&TlsEstablished>, CloseOutcome> {
        if self.is_tls { self.standing.established().await.map(Some) } else { Ok(None) }
    }

    async fn outcome(&self) -> CloseOutcome {
        let outcome = self.standing.outcome().await.clone();
        self.is_over.store(true, Ordering::Relaxed);
        outcome
    }

    fn close(&self, within: Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let id = self.id();
        // If it is gone, there is nothing left to close, and its outcome is known.
        drop(self.user.ask(move |turned| turned.driver.close(id, within)));
    }
}

impl Drop for Joint {
    fn drop(&mut self) {
        if !*self.is_over.get_mut() {
            self.close(CLOSE_WITHIN);
        }
    }
}

impl Sender {
    /// The driver's name for the connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id()
    }

    /// What the stages of its transfers rest on.
    #[must_use]
    pub fn stages(&self) -> StageSupport {
        self.0.attached.stages
    }

    /// As [`Connection::tls`](super::Connection::tls).
    #[must_use]
    pub fn tls(&self) -> Option<&TlsEstablished> {
        self.0.standing.tls()
    }

    /// As [`Connection::connected`](super::Connection::connected).
    ///
    /// # Errors
    /// Why it could not connect.
    pub async fn connected(&self) -> Result<(), CloseOutcome> {
        self.0.standing.connected().await
    }

    /// As [`Connection::established`](super::Connection::established).
    ///
    /// # Errors
    /// How the connection ended before that.
    pub async fn established(&self) -> Result<Option<&TlsEstablished>, CloseOutcome> {
        self.0.established().await
    }

    /// As [`Connection::send`](super::Connection::send).
    ///
    /// # Errors
    /// As that.
    pub fn send(&self, payload: Payload, watch: Watch) -> Result<Transfer, Refused<Payload>> {
        let id = self.id();
        self.0.user.give(payload, |turned, payload| {
            let Turned { driver, inboxes, .. } = turned;
            let transfer = driver
                .submit(id, payload, watch)
                .inspect_err(|refused| inboxes.refused(id, &refused.reason, &**driver))?;
            let (feed, follower) = news();
            inboxes.submitted(id, transfer, watch, feed);
            Ok(Transfer::new(transfer, follower))
        })
    }

    /// As [`Connection::writable`](super::Connection::writable).
    ///
    /// # Errors
    /// How the connection ended, if it did.
    pub async fn writable(&self) -> Result<(), CloseOutcome> {
        self.0.standing.writable().await
    }

    /// As [`Connection::finish`](super::Connection::finish).
    pub fn finish(&self) {
        let id = self.id();
        // If it is gone, so is the direction.
        drop(self.0.user.ask(move |turned| turned.driver.finish(id)));
    }

    /// As [`Connection::close`](super::Connection::close), of both directions: a
    /// [`Receiver`] that waits hears how it ended.
    pub async fn close(self, within: Duration) -> CloseOutcome {
        self.0.close(within);
        self.0.outcome().await
    }

    /// Resets the connection: unfinished transfers fail.
    pub fn abort(self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        let id = self.id();
        // If it is gone, that is what was wanted.
        drop(self.0.user.ask(move |turned| turned.driver.abort(id)));
    }
}

/// Sends without following the transfer: its completions are dropped, and so is
/// the payload when it is released.
impl ZeroCopySend for Sender {
    fn send(
        &mut self,
        payload: Payload,
        watch: Watch,
    ) -> Result<lastbyte::TransferId, Refused<Payload>> {
        Self::send(self, payload, watch).map(|transfer| transfer.id())
    }
}

impl Receiver {
    /// The driver's name for the connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.joint.id()
    }

    /// As [`Connection::tls`](super::Connection::tls).
    #[must_use]
    pub fn tls(&self) -> Option<&TlsEstablished> {
        self.joint.standing.tls()
    }

    /// As [`Connection::established`](super::Connection::established).
    ///
    /// # Errors
    /// How the connection ended before that.
    pub async fn established(&self) -> Result<Option<&TlsEstablished>, CloseOutcome> {
        self.joint.established().await
    }

    /// As [`Connection::is_truncated`](super::Connection::is_truncated).
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// As [`Connection::receive`](super::Connection::receive).
    ///
    /// # Errors
    /// How the connection ended, if it did; the same each time.
    pub async fn receive(&mut self) -> Result<Option<PooledBuf>, CloseOutcome> {
        if self.has_ended {
            return Ok(None);
        }
        if !self.asked {
            let id = self.id();
            // If it is gone, its channel is closed, and says so.
            let asked = self.joint.user.ask(move |turned| turned.driver.receive(id));
            self.asked = asked.is_some_and(|asked| asked.is_ok());
        }
        let received = self.received.recv().await;
        self.asked = false;
        match received {
            Some(Received::Data(data)) => Ok(Some(data)),
            Some(Received::End) => {
                self.has_ended = true;
                Ok(None)
            }
            Some(Received::Truncated) => {
                (self.has_ended, self.is_truncated) = (true, true);
                Ok(None)
            }
            None => Err(self.joint.outcome().await),
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("attached", &self.0.attached).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("attached", &self.joint.attached).finish_non_exhaustive()
    }
}
