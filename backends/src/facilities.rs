//! What of the kernel a driver uses.

use lastbyte::{BackendKind, Facility, Report, StageEvidence, StageSupport};

/// A report, boiled down to what the hot path asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facilities {
    pub(crate) timestamps: bool,
    pub(crate) timestamp_id_tcp: bool,
    pub(crate) tcp_info: bool,
    pub(crate) out_queue: bool,
    pub(crate) zero_copy: bool,
    pub(crate) sendfile: bool,
    pub(crate) ring: RingUse,
}

/// What a ring is used for; the rest goes by readiness and system calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingUse {
    pub(crate) deferred: bool,
    pub(crate) accepts: bool,
    pub(crate) receives: bool,
    pub(crate) sends: bool,
    pub(crate) zero_copy_sends: bool,
    pub(crate) stamps: bool,
    pub(crate) fixed_buffers: bool,
}

impl Facilities {
    pub(crate) fn of(report: &Report, kind: BackendKind) -> Self {
        // The fallback is bound to portable calls, whatever the kernel has.
        let linux = |facility| kind != BackendKind::Fallback && report.has(facility);
        let can_look = report.has(Facility::TcpInfo) || report.has(Facility::OutQueue);
        let timestamps = linux(Facility::Timestamps) && can_look;
        let zero_copy = linux(Facility::ZeroCopy) && can_look;
        let ring = |facility| kind == BackendKind::IoUring && report.has(facility);
        let zero_copy_sends = zero_copy && ring(Facility::UringZeroCopy);
        Self {
            // The kernel drops stamps without a word, and only a look makes up
            // for that.
            timestamps,
            timestamp_id_tcp: linux(Facility::TimestampIdTcp),
            tcp_info: report.has(Facility::TcpInfo),
            out_queue: report.has(Facility::OutQueue),
            // The end of a connection is held up for memory, and only a look
            // tells when it is otherwise done.
            zero_copy,
            // The kernel keeps pages of the file until they are acknowledged, and
            // only a look tells when that was where no stamp was asked for.
            sendfile: linux(Facility::Sendfile) && can_look,
            ring: RingUse {
                deferred: ring(Facility::UringTaskrun),
                accepts: ring(Facility::UringAccept),
                receives: ring(Facility::UringReceive),
                sends: ring(Facility::UringSend),
                zero_copy_sends,
                fixed_buffers: zero_copy_sends && ring(Facility::UringFixedBuffers),
                // Where zero copy is notified of in the error queue, that has to
                // be read anyway, and has one reader.
                stamps: timestamps
                    && ring(Facility::UringTimestamps)
                    && zero_copy == zero_copy_sends,
            },
        }
    }

    /// Whether the socket's own account can be read.
    pub(crate) fn can_look(&self) -> bool {
        self.tcp_info || self.out_queue
    }

    /// What stages rest on, on a socket with or without stamps.
    pub(crate) fn stages(&self, stamps: bool) -> StageSupport {
        let evidence = if stamps {
            StageEvidence::Kernel
        } else if self.can_look() {
            StageEvidence::Bracketed
        } else {
            StageEvidence::Unavailable
        };
        StageSupport { transmitted: evidence, acked: evidence }
    }
}
