//! A selector that does not only wait: it accepts, receives, sends, and takes
//! stamps, in one call a turn.

mod arm;
mod end;
mod face;
mod reap;
mod waker;

use super::in_flight::InFlight;
use super::port::Port;
use crate::facilities::RingUse;
use crate::sockets::ahead::AheadCount;
use crate::sockets::receive_buffer;
use crate::sockets::selector::Happening;
use crate::sys::ring::{ReceiveBuffers, Registered, Ring, SendMemory, Wish};
use lastbyte::{DriverConfig, Pool};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use waker::EventWaker;

/// The ring of a driver. Operations beyond its entries take a submission more.
/// Completions beyond its room the kernel keeps for longer, which is slow, and
/// repeating operations end.
pub(crate) const FULL: Wish = Wish { entries: 512, completions: 4096, deferred: false };

/// Buffers that the kernel may fill between two turns.
const BUFFERS: u16 = 256;

/// Where a token that is not known has its port.
const NOWHERE: usize = usize::MAX;

/// Where one has it that hears no more, and that the kernel still has to do with.
const RETIRING: usize = NOWHERE - 1;

pub(crate) struct RingSelector {
    ring: Ring,
    uses: RingUse,
    in_flight: InFlight<SendMemory>,
    ports: Slab<Port>,
    /// The port of each token.
    places: Vec<usize>,
    /// Ports that want something else than before.
    dirty: VecDeque<usize>,
    /// Ports for whose input no buffer was left, the longest ago first.
    starved: VecDeque<usize>,
    /// Retired ports that the kernel still has to do with.
    retiring: usize,
    /// Ports some of whose operations could not be told to end yet.
    uncancelled: Vec<usize>,
    /// What has happened and was not told.
    waiting: VecDeque<Happening>,
    /// Some of it is meant for those who hear no more.
    has_stale: bool,
    /// Stamps that need not wait, and must not: whoever looks at a socket has to
    /// know of all that were taken before. So has who reads the error queue,
    /// where later ones are.
    stamps: Vec<Happening>,
    /// Happenings that one wait yields at the most; stamps do not count.
    limit: usize,
    /// After the ring, which must be closed before.
    buffers: Option<ReceiveBuffers>,
    ahead: AheadCount,
    /// As the buffers.
    registered: Registered,
    /// Bytes that were to be sent out of it.
    sent_registered: u64,
    waker: Arc<EventWaker>,
    listens_to_waker: bool,
    /// Turns since the ring was last entered, none of which waits.
    idle_turns: u32,
    /// The kernel would not start what is wanted, for now.
    is_refused: bool,
    /// Somebody has called, and no turn has returned since.
    woken: bool,
    /// Something was started that the kernel has not been told of.
    started: bool,
    /// The kernel had more to say than was there to be taken out.
    more: bool,
}

impl RingSelector {
    /// A ring for `config`, `bound` to the calling thread or not.
    pub(crate) fn new(
        config: &DriverConfig,
        uses: RingUse,
        bound: bool,
        limit: usize,
    ) -> io::Result<Self> {
        let deferred = bound && uses.deferred;
        let wish = Wish { deferred, ..FULL };
        Self::with_queues(config, uses, wish, limit)
    }

    /// The same with queues of these sizes.
    pub(super) fn with_queues(
        config: &DriverConfig,
        mut uses: RingUse,
        wish: Wish,
        limit: usize,
    ) -> io::Result<Self> {
        let mut ring = Ring::new(wish)?;
        uses.stamps &= ring.is_wide();
        let buffers = if uses.receives {
            let size = receive_buffer(config);
            let most = usize::try_from(config.receive_ahead).unwrap_or(usize::MAX) / size;
            let pool = Pool::new(size, usize::from(BUFFERS));
            Some(ReceiveBuffers::register(&mut ring, &pool, BUFFERS, most)?)
        } else {
            None
        };
        Ok(Self {
            ring,
            uses,
            in_flight: InFlight::new(),
            ports: Slab::new(),
            places: Vec::new(),
            dirty: VecDeque::new(),
            starved: VecDeque::new(),
            retiring: 0,
            uncancelled: Vec::new(),
            waiting: VecDeque::new(),
            has_stale: false,
            stamps: Vec::new(),
            limit,
            buffers,
            ahead: AheadCount::default(),
            registered: Registered::default(),
            sent_registered: 0,
            waker: Arc::new(EventWaker::new()?),
            listens_to_waker: false,
            idle_turns: 0,
            is_refused: false,
            woken: false,
            started: false,
            more: false,
        })
    }

    fn port(&mut self, token: usize) -> Option<usize> {
        self.places.get(token).copied().filter(|&place| place < RETIRING)
    }

    /// Nobody hears under this name any more, until it names somebody else.
    fn forget_token(&mut self, token: usize) {
        self.places[token] = NOWHERE;
        self.has_stale = true;
    }

    /// Forgets what was meant for those who hear no more: before a name is given
    /// again, so that many who end at once cost one pass.
    fn forget_stale(&mut self) {
        if std::mem::take(&mut self.has_stale) {
            let places = &self.places;
            let is_heard = |happening: &Happening| {
                places.get(happening.token()).is_some_and(|&place| place < RETIRING)
            };
            self.waiting.retain(is_heard);
            self.stamps.retain(is_heard);
        }
    }

    fn mark(&mut self, place: usize) {
        if let Some(port) = self.ports.get_mut(place)
            && !std::mem::replace(&mut port.is_dirty, true)
        {
            self.dirty.push_back(place);
        }
    }
}

impl std::fmt::Debug for RingSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSelector")
            .field("ring", &self.ring)
            .field("uses", &self.uses)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
