//! What a ring can be used for, tried on one of a few entries.

use super::{PATIENCE, Pair};
use crate::ring::FULL;
use crate::sys::event_fd::EventFd;
use crate::sys::message::Options;
use crate::sys::ring::{
    self, Completion, Interest, ReceiveBuffers, Registered, Ring, SendMemory, Way, Wish,
};
use crate::sys::timestamping::{self, Wanted};
use lastbyte::{Pool, StampOf};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

/// The name of the only operation.
const NAME: u64 = 1;

/// A ring, and what it has said that nobody has asked for yet.
struct Trial {
    ring: Ring,
    seen: Vec<Completion>,
}

pub(super) fn works() -> io::Result<bool> {
    let mut trial = Trial::new(false)?;
    let event = EventFd::new()?;
    event.set();
    trial.ring.poll(event.as_raw_fd(), Interest::Input, true, NAME)?;
    let polled = trial.first(|_| true)?;
    if let Some(polled) = polled.filter(|polled| !polled.more()) {
        // Linux 5.13 is the first to poll repeatedly.
        return polled.value().and_then(|_| Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
    }
    has_room()?;
    trial.finish(polled)
}

/// Whether each core can have a driver's ring: `RLIMIT_MEMLOCK` counts rings on
/// some kernels, all of a user's together. Otherwise the second thread of a
/// server would be refused what the first one got.
fn has_room() -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (0..cores).map(|_| Ring::whole(FULL)).collect::<io::Result<Vec<_>>>().map(drop)
}

