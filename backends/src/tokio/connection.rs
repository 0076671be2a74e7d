//! One connection, as futures.

use super::shared::User;
use super::standing::Standing;
use super::transfer::Transfer;
use lastbyte::{
    Attached, CloseOutcome, ConnectionId, Payload, PooledBuf, Received, Refused, StageSupport,
    TlsEstablished, Watch, ZeroCopySend,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a connection that is merely dropped may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A connection of a driver that a task turns.
///
/// Dropping it closes it in the background: what was accepted is still sent, for
/// up to 10 seconds. Call [`Self::close`] to hear how it ended, [`Self::abort`]
/// to reset it.
pub struct Connection {
    user: User,
    attached: Attached,
    is_tls: bool,
    received: mpsc::UnboundedReceiver<Received>,
    standing: Arc<Standing>,
    /// The driver was asked for input that has not been taken yet.
    asked: bool,
    has_ended: bool,
    is_truncated: bool,
    is_over: bool,
}

impl Connection {
    pub(super) fn new(
        user: User,
        attached: Attached,
        is_tls: bool,
        received: mpsc::UnboundedReceiver<Received>,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            user,
            attached,
            is_tls,
            received,
            standing,
            asked: false,
            has_ended: false,
            is_truncated: false,
            is_over: false,
        }
    }

    /// The driver's name for it.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.attached.connection
    }

    /// What the stages of its transfers rest on.
    #[must_use]
    pub fn stages(&self) -> StageSupport {
        self.attached.stages
    }

    /// What was agreed on in the TLS handshake, and who has the record layer of each
    /// direction, if the handshake is done.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsEstablished> {
        self.standing.tls()
    }

    /// Waits until the TLS handshake is done, and says what came of it; `None`, at
    /// once, on a connection without TLS. Cancel-safe, and the same each time.
    ///
    /// There is no need to wait: what is sent before is sent after it.
    ///
    /// # Errors
    /// How the connection ended before that, such as with
    /// [`FailReason::Tls`](lastbyte::FailReason::Tls).
    pub async fn established(&self) -> Result<Option<&TlsEstablished>, CloseOutcome> {
        if self.is_tls { self.standing.established().await.map(Some) } else { Ok(None) }
    }

    /// Sends `payload` behind everything sent before. Never waits for the peer: what
    /// the socket takes at once is written before this returns. It does wait for a
    /// turn that is under way, which for large transfers takes milliseconds.
    ///
    /// # Errors
    /// As [`Driver::submit`](lastbyte::Driver::submit), with the payload. After
    /// `BackPressure`, wait for what its limit counts: memory for [`Transfer::released`],
    /// transfers for the last stage of one that was sent before.
    /// `DriverGone` if its runtime is; `WithinDriver` out of the driver's own work.
    pub fn send(&self, payload: Payload, watch: Watch) -> Result<Transfer, Refused<Payload>> {
        let id = self.id();
        self.user.give(payload, |turned, payload| {
            let transfer = turned.driver.submit(id, payload, watch)?;
            let (sender, completions) = mpsc::unbounded_channel();
            turned.inboxes.submitted(id, transfer, watch, sender);
            Ok(Transfer::new(transfer, completions))
        })
    }

    /// Whether the stream has ended without the peer saying so under TLS: what
    /// came may have been cut short.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// The next input; `None` once the peer has ended its stream. Nothing is
    /// read while nobody asks. Cancel-safe: input that came meanwhile is the
    /// next call's.
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
            let asked = self.user.ask(move |turned| turned.driver.receive(id));
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
            None => Err(self.outcome().await),
        }
    }

    /// Sends what was accepted, ends the stream, and waits for the peer to
    /// acknowledge all of it; resets the connection after `within`.
    ///
    /// If this future is dropped, closing goes on.
    pub async fn close(mut self, within: Duration) -> CloseOutcome {
        let id = self.id();
        // If it is gone, its outcome is there.
        drop(self.user.ask(move |turned| turned.driver.close(id, within)));
        self.is_over = true;
        self.outcome().await
    }

    /// Resets the connection: unfinished transfers fail.
    pub fn abort(mut self) {
        self.is_over = true;
        let id = self.id();
        // If it is gone, that is what was wanted.
        drop(self.user.ask(move |turned| turned.driver.abort(id)));
    }

    async fn outcome(&mut self) -> CloseOutcome {
        self.is_over = true;
        self.standing.outcome().await.clone()
    }
}

/// Sends without following the transfer: its completions are dropped, and so is
/// the payload when it is released.
impl ZeroCopySend for Connection {
    fn send(
        &mut self,
        payload: Payload,
        watch: Watch,
    ) -> Result<lastbyte::TransferId, Refused<Payload>> {
        Self::send(self, payload, watch).map(|transfer| transfer.id())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_over {
            let id = self.id();
            // If it is gone, there is nothing left to close.
            drop(self.user.ask(move |turned| turned.driver.close(id, CLOSE_WITHIN)));
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("attached", &self.attached).finish_non_exhaustive()
    }
}
