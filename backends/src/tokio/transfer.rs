//! The news of one transfer, as futures.

use super::news::Follower;
use lastbyte::{Completion, Failure, Reached, Stage, TransferId};
use std::fmt;

/// What becomes of one payload.
///
/// Dropping it gives up the news only: the payload stays with the driver, and is
/// dropped when the kernel is done with it.
#[derive(Debug)]
pub struct Transfer {
    id: TransferId,
    news: Follower,
}

/// A stage that will not come.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// The transfer failed.
    Failed(Failure),
    /// The stage was not watched, or was taken before, or the driver is gone
    /// without a word.
    NotTold,
}

impl Transfer {
    pub(super) fn new(id: TransferId, news: Follower) -> Self {
        Self { id, news }
    }

    /// Its number on the connection.
    #[must_use]
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// The next completion, in the order of delivery; `None` after the last.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Completion> {
        self.news.find(|untaken| untaken.pop_front()).await
    }

    /// Waits until the kernel holds every byte. Cancel-safe, as all of these:
    /// other completions are kept for their own calls.
    ///
    /// # Errors
    /// If it fails before, or the stage was not watched.
    pub async fn queued(&mut self) -> Result<Completion, Ended> {
        self.reached(Stage::Queued).await
    }

    /// Waits until the last byte was handed to the device.
    ///
    /// # Errors
    /// As [`Self::queued`].
    pub async fn transmitted(&mut self) -> Result<Completion, Ended> {
        self.reached(Stage::Transmitted).await
    }

    /// Waits until the peer's TCP has acknowledged the last byte. Look at the
    /// completion's evidence: it may be `Unavailable`.
    ///
    /// # Errors
    /// As [`Self::queued`].
    pub async fn acked(&mut self) -> Result<Completion, Ended> {
        self.reached(Stage::Acked).await
    }

    /// Waits until the memory comes back, also of a transfer that failed.
    ///
    /// # Errors
    /// [`Ended::NotTold`] if it was taken before, or the driver is gone.
    pub async fn released(&mut self) -> Result<Completion, Ended> {
        self.reached(Stage::Released).await
    }

    async fn reached(&mut self, stage: Stage) -> Result<Completion, Ended> {
        let found = self.news.find(|untaken| {
            let known = untaken.iter().position(|completion| completion.stage() == stage);
            if let Some(completion) = known.and_then(|n| untaken.remove(n)) {
                return Some(Ok(completion));
            }
            let failure = untaken.iter().find_map(failure).filter(|_| stage != Stage::Released);
            failure.map(|failure| Err(Ended::Failed(failure.clone())))
        });
        found.await.unwrap_or(Err(Ended::NotTold))
    }
}

fn failure(completion: &Completion) -> Option<&Failure> {
    match &completion.reached {
        Reached::Failed(failure) => Some(failure),
        _ => None,
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::NotTold => {
                f.write_str("the stage was not watched, was told already, or the driver is gone")
            }
        }
    }
}

impl std::error::Error for Ended {}
