//! Standard output, written to by a thread of its own: whoever reads it slowly,
//! or not at all, delays lines, and in the end loses some, but nothing else.

use super::complain::complain;
use super::log::{Format, lost_line};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written, besides those that are being written,
/// which are as many at most. What comes beyond is dropped.
pub const BOUND: usize = 4 << 20;
/// Shortest time from one write to the next. Lines of many turns then leave in
/// one call, and hardly any turn has to wake the thread.
const PACE: Duration = Duration::from_millis(10);
/// How long a failure that may pass is left alone, such as a full disk.
const AGAIN: Duration = Duration::from_secs(1);
/// What an empty buffer may keep for the next lines.
const KEPT: usize = 512 << 10;

/// Where the threads leave their lines.
#[derive(Debug)]
pub struct Outlet {
    format: Format,
    state: Mutex<State>,
    /// Something is to be done.
    more: Condvar,
    /// Nothing is to be done.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that were dropped behind those that wait.
    lost: u64,
    is_writing: bool,
    /// The thread sleeps until it is woken.
    is_asleep: bool,
    /// The server ends, and soon.
    is_hurried: bool,
    /// Standard output cannot be written any more.
    is_off: bool,
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// They will be written when their turn comes.
    Taken,
    /// They were dropped, because too many wait already.
    Dropped,
    /// No line will ever be written again.
    Off,
}

impl Outlet {
    /// Nothing to write yet, and nobody to write it.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let (state, more, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self { format, state, more, done }
    }

    /// Starts the thread, which lasts as long as the process.
    ///
    /// # Errors
    /// If there cannot be another thread.
    pub fn start(self) -> io::Result<Arc<Self>> {
        let outlet = Arc::new(self);
        let writer = Arc::clone(&outlet);
        thread::Builder::new().name("serve-log".to_owned()).spawn(move || writer.write())?;
        Ok(outlet)
    }

    /// Takes `bytes`, which are that many whole `lines`. Never waits for a reader.
    pub fn put(&self, bytes: &[u8], lines: u64) -> Put {
        let mut state = self.state();
        if state.is_off {
            return Put::Off;
        }
        let is_full = state.waiting.len() + bytes.len() > BOUND;
        let put = if is_full && !state.waiting.is_empty() {
            state.lost += lines;
            Put::Dropped
        } else {
            state.waiting.extend_from_slice(bytes);
            Put::Taken
        };
        if std::mem::take(&mut state.is_asleep) {
            drop(state);
            self.more.notify_one();
        }
        put
    }

    /// Waits until everything is written, but no longer than `within`, and says
    /// whether it is.
    pub fn finish(&self, within: Duration) -> bool {
        let mut state = self.state();
        state.is_hurried = true;
        self.more.notify_one();
        let (state, _) = self
            .done
            .wait_timeout_while(state, within, |state| !state.is_done())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_done()
    }

    /// Writes until that is impossible.
    fn write(&self) {
        let mut batch = Vec::new();
        loop {
            let lost = self.take(&mut batch);
            let mut written = write_all(&batch);
            if written.is_ok() && lost > 0 {
                written = write_all(lost_line(self.format, lost).as_bytes());
            }
            if let Err(errno) = written {
                let mut state = self.state();
                *state = State { is_off: true, ..State::default() };
                self.done.notify_all();
                drop(state);
                return complain(format_args!("the log cannot be written: {errno}"));
            }
        }
    }

    /// Exchanges what was written for what waits, when there is something, and
    /// says how many lines were lost behind it.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        batch.shrink_to(KEPT);
        let mut state = self.state();
        state.is_writing = false;
        if state.is_done() {
            self.done.notify_all();
        }
        (state, _) = self
            .more
            .wait_timeout_while(state, PACE, |state| !state.is_hurried)
            .unwrap_or_else(PoisonError::into_inner);
        while state.is_done() {
            state.is_asleep = true;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asleep = false;
        state.is_writing = true;
        std::mem::swap(&mut state.waiting, batch);
        std::mem::take(&mut state.lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.is_off || (self.waiting.is_empty() && self.lost == 0 && !self.is_writing)
    }
}

/// Writes all of `bytes` however long it takes, unless they can never be
/// written: the reader is gone, or there never was one.
fn write_all(mut bytes: &[u8]) -> Result<(), Errno> {
    let out = io::stdout();
    let mut has_complained = false;
    while !bytes.is_empty() {
        match write(&out, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Somebody else who has this pipe or terminal made it non-blocking.
            Err(Errno::AGAIN) => {
                // If this fails, the next write says why.
                let _ = poll(&mut [PollFd::new(&out, PollFlags::OUT)], None);
            }
            Err(gone @ (Errno::PIPE | Errno::BADF)) => return Err(gone),
            Err(errno) => {
                if !has_complained {
                    complain(format_args!("the log cannot be written for now: {errno}"));
                    has_complained = true;
                }
                thread::sleep(AGAIN);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let outlet = Outlet::new(Format::Json);
        let mut batch = Vec::new();
        assert_eq!(outlet.put(&[b'a'; BOUND - 1], 7), Put::Taken);
        assert_eq!(outlet.put(b"b\n", 1), Put::Dropped);
        assert_eq!(outlet.put(b"c", 1), Put::Taken, "there is room for this");
        assert_eq!(outlet.put(b"d\ne\n", 2), Put::Dropped);
        assert_eq!((outlet.take(&mut batch), batch.len()), (3, BOUND));
        assert!(!outlet.finish(Duration::ZERO), "it is not written yet");
        // However long: it is alone.
        assert_eq!(outlet.put(&[b'f'; BOUND + 1], 1), Put::Taken);
        assert_eq!((outlet.take(&mut batch), batch.len()), (0, BOUND + 1));
    }
}
