//! Places for connections, of which all threads together have so many and no more.
//!
//! A thread that finds none gets in line, once, and the next place that becomes
//! free is kept for the thread that has waited longest, which is woken. So none
//! learns of it late, and none is left out because others are quicker: nobody
//! takes a place past those in line.

use lastbyte::Wake;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The places of all threads.
#[derive(Debug)]
pub struct Places {
    max: u64,
    /// Never more than `max`. Those that are kept for a thread count.
    taken: AtomicU64,
    /// Threads that wait, by their numbers.
    line: Mutex<VecDeque<usize>>,
    /// How many, to be looked at without the lock.
    waiting: AtomicUsize,
    threads: Box<[Thread]>,
}

/// What others do for a thread.
#[derive(Debug, Default)]
struct Thread {
    /// A place is kept for it.
    is_called: AtomicBool,
    waker: OnceLock<Arc<dyn Wake>>,
}

/// The places that one thread has taken. What it has when it ends, however it
/// does, becomes free.
#[derive(Debug)]
pub struct Taken {
    places: Arc<Places>,
    thread: usize,
    count: u64,
    is_in_line: bool,
}

impl Places {
    /// `max` places for so many `threads`.
    #[must_use]
    pub fn new(max: u64, threads: usize) -> Self {
        Self {
            max,
            taken: AtomicU64::new(0),
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            threads: (0..threads).map(|_| Thread::default()).collect(),
        }
    }

    /// What the `thread`th thread has of them, which is nothing yet. The `waker` is
    /// used when a place is kept for it.
    #[must_use]
    pub fn taken_by(self: Arc<Self>, thread: usize, waker: Arc<dyn Wake>) -> Taken {
        // A thread asks for this once.
        let _ = self.threads[thread].waker.set(waker);
        Taken { places: self, thread, count: 0, is_in_line: false }
    }

    fn try_take(&self) -> bool {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Makes `count` places free, as far as nobody waits for them. `by` needs no
    /// waking.
    fn free(&self, count: u64, by: usize) {
        self.taken.fetch_sub(count, SeqCst);
        // Whoever gets in line does so before its last look at `taken`: either that
        // look sees these places, or this one sees who waits.
        if self.waiting.load(SeqCst) > 0 {
            self.call(&mut self.line(), by);
        }
    }

    /// Keeps free places for those in `line`, and tells them.
    fn call(&self, line: &mut VecDeque<usize>, by: usize) {
        while let Some(&first) = line.front() {
            if !self.try_take() {
                break;
            }
            line.pop_front();
            self.waiting.store(line.len(), SeqCst);
            let thread = &self.threads[first];
            thread.is_called.store(true, SeqCst);
            if let Some(waker) = thread.waker.get().filter(|_| first != by) {
                waker.wake();
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes a place. If there is none, or others were first, the thread is in line
    /// from now on, and woken when it is worth while to ask again.
    #[must_use]
    pub fn take(&mut self) -> bool {
        let Self { places, thread, .. } = self;
        if !self.is_in_line {
            if places.waiting.load(SeqCst) == 0 && places.try_take() {
                self.count += 1;
                return true;
            }
            let mut line = places.line();
            line.push_back(*thread);
            places.waiting.store(line.len(), SeqCst);
            places.call(&mut line, *thread);
            self.is_in_line = true;
        }
        let is_called = places.threads[*thread].is_called.swap(false, SeqCst);
        if is_called {
            self.is_in_line = false;
            self.count += 1;
        }
        is_called
    }

    /// Gives one place back. It may be kept for this very thread, which is not woken
    /// for it.
    pub fn give_back(&mut self) {
        debug_assert!(self.count > 0, "there is none to give back");
        self.count -= 1;
        self.places.free(1, self.thread);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Self { places, thread, count, .. } = self;
        {
            let mut line = places.line();
            line.retain(|other| other != thread);
            places.waiting.store(line.len(), SeqCst);
        }
        let kept = places.threads[*thread].is_called.swap(false, SeqCst);
        places.free(*count + u64::from(kept), *thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{self, Thread as Handle};
    use std::time::Duration;

    #[derive(Debug)]
    struct Unpark(Handle);

    impl Wake for Unpark {
        fn wake(&self) {
            self.0.unpark();
        }
    }

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn threads<const N: usize>(max: u64) -> (Arc<Places>, [Taken; N], [Arc<Count>; N]) {
        let places = Arc::new(Places::new(max, N));
        let wakers = [(); N].map(|()| Arc::new(Count::default()));
        let mut index = 0..N;
        let taken = wakers.each_ref().map(|waker| {
            let waker: Arc<dyn Wake> = Arc::<Count>::clone(waker);
            Arc::clone(&places).taken_by(index.next().unwrap(), waker)
        });
        (places, taken, wakers)
    }

    #[test]
    fn whoever_has_waited_longest_is_next() {
        let (_, [mut a, mut b, mut c], wakers) = threads(2);
        let woken = || wakers.each_ref().map(|waker| waker.0.load(SeqCst));
        assert!(a.take() && a.take() && !b.take() && !c.take() && !b.take());
        a.give_back();
        assert_eq!(woken(), [0, 1, 0]);
        assert!(!a.take(), "b was first");
        assert!(!c.take() && b.take());
        // The place is c's, and a's the one after that.
        b.give_back();
        assert_eq!(woken(), [0, 1, 1]);
        assert!(!b.take() && c.take() && !a.take());
        a.give_back();
        assert!(a.take(), "it need not be woken by itself");
        assert_eq!(woken(), [0, 1, 1]);
    }

    #[test]
    fn what_a_thread_leaves_behind_is_free() {
        let (places, [mut a, mut b, mut c], _) = threads(1);
        assert!(a.take() && !b.take() && !c.take());
        // A place is kept for b, which ends without having looked.
        a.give_back();
        drop(b);
        assert!(c.take() && !a.take());
        // In line, and gone.
        drop(a);
        c.give_back();
        assert!(c.take());
        drop(c);
        assert_eq!(places.taken.load(SeqCst), 0);
        assert_eq!(places.waiting.load(SeqCst), 0);
    }

    /// A thread that is not woken stays parked, and the test fails.
    #[test]
    fn no_wake_is_lost_and_no_place_is_taken_twice() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 20_000;
        for max in 1..=3 {
            let places = Arc::new(Places::new(max, THREADS));
            let inside = Arc::new(AtomicU64::new(0));
            let work = |index| {
                let (places, inside) = (Arc::clone(&places), Arc::clone(&inside));
                thread::spawn(move || {
                    let waker = Arc::new(Unpark(thread::current()));
                    let mut taken = places.taken_by(index, waker);
                    for _ in 0..ROUNDS {
                        while !taken.take() {
                            thread::park();
                        }
                        assert!(inside.fetch_add(1, SeqCst) < max);
                        inside.fetch_sub(1, SeqCst);
                        taken.give_back();
                    }
                })
            };
            let workers: Vec<_> = (0..THREADS).map(work).collect();
            let mut patience = 6000;
            while !workers.iter().all(thread::JoinHandle::is_finished) {
                assert!(patience > 0, "somebody was not woken");
                patience -= 1;
                thread::sleep(Duration::from_millis(10));
            }
            for worker in workers {
                worker.join().unwrap();
            }
            assert_eq!(places.taken.load(SeqCst), 0);
        }
    }
}
