//! The way from the driver to who follows a transfer: a channel for a handful of
//! completions, since most transfers have three and one that counts on more
//! ([`tokio::sync::mpsc`]) allocates room for 32.

use lastbyte::Completion;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::task::coop;

#[derive(Debug, Default)]
struct News {
    untaken: VecDeque<Completion>,
    /// Whoever waits for more.
    waits: Option<Waker>,
    /// No more will come.
    is_over: bool,
    /// Nobody will take any more.
    is_unwanted: bool,
}

type Shared = Arc<Mutex<News>>;

/// The driver's end. Dropping it says that no more will come.
#[derive(Debug)]
pub(super) struct Feed(Shared);

/// The end of who follows the transfer.
#[derive(Debug)]
pub(super) struct Follower(Shared);

pub(super) fn news() -> (Feed, Follower) {
    let shared = Shared::default();
    (Feed(Arc::clone(&shared)), Follower(shared))
}

fn lock(shared: &Shared) -> MutexGuard<'_, News> {
    // Nothing in here is left half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// # Errors
    /// Gives the completion back if nobody follows any more.
    pub(super) fn tell(&self, completion: Completion) -> Result<(), Completion> {
        let mut news = lock(&self.0);
        if news.is_unwanted {
            return Err(completion);
        }
        news.untaken.push_back(completion);
        wake(news);
        Ok(())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut news = lock(&self.0);
        news.is_over = true;
        wake(news);
    }
}

fn wake(mut news: MutexGuard<'_, News>) {
    let waker = news.waits.take();
    drop(news);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Follower {
    /// Waits until `look` finds something in what was told and not taken; `None` if
    /// it is not there and no more will come. Cancel-safe.
    pub(super) async fn find<R>(
        &mut self,
        mut look: impl FnMut(&mut VecDeque<Completion>) -> Option<R>,
    ) -> Option<R> {
        poll_fn(|cx| self.poll(&mut look, cx)).await
    }

    fn poll<R>(
        &self,
        look: &mut impl FnMut(&mut VecDeque<Completion>) -> Option<R>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<R>> {
        // A task whose news are always there must let others have their turn.
        let turn = ready!(coop::poll_proceed(cx));
        let mut news = lock(&self.0);
        let found = look(&mut news.untaken);
        if found.is_some() || news.is_over {
            turn.made_progress();
            return Poll::Ready(found);
        }
        if !news.waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            news.waits = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut news = lock(&self.0);
        news.is_unwanted = true;
        let untaken = std::mem::take(&mut news.untaken);
        // With it payloads are dropped, whose owner may have code of its own.
        drop(news);
        drop(untaken);
    }
}
