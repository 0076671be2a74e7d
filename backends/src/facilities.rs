//! What of the kernel a driver uses.

use lastbyte::{BackendKind, Facility, Report, StageEvidence, StageSupport, TlsCipher, TlsVersion};

/// A report, boiled down to what the hot path asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facilities {
    pub(crate) timestamps: bool,
    pub(crate) timestamp_id_tcp: bool,
    pub(crate) tcp_info: bool,
    pub(crate) out_queue: bool,
    pub(crate) zero_copy: bool,
    pub(crate) sendfile: bool,
    pub(crate) kernel_tls: KernelTlsUse,
    pub(crate) ring: RingUse,
}

/// What of kernel TLS is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelTlsUse {
    /// The first thing that is lacking for either direction, whatever the
    /// version and the cipher.
    transmit: Option<Facility>,
    receive: Option<Facility>,
    rekey: bool,
    aes_256: bool,
    chacha20: bool,
    pub(crate) end_of_record: bool,
    pub(crate) zero_copy_files: bool,
}

impl KernelTlsUse {
    fn of(report: &Report, kind: BackendKind) -> Self {
        let first_lack =
            |needed: &[Facility]| needed.iter().copied().find(|&facility| !report.has(facility));
        // The fallback keeps to what every Unix has.
        let portable = (kind == BackendKind::Fallback).then_some(Facility::KernelTls);
        Self {
            // `send` may return before TCP has the bytes, and only both numbers
            // together tell when it has them.
            transmit: portable.or_else(|| {
                first_lack(&[
                    Facility::KernelTls,
                    Facility::TlsTransmit,
                    Facility::TcpInfo,
                    Facility::OutQueue,
                ])
            }),
            receive: portable.or_else(|| first_lack(&[Facility::KernelTls, Facility::TlsReceive])),
            rekey: report.has(Facility::TlsRekey),
            aes_256: report.has(Facility::TlsAes256),
            chacha20: report.has(Facility::TlsChaCha20),
            end_of_record: report.has(Facility::TlsEndOfRecord),
            zero_copy_files: report.has(Facility::TlsZeroCopyFiles),
        }
    }

    /// What is lacking for the kernel to seal this side's records.
    pub(crate) fn lacks_to_transmit(
        &self,
        version: TlsVersion,
        cipher: TlsCipher,
    ) -> Option<Facility> {
        self.transmit.or_else(|| self.lacks(version, cipher))
    }

    /// What is lacking for the kernel to open the peer's records.
    pub(crate) fn lacks_to_receive(
        &self,
        version: TlsVersion,
        cipher: TlsCipher,
    ) -> Option<Facility> {
        self.receive.or_else(|| self.lacks(version, cipher))
    }

    fn lacks(&self, version: TlsVersion, cipher: TlsCipher) -> Option<Facility> {
        // A peer may change its key at any time, and want this side's changed:
        // whoever cannot do that must not begin (RFC 8446, section 4.6.3).
        if version != TlsVersion::Tls12 && !self.rekey {
            return Some(Facility::TlsRekey);
        }
        match cipher {
            TlsCipher::Aes128Gcm => None,
            TlsCipher::Aes256Gcm => (!self.aes_256).then_some(Facility::TlsAes256),
            TlsCipher::ChaCha20Poly1305 => (!self.chacha20).then_some(Facility::TlsChaCha20),
            _ => Some(Facility::KernelTls),
        }
    }
}

/// What a ring is used for; the rest goes by readiness and system calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingUse {
    pub(crate) deferred: bool,
    pub(crate) accepts: bool,
    pub(crate) receives: bool,
    pub(crate) sends: bool,
    pub(crate) vectored_sends: bool,
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
            kernel_tls: KernelTlsUse::of(report, kind),
            ring: RingUse {
                deferred: ring(Facility::UringTaskrun),
                accepts: ring(Facility::UringAccept),
                receives: ring(Facility::UringReceive),
                sends: ring(Facility::UringSend),
                vectored_sends: ring(Facility::UringSend) && ring(Facility::UringVectored),
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
