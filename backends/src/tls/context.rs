//! What all connections of a driver share.

use super::record::{MAX_CONTENT, MAX_SEALED};
use crate::sockets::receive_buffer;
use lastbyte::{
    ClockMap, Driver, DriverConfig, Facility, Moment, OffloadWish, Outbox, Pool, Time, UnixTime,
};
use std::time::SystemTime;

/// Buffers that are kept for the next records: as many as a few connections
/// have in flight.
const KEPT: usize = 256;

/// What becomes of record layers after the handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct OffloadTerms {
    /// Where nothing is said of a connection.
    pub(super) wish: OffloadWish,
    pub(super) unchanging_files: bool,
    /// The first thing that is lacking for kernel TLS, whatever is agreed on.
    pub(super) lacks: Option<Facility>,
    /// The inner driver may take the peer's records over, so that nothing must
    /// be read ahead of them.
    pub(super) receives: bool,
}

#[derive(Debug)]
pub(super) struct Context {
    /// Sealed records, and nothing else: what is in one of these buffers may
    /// still be read by the kernel until the inner driver has released it.
    pub(super) records: Pool,
    /// Opened records.
    pub(super) opened: Pool,
    /// The most that one receive yields.
    pub(super) receive_buffer: usize,
    /// Payload bytes that may be unreleased, over all connections.
    pub(super) max_memory: u64,
    pub(super) rekey_after: u64,
    pub(super) offload: OffloadTerms,
    pub(super) outbox: Outbox,
    /// Somebody waits for the inner driver's memory: payload queues behind.
    pub(super) room_is_claimed: bool,
    /// How often the outbox was delivered.
    pub(super) deliveries: u64,
    /// When the inner driver saw the newest input.
    pub(super) heard: Moment,
    clock: ClockMap,
}

impl Context {
    pub(super) fn new(
        config: &DriverConfig,
        rekey_after: u64,
        offload: OffloadTerms,
        now: Time,
    ) -> Self {
        Self {
            records: Pool::new(MAX_SEALED, KEPT),
            // TLS 1.3 content has its type and padding behind it when opened.
            opened: Pool::new(receive_buffer(config).max(MAX_CONTENT) + 2048, KEPT / 4),
            receive_buffer: receive_buffer(config),
            max_memory: config.max_memory,
            rekey_after,
            offload,
            outbox: Outbox::default(),
            room_is_claimed: false,
            deliveries: 0,
            heard: Moment::default(),
            clock: ClockMap::new(now, wall_clock(), now),
        }
    }

    pub(super) fn now(&mut self, inner: &(impl Driver + ?Sized)) -> Moment {
        let now = inner.now();
        if self.clock.is_old(now) {
            self.clock.sample(now, wall_clock(), now);
        }
        self.clock.moment(now)
    }
}

fn wall_clock() -> UnixTime {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX))
}
