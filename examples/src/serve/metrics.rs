//! Counters of each thread, and their sum as a page for Prometheus.

use lastbyte::{Counters, Method, Transport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The peer acknowledged all of it.
    Acked,
    /// All of it was sent; whether it arrived cannot be, or was not to be, told.
    Unconfirmed,
    /// The peer reset the connection.
    Reset,
    /// The peer made no progress.
    Timeout,
    /// The connection ended for another reason.
    Closed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Acked, Self::Unconfirmed, Self::Reset, Self::Timeout, Self::Closed];

    /// The name used in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Unconfirmed => "unconfirmed",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// What moves transfers, in the order of their values.
const TRANSPORTS: [Transport; 3] = [Transport::Plain, Transport::UserTls, Transport::KernelTls];

/// Upper bounds of the histograms' buckets.
const BOUNDS: [Duration; 16] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// The same in nanoseconds: comparing numbers takes no branches.
const NANOSECONDS: [u64; BOUNDS.len()] = {
    let mut nanoseconds = [0; BOUNDS.len()];
    let mut n = 0;
    while n < BOUNDS.len() {
        nanoseconds[n] = BOUNDS[n].as_secs() * 1_000_000_000 + BOUNDS[n].subsec_nanos() as u64;
        n += 1;
    }
    nanoseconds
};

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds `n`. Only the owning thread may: this is no atomic addition, and so
    /// as cheap as a plain one.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, counted by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than there are bounds: the last has none.
    buckets: [Number; BOUNDS.len() + 1],
    nanoseconds: Number,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = NANOSECONDS.iter().filter(|&&bound| bound < nanoseconds).count();
        self.buckets[bucket].add(1);
        self.nanoseconds.add(nanoseconds);
    }
}

/// What one thread counts.
///
/// Aligned, so that no two threads write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ThreadCounters {
    /// Transfers by [`Outcome`].
    outcomes: [Number; Outcome::ALL.len()],
    /// Transfers by [`Transport`].
    transports: [Number; TRANSPORTS.len()],
    /// From a request's first byte to its response being queued.
    pub queued: Histogram,
    /// From a request's first byte to its response being acknowledged.
    pub acked: Histogram,
    /// Connections accepted.
    pub accepted: Number,
    /// Times that accepting was suspended.
    pub accept_pauses: Number,
    /// Connections refused by the driver.
    pub refused: Number,
    /// Log lines dropped.
    pub log_lines_lost: Number,
    driver: DriverNumbers,
}

#[derive(Debug, Default)]
struct DriverNumbers {
    connections: Number,
    unreleased: Number,
    pinned: Number,
    leaked: Number,
    bytes: [Number; 4],
    recovered: Number,
    undated: Number,
    no_room: Number,
    ciphertext: Number,
    sealed: Number,
    copied_to_seal: Number,
    handshakes: Number,
    handshakes_failed: Number,
    /// Handed to the kernel: what is sent, what is received.
    offloaded: [Number; 2],
}

impl ThreadCounters {
    /// Counts a transfer that has ended.
    pub fn ended(&self, outcome: Outcome, transport: Transport) {
        self.outcomes[outcome as usize].add(1);
        self.transports[transport as usize].add(1);
    }

    /// Takes over what the thread's driver has counted.
    pub fn publish(&self, counters: &Counters) {
        let to = &self.driver;
        to.connections.set(counters.connections);
        to.unreleased.set(counters.unreleased_bytes);
        to.pinned.set(counters.pinned_bytes);
        to.leaked.set(counters.leaked_bytes);
        to.recovered.set(counters.stamps_recovered);
        to.undated.set(counters.stamps_undated);
        to.no_room.set(counters.zero_copy_no_room);
        to.ciphertext.set(counters.ciphertext_bytes);
        to.sealed.set(counters.sealed_bytes);
        to.copied_to_seal.set(counters.copied_to_seal_bytes);
        to.handshakes.set(counters.handshakes);
        to.handshakes_failed.set(counters.handshakes_failed);
        to.offloaded[0].set(counters.offloaded_transmit);
        to.offloaded[1].set(counters.offloaded_receive);
        for (to, from) in to.bytes.iter().zip(counters.bytes) {
            to.set(from);
        }
    }
}

/// The counters of all threads.
#[derive(Clone, Debug)]
pub struct Metrics {
    threads: Arc<[Arc<ThreadCounters>]>,
}