pub(super) fn defers() -> io::Result<bool> {
    let trial = Trial::new(true)?;
    if trial.ring.is_deferred() {
        Ok(true)
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

pub(super) fn accepts() -> io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut trial = Trial::new(false)?;
    trial.ring.accept(listener.as_raw_fd(), NAME)?;
    let _peer = TcpStream::connect(listener.local_addr()?)?;
    let accepted = trial.first(|_| true)?;
    drop(accepted.map(|accepted| ring::accepted(&accepted)).transpose()?);
    trial.finish(accepted)
}

pub(super) fn receives(mut pair: Pair) -> io::Result<bool> {
    let pool = Pool::new(64, 1);
    let mut trial = Trial::new(false)?;
    let mut buffers = ReceiveBuffers::register(&mut trial.ring, &pool, 1, 1)?;
    trial.ring.receive(pair.near.as_raw_fd(), buffers.group(), NAME)?;
    pair.far.write_all(b"r")?;
    let received = trial.first(|_| true)?;
    let filled = match received {
        Some(received) => {
            let len = received.value()?;
            received.buffer().and_then(|id| buffers.take(id, len))
        }
        None => None,
    };
    let ended = trial.finish(received);
    if ended.is_err() {
        // Receiving may go on, so the kernel may still write to the buffers.
        std::mem::forget(buffers);
    }
    Ok(ended? && filled.is_some_and(|filled| filled[..] == *b"r"))
}

pub(super) fn sends(pair: Pair) -> io::Result<bool> {
    let mut trial = Trial::new(false)?;
    let sent = trial.send(&pair, Way::Copied, Options::PLAIN)?;
    Ok(sent.map(|sent| sent.value()).transpose()? == Some(1))
}

pub(super) fn sends_vectored(pair: Pair) -> io::Result<bool> {
    /// Static, should the kernel not be done with them in time. A kernel that
    /// took the slices for the bytes would send as many as there are slices.
    static SLICES: [&[u8]; 2] = [b"ve", b"ctor"];
    let mut trial = Trial::new(false)?;
    let mut memory = SendMemory::new();
    let len = memory.fill(SLICES.into_iter(), Options::PLAIN);
    let sent = trial.send_memory(&pair, memory, Way::Vectored)?;
    Ok(sent.map(|sent| sent.value()).transpose()?.map(|sent| sent as u64) == Some(len))
}

pub(super) fn sends_zero_copy(pair: Pair) -> io::Result<bool> {
    let mut trial = Trial::new(false)?;
    let sent = trial.send(&pair, Way::Pinned, Options::PLAIN);
    trial.is_done_with(sent)
}

pub(super) fn sends_registered(pair: Pair) -> io::Result<bool> {
    let mut trial = Trial::new(false)?;
    let pool = Pool::contiguous(64, 1);
    let arena = pool.arena().ok_or(io::ErrorKind::InvalidInput)?;
    let mut registered = Registered::default();
    registered.add(&trial.ring, arena)?;
    let mut buffer = pool.take();
    buffer.fill_from(b"u");
    let mut memory = SendMemory::new();
    memory.fill([&buffer[..]].into_iter(), Options::PLAIN);
    let place = registered.place_of(&memory).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let sent = trial.send_memory(&pair, memory, Way::Registered(place));
    let done = trial.is_done_with(sent);
    if !matches!(done, Ok(true)) {
        // The kernel may read it until the peer has it.
        std::mem::forget(buffer);
    }
    done
}

pub(super) fn takes_stamps(pair: Pair) -> io::Result<bool> {
    let mut trial = Trial::new(false)?;
    if !trial.ring.is_wide() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let near = pair.near.as_fd();
    timestamping::enable(near, false)?;
    trial.ring.stamps(near.as_raw_fd(), NAME + 1)?;
    let stamps = Wanted { acked: true, transmitted: false };
    let options = Options { stamps, end_of_record: true, ..Options::PLAIN };
    trial.send(&pair, Way::Copied, options)?;
    let stamped = trial.first(|completion| completion.name == NAME + 1)?;
    if let Some(stamped) = stamped.filter(|stamped| !stamped.more()) {
        return stamped.value().map(|_| false);
    }
    let of = stamped.and_then(|stamped| ring::stamp(&stamped)).map(|stamp| stamp.of);
    trial.ring.cancel(NAME + 1, NAME + 2)?;
    trial.first(|completion| completion.name == NAME + 1 && !completion.more())?;
    Ok(of == Some(StampOf::Acked))
}

impl Trial {
    fn new(deferred: bool) -> io::Result<Self> {
        let ring = Ring::new(Wish { entries: 4, completions: 16, deferred })?;
        Ok(Self { ring, seen: Vec::new() })
    }

    /// Sends a byte, and says what the kernel said of that.
    fn send(&mut self, pair: &Pair, way: Way, options: Options) -> io::Result<Option<Completion>> {
        /// Static, because the kernel may read it until the peer has it.
        static BYTE: [u8; 1] = [b'u'];
        let mut memory = SendMemory::new();
        memory.fill([&BYTE[..]].into_iter(), options);
        self.send_memory(pair, memory, way)
    }

    fn send_memory(
        &mut self,
        pair: &Pair,
        memory: SendMemory,
        way: Way,
    ) -> io::Result<Option<Completion>> {
        self.ring.send(pair.near.as_raw_fd(), &memory, way, NAME)?;
        let sent = self.first(|completion| completion.name == NAME);
        if !matches!(sent, Ok(Some(_))) {
            std::mem::forget(memory);
        }
        sent
    }

    /// Whether a zero-copy send has sent its byte, and the kernel says that it is
    /// done with it.
    fn is_done_with(&mut self, sent: io::Result<Option<Completion>>) -> io::Result<bool> {
        let Some(sent) = sent? else { return Ok(false) };
        if !sent.more() {
            return sent.value().map(|_| false);
        }
        let notified = self.first(Completion::is_notification)?;
        // How it is known whether the kernel copied is known from the flag's
        // being taken at all.
        Ok(sent.value()? == 1 && notified.is_some())
    }

    /// Ends the operation that `began` tells of, if it goes on; it was to.
    fn finish(&mut self, began: Option<Completion>) -> io::Result<bool> {
        let Some(began) = began else { return Err(io::ErrorKind::TimedOut.into()) };
        if !began.more() {
            return Ok(false);
        }
        self.ring.cancel(NAME, NAME + 1)?;
        match self.first(|completion| completion.name == NAME && !completion.more())? {
            Some(_) => Ok(true),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The first completion of this kind, if one comes in time.
    fn first(&mut self, wanted: impl Fn(&Completion) -> bool) -> io::Result<Option<Completion>> {
        let started = Instant::now();
        loop {
            let Self { ring, seen } = self;
            ring.reap(|completion| seen.push(completion));
            if let Some(at) = seen.iter().position(&wanted) {
                return Ok(Some(seen.remove(at)));
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            ring.enter(Some(left))?;
        }
    }
}
