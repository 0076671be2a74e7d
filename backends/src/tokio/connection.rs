//! One connection, as futures.

use super::halves::{Receiver, Sender};
use super::transfer::Transfer;
use lastbyte::{
    CloseOutcome, ConnectionId, Payload, PooledBuf, Refused, StageSupport, TlsEstablished, Watch,
    ZeroCopySend,
};
use std::time::Duration;

/// A connection of a driver that a task turns.
///
/// Dropping it closes it in the background: what was accepted is still sent, for
/// up to 10 seconds. Call [`Self::close`] to hear how it ended, [`Self::abort`]
/// to reset it.
///
/// To send while another future receives, [`split`](Self::split) it within one
/// task, or [into halves](Self::into_split) for two.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    pub(super) fn new((sender, receiver): (Sender, Receiver)) -> Self {
        Self { sender, receiver }
    }

    /// The driver's name for it.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.sender.id()
    }

    /// What the stages of its transfers rest on.
    #[must_use]
    pub fn stages(&self) -> StageSupport {
        self.sender.stages()
    }

    /// What was agreed on in the TLS handshake, and who has the record layer of each
    /// direction, if the handshake is done.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsEstablished> {
        self.sender.tls()
    }

    /// Waits until there is a connection, if it was attached while it connected; at once
    /// if there was one. Cancel-safe, and the same each time.
    ///
    /// There is no need to wait: what is sent before is sent after it.
    ///
    /// # Errors
    /// Why it could not connect, or how it has ended since.
    pub async fn connected(&self) -> Result<(), CloseOutcome> {
        self.sender.connected().await
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
        self.sender.established().await
    }

    /// Sends `payload` behind everything sent before. Never waits for the peer: what
    /// the socket takes at once is written before this returns. On another thread than
    /// the one that turns the driver, it does wait for the turn that is under way, at
    /// times for one or two more. With many large transfers that is milliseconds each.
    ///
    /// # Errors
    /// As [`Driver::submit`](lastbyte::Driver::submit), with the payload. After
    /// `BackPressure`, [`Self::writable`] says when to try again. `DriverGone` if its
    /// runtime is; `WithinDriver` out of the driver's own work.
    pub fn send(&self, payload: Payload, watch: Watch) -> Result<Transfer, Refused<Payload>> {
        self.sender.send(payload, watch)
    }

    /// Waits until what was refused as
    /// [`BackPressure`](lastbyte::RefuseReason::BackPressure) is worth another try:
    /// since the last refusal on this connection something has ended that counted
    /// against the limit, be it another connection's. At once if nothing was refused.
    /// Others may be faster, so try until it is accepted. Those who wait for the
    /// driver's memory are told in the order in which they were refused.
    ///
    /// Cancel-safe, and it holds no payload: one that was refused is the caller's, and
    /// is lost with the caller's own future if that is dropped. Keep it outside of what
    /// may be dropped if it is not to be.
    ///
    /// ```
    /// use lastbyte::{Payload, RefuseReason, Refused, Watch};
    /// use lastbyte_backends::tokio::{Sender, Transfer};
    ///
    /// /// Sends when there is room. If this future is dropped before, nothing of the
    /// /// payload is sent, and it is dropped too.
    /// async fn send(
    ///     sender: &Sender,
    ///     mut payload: Payload,
    ///     watch: Watch,
    /// ) -> Result<Transfer, Refused<Payload>> {
    ///     loop {
    ///         let refused = match sender.send(payload, watch) {
    ///             Ok(transfer) => return Ok(transfer),
    ///             Err(refused) => refused,
    ///         };
    ///         if !matches!(refused.reason, RefuseReason::BackPressure { .. }) {
    ///             return Err(refused);
    ///         }
    ///         payload = refused.value;
    ///         if sender.writable().await.is_err() {
    ///             return Err(Refused::new(payload, RefuseReason::Closing));
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// How the connection ended, if it did.
    pub async fn writable(&self) -> Result<(), CloseOutcome> {
        self.sender.writable().await
    }

    /// Whether the stream has ended without the peer saying so under TLS: what
    /// came may have been cut short.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.receiver.is_truncated()
    }

    /// The next input; `None` once the peer has ended its stream. Nothing is
    /// read while nobody asks. Cancel-safe: input that came meanwhile is the
    /// next call's.
    ///
    /// # Errors
    /// How the connection ended, if it did; the same each time.
    pub async fn receive(&mut self) -> Result<Option<PooledBuf>, CloseOutcome> {
        self.receiver.receive().await
    }

    /// Both directions, for futures of one task. The connection stays whole, to be
    /// closed afterwards.
    pub fn split(&mut self) -> (&Sender, &mut Receiver) {
        (&self.sender, &mut self.receiver)
    }

    /// Both directions, for two tasks. The connection is closed when both halves are
    /// dropped, as this one would be, or by [`Sender::close`].
    #[must_use = "dropping both halves closes the connection"]
    pub fn into_split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Ends this direction behind all that was sent, as
    /// [`Driver::finish`](lastbyte::Driver::finish) says; the other goes on. Waits for
    /// nothing: stages of what was sent are still told, and nothing more is accepted.
    pub fn finish(&self) {
        self.sender.finish();
    }

    /// Sends what was accepted, ends the stream, and waits for the peer to
    /// acknowledge all of it; resets the connection after `within`.
    ///
    /// If this future is dropped, closing goes on.
    pub async fn close(self, within: Duration) -> CloseOutcome {
        self.sender.close(within).await
    }

    /// Resets the connection: unfinished transfers fail.
    pub fn abort(self) {
        self.sender.abort();
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
        ZeroCopySend::send(&mut self.sender, payload, watch)
    }
}
