//! What is known of a connection.

use lastbyte::{CloseOutcome, FailReason, TlsEstablished};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// What the driver has told of a connection, for whoever asks, as often as they do.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// It was attached while it connected, and has not.
    is_connecting: AtomicBool,
    tls: OnceLock<TlsEstablished>,
    outcome: OnceLock<CloseOutcome>,
    /// A payload was refused for lack of room, and since then none has come free.
    is_refused: AtomicBool,
    changed: Notify,
}

impl Standing {
    pub(super) fn new(is_connecting: bool) -> Self {
        Self { is_connecting: AtomicBool::new(is_connecting), ..Self::default() }
    }

    /// Waits until there is a connection.
    pub(super) async fn connected(&self) -> Result<(), CloseOutcome> {
        self.until(|| {
            let ended = self.outcome.get().map(|outcome| Err(outcome.clone()));
            let connected = !self.is_connecting.load(Ordering::Acquire);
            ended.or_else(|| connected.then_some(Ok(())))
        })
        .await
    }

    pub(super) fn tls(&self) -> Option<&TlsEstablished> {
        self.tls.get()
    }

    /// How it ended, once it has.
    pub(super) async fn outcome(&self) -> &CloseOutcome {
        self.until(|| self.outcome.get()).await
    }

    /// What was agreed on, or how it ended without.
    pub(super) async fn established(&self) -> Result<&TlsEstablished, CloseOutcome> {
        self.until(|| {
            let known = self.tls.get().map(Ok);
            known.or_else(|| self.outcome.get().map(|outcome| Err(outcome.clone())))
        })
        .await
    }

    /// Waits until room has come free since the last refusal, if there was one.
    pub(super) async fn writable(&self) -> Result<(), CloseOutcome> {
        self.until(|| match self.outcome.get() {
            Some(outcome) => Some(Err(outcome.clone())),
            None => (!self.is_refused.load(Ordering::Acquire)).then_some(Ok(())),
        })
        .await
    }

    async fn until<R>(&self, look: impl Fn() -> Option<R>) -> R {
        loop {
            // Made before the look: it hears of every change from here on.
            let changed = self.changed.notified();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}

/// The driver's end. If it is dropped without an outcome, the driver is gone, and
/// with it the connection.
#[derive(Debug)]
pub(super) struct Teller(Arc<Standing>);

impl Teller {
    pub(super) fn new(standing: Arc<Standing>) -> Self {
        Self(standing)
    }

    pub(super) fn connected(&self) {
        self.0.is_connecting.store(false, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    pub(super) fn established(&self, tls: TlsEstablished) {
        // It comes once.
        self.0.tls.set(tls).unwrap_or_default();
        self.0.changed.notify_waiters();
    }

    pub(super) fn closed(&self, outcome: CloseOutcome) {
        // What came first holds.
        self.0.outcome.set(outcome).unwrap_or_default();
        self.0.changed.notify_waiters();
    }

    pub(super) fn refused(&self) {
        self.0.is_refused.store(true, Ordering::Release);
    }

    /// Room has come free. Costs next to nothing if nobody wants to know.
    pub(super) fn has_room(&self) {
        if self.0.is_refused.load(Ordering::Relaxed) {
            self.0.is_refused.store(false, Ordering::Release);
            self.0.changed.notify_waiters();
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.closed(CloseOutcome::Failed(FailReason::Closed));
    }
}
