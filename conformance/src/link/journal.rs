//! What reached whom, and when.

use super::segment::Segment;
use std::time::Instant;

/// Packets are handed to a kernel between these two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) before: Instant,
    pub(crate) after: Instant,
}

/// The progress of the server's stream, as delivered by the link.
#[derive(Debug)]
pub(super) struct Journal {
    server_port: u16,
    /// The server's first sequence number, of its SYN.
    start: Option<u32>,
    /// How far the client's kernel has it without gaps; later pieces wait.
    contiguous: u64,
    pieces: Vec<(u64, u64)>,
    deliveries: Vec<(u64, Arrival)>,
    acknowledgements: Vec<(u64, Arrival)>,
}

impl Journal {
    pub(super) fn new(server_port: u16) -> Self {
        Self {
            server_port,
            start: None,
            contiguous: 0,
            pieces: Vec::new(),
            deliveries: Vec::new(),
            acknowledgements: Vec::new(),
        }
    }

    /// Whether the client sent it.
    pub(super) fn is_from_client(&self, segment: &Segment) -> bool {
        segment.source_port != self.server_port
    }

    /// `segment` has reached its destination.
    pub(super) fn arrived(&mut self, segment: &Segment, at: Arrival) {
        if self.is_from_client(segment) {
            if let (Some(start), true) = (self.start, segment.ack) {
                let to = offset(start, segment.acknowledgement);
                if self.acknowledgements.last().is_none_or(|(last, _)| *last < to) {
                    self.acknowledgements.push((to, at));
                }
            }
        } else if segment.syn {
            self.start = Some(segment.sequence);
        } else if let (Some(start), true) = (self.start, segment.len > 0) {
            let from = offset(start, segment.sequence);
            self.pieces.push((from, from + u64::from(segment.len)));
            self.join_pieces(at);
        }
    }

    pub(super) fn delivered(&self, bytes: u64) -> Option<Arrival> {
        first(&self.deliveries, bytes)
    }

    pub(super) fn acknowledged(&self, bytes: u64) -> Option<Arrival> {
        first(&self.acknowledgements, bytes)
    }

    fn join_pieces(&mut self, at: Arrival) {
        let before = self.contiguous;
        self.pieces.sort_unstable();
        for &(from, to) in &self.pieces {
            if from <= self.contiguous {
                self.contiguous = self.contiguous.max(to);
            }
        }
        let contiguous = self.contiguous;
        self.pieces.retain(|&(_, to)| to > contiguous);
        if contiguous > before {
            self.deliveries.push((contiguous, at));
        }
    }
}

/// Bytes before sequence number `at`; the SYN takes the first number. No test
/// sends 4 GiB.
fn offset(start: u32, at: u32) -> u64 {
    u64::from(at.wrapping_sub(start).saturating_sub(1))
}

fn first(of: &[(u64, Arrival)], bytes: u64) -> Option<Arrival> {
    let n = of.partition_point(|(to, _)| *to < bytes);
    of.get(n).map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Arrival {
        let now = Instant::now();
        Arrival { before: now, after: now }
    }

    #[test]
    fn only_what_is_contiguous_counts() {
        let mut journal = Journal::new(80);
        let data = |sequence, len, syn| Segment {
            source_port: 80,
            sequence,
            acknowledgement: 0,
            syn,
            ack: true,
            len,
        };
        journal.arrived(&data(u32::MAX, 0, true), at());
        journal.arrived(&data(10, 10, false), at());
        assert!(journal.delivered(1).is_none(), "the first ten are missing");
        journal.arrived(&data(0, 10, false), at());
        assert!(journal.delivered(20).is_some() && journal.delivered(21).is_none());
        let ack = Segment { source_port: 9, acknowledgement: 15, ..data(0, 0, false) };
        journal.arrived(&ack, at());
        assert!(journal.acknowledged(15).is_some() && journal.acknowledged(16).is_none());
    }
}
