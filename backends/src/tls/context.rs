//! What all connections of a driver share.

use super::record::{MAX_CONTENT, MAX_SEALED};
use lastbyte::{ClockMap, Driver, DriverConfig, Moment, Outbox, Pool, Time, UnixTime};
use std::time::SystemTime;

/// Buffers that are kept for the next records: as many as a few connections
/// have in flight.
const KEPT: usize = 256;

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
    pub(super) outbox: Outbox,
    /// How often the outbox was delivered.
    pub(super) deliveries: u64,
    clock: ClockMap,
}

impl Context {
    pub(super) fn new(config: &DriverConfig, rekey_after: u64) -> Self {
        Self {
            records: Pool::new(MAX_SEALED, KEPT),
            // TLS 1.3 content has its type and padding behind it when opened.
            opened: Pool::new(config.receive_buffer.max(MAX_CONTENT) + 2048, KEPT / 4),
            receive_buffer: config.receive_buffer.max(1),
            max_memory: config.max_memory,
            rekey_after,
            outbox: Outbox::default(),
            deliveries: 0,
            clock: ClockMap::new(Time::default(), UnixTime::default(), Time::default()),
        }
    }

    /// Compares the driver's clock to the wall clock.
    pub(super) fn sample_clock(&mut self, monotonic: Time) {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = UnixTime::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        self.clock.sample(monotonic, wall, monotonic);
    }

    pub(super) fn now(&self, inner: &(impl Driver + ?Sized)) -> Moment {
        self.clock.moment(inner.now())
    }

    pub(super) fn at(&self, time: Time) -> Moment {
        self.clock.moment(time)
    }
}