impl Metrics {
    /// Counters for this many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| Arc::default()).collect() }
    }

    /// The counters of one thread, of which there must be that many.
    #[must_use]
    pub fn thread(&self, index: usize) -> Arc<ThreadCounters> {
        Arc::clone(&self.threads[index])
    }

    /// All of them as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut registry = Registry::with_prefix("lastbyte");
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &registry);
        page
    }

    fn sum(&self, number: impl Fn(&ThreadCounters) -> &Number) -> u64 {
        self.threads.iter().map(|thread| number(thread).get()).fold(0, u64::wrapping_add)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "transfers",
            "Responses that have ended, by how",
            None,
            MetricType::Counter,
        )?;
        for outcome in Outcome::ALL {
            let count = self.sum(|thread| &thread.outcomes[outcome as usize]);
            let labels = [("outcome", outcome.name())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "transfers_by_transport",
            "Responses that have ended, by what turned them into bytes on the wire",
            None,
            MetricType::Counter,
        )?;
        for transport in TRANSPORTS {
            let count = self.sum(|thread| &thread.transports[transport as usize]);
            let name = transport.to_string();
            let labels = [("transport", name.as_str())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "tls_connections",
            "Connections with TLS, by direction and by what has its records",
            None,
            MetricType::Counter,
        )?;
        for (n, direction) in ["transmit", "receive"].into_iter().enumerate() {
            let kernel = self.sum(|thread| &thread.driver.offloaded[n]);
            let user = self.sum(|thread| &thread.driver.handshakes).saturating_sub(kernel);
            for (transport, count) in [(Transport::UserTls, user), (Transport::KernelTls, kernel)] {
                let name = transport.to_string();
                let labels = [("direction", direction), ("transport", name.as_str())];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "bytes",
            "Bytes handed to the kernel, by the method asked for",
            None,
            MetricType::Counter,
        )?;
        for method in [Method::Copy, Method::ZeroCopy, Method::Sendfile, Method::Splice] {
            let count = self.sum(|thread| &thread.driver.bytes[Counters::slot(method)]);
            let name = method.to_string();
            let labels = [("method", name.as_str())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        self.histogram(
            &mut encoder,
            "queued_seconds",
            "From a request's first byte to the kernel holding its response; \
             without a log, of every 16th response",
            |thread| &thread.queued,
        )?;
        self.histogram(
            &mut encoder,
            "acked_seconds",
            "From a request's first byte to the peer's TCP acknowledging its response",
            |thread| &thread.acked,
        )?;
        for (name, help, number) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(self.sum(number)).encode(metric)?;
        }
        for (name, help, number) in GAUGES {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let value = i64::try_from(self.sum(number)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

type Described = (&'static str, &'static str, fn(&ThreadCounters) -> &Number);

const COUNTERS: [Described; 12] = [
    ("tls_handshakes", "TLS handshakes that were completed", |thread| &thread.driver.handshakes),
    ("tls_handshakes_failed", "TLS handshakes that failed", |thread| {
        &thread.driver.handshakes_failed
    }),
    ("tls_sealed_bytes", "Payload bytes that were sealed in user space", |thread| {
        &thread.driver.sealed
    }),
    ("tls_copied_bytes", "Payload bytes that were copied in memory to be sealed", |thread| {
        &thread.driver.copied_to_seal
    }),
    (
        "notifications_recovered",
        "Acknowledgements whose notification was lost, made up for by looking at the socket",
        |thread| &thread.driver.recovered,
    ),
    (
        "notifications_undated",
        "Acknowledgements whose time was useless because the wall clock was stepped",
        |thread| &thread.driver.undated,
    ),
    (
        "zero_copy_no_room",
        "Zero-copy sends that the kernel had no room for and that were copied",
        |thread| &thread.driver.no_room,
    ),
    ("leaked_bytes", "Bytes of payload memory that the kernel never let go of", |thread| {
        &thread.driver.leaked
    }),
    ("connections_accepted", "Connections accepted", |thread| &thread.accepted),
    ("connections_refused", "Connections that could not be taken over", |thread| &thread.refused),
    ("accept_pauses", "Times that accepting was suspended", |thread| &thread.accept_pauses),
    (
        "log_lines_lost",
        "Log lines that were dropped because those before them were not read in time",
        |thread| &thread.log_lines_lost,
    ),
];

const GAUGES: [Described; 4] = [
    ("ciphertext_bytes", "Bytes of sealed records that the kernel has not released", |thread| {
        &thread.driver.ciphertext
    }),
    ("connections", "Connections now", |thread| &thread.driver.connections),
    ("pinned_bytes", "Bytes of payload memory that the kernel now references", |thread| {
        &thread.driver.pinned
    }),
    ("unreleased_bytes", "Bytes of payload memory now unreleased", |thread| {
        &thread.driver.unreleased
    }),
];

impl Metrics {
    fn histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        histogram: impl Fn(&ThreadCounters) -> &Histogram,
    ) -> fmt::Result {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds
            .enumerate()
            .map(|(n, bound)| (bound, self.sum(|thread| &histogram(thread).buckets[n])))
            .collect();
        let count = buckets.iter().map(|&(_, count)| count).sum();
        let nanoseconds = self.sum(|thread| &histogram(thread).nanoseconds);
        let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_up() {
        let metrics = Metrics::new(2);
        metrics.thread(0).ended(Outcome::Acked, Transport::Plain);
        metrics.thread(1).ended(Outcome::Acked, Transport::Plain);
        metrics.thread(1).ended(Outcome::Reset, Transport::UserTls);
        metrics.thread(1).acked.observe(Duration::from_micros(200));
        metrics.thread(0).acked.observe(Duration::from_secs(60));
        let mut counters = Counters::default();
        (counters.connections, counters.bytes) = (3, [1, 2, 3, 4]);
        metrics.thread(0).publish(&counters);
        let page = metrics.encode();
        for line in [
            "lastbyte_transfers_total{outcome=\"acked\"} 2",
            "lastbyte_transfers_total{outcome=\"reset\"} 1",
            "lastbyte_transfers_total{outcome=\"timeout\"} 0",
            "lastbyte_transfers_by_transport_total{transport=\"plain\"} 2",
            "lastbyte_transfers_by_transport_total{transport=\"user-tls\"} 1",
            "lastbyte_bytes_total{method=\"sendfile\"} 3",
            "lastbyte_acked_seconds_bucket{le=\"0.00025\"} 1",
            "lastbyte_acked_seconds_bucket{le=\"+Inf\"} 2",
            "lastbyte_acked_seconds_sum 60.0002",
            "lastbyte_acked_seconds_count 2",
            "lastbyte_connections 3",
            "lastbyte_leaked_bytes_total 0",
            "# EOF",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
    }
}
