//! What this kernel can do, found by doing it.

use std::fmt;
use std::str::FromStr;

/// One kernel facility that a backend may use.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Facility {
    /// Readiness by `epoll(7)`.
    Epoll,
    /// Completion by `io_uring(7)`.
    IoUring,
    /// `sendfile(2)` from a file to a TCP socket.
    Sendfile,
    /// `MSG_ZEROCOPY` on TCP.
    ZeroCopy,
    /// Transmit and ACK timestamps on TCP, read from the error queue.
    Timestamps,
    /// `SOF_TIMESTAMPING_OPT_ID_TCP`: stamps that count from the byte written next.
    TimestampIdTcp,
    /// `TCP_INFO` with `tcpi_bytes_acked`.
    TcpInfo,
    /// `SIOCOUTQ`: bytes not yet acknowledged.
    OutQueue,
    /// Sealed memory files (`memfd_create(2)`).
    SealedMemory,
    /// Kernel TLS (the `tls` upper layer protocol).
    KernelTls,
    /// Records sealed by the kernel: TLS 1.2 and 1.3 with AES-128-GCM.
    TlsTransmit,
    /// Records opened by the kernel: TLS 1.2 and 1.3 with AES-128-GCM.
    TlsReceive,
    /// Keys that the kernel changes, in both directions (TLS 1.3).
    TlsRekey,
    /// AES-256-GCM in the kernel's record layer.
    TlsAes256,
    /// ChaCha20-Poly1305 in the kernel's record layer.
    TlsChaCha20,
    /// `MSG_EOR` on a socket whose records the kernel seals.
    TlsEndOfRecord,
    /// `TLS_TX_ZEROCOPY_RO`: files that a network card encrypts where they are.
    TlsZeroCopyFiles,
    /// `io_uring` work that waits for its only thread (`IORING_SETUP_DEFER_TASKRUN`).
    UringTaskrun,
    /// Accepting again and again by one `io_uring` operation.
    UringAccept,
    /// Receiving ahead into provided buffers by one `io_uring` operation.
    UringReceive,
    /// Sending by `io_uring`.
    UringSend,
    /// Sending slices by `io_uring` without a message header (`IORING_SEND_VECTORIZED`).
    UringVectored,
    /// Sending by `io_uring` with zero copy (`IORING_OP_SENDMSG_ZC`).
    UringZeroCopy,
    /// Timestamps as completions (`SOCKET_URING_OP_TX_TIMESTAMP`).
    UringTimestamps,
    /// Zero copy by `io_uring` out of memory that was pinned once for all.
    UringFixedBuffers,
}

impl Facility {
    /// Every facility, in the order of reports.
    pub const ALL: [Self; 25] = [
        Self::Epoll,
        Self::IoUring,
        Self::Timestamps,
        Self::TimestampIdTcp,
        Self::TcpInfo,
        Self::OutQueue,
        Self::ZeroCopy,
        Self::Sendfile,
        Self::SealedMemory,
        Self::KernelTls,
        Self::TlsTransmit,
        Self::TlsReceive,
        Self::TlsRekey,
        Self::TlsAes256,
        Self::TlsChaCha20,
        Self::TlsEndOfRecord,
        Self::TlsZeroCopyFiles,
        Self::UringTaskrun,
        Self::UringAccept,
        Self::UringReceive,
        Self::UringSend,
        Self::UringVectored,
        Self::UringZeroCopy,
        Self::UringTimestamps,
        Self::UringFixedBuffers,
    ];

    /// The name used in reports, options and `LASTBYTE_DISABLE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
            Self::Sendfile => "sendfile",
            Self::ZeroCopy => "zerocopy",
            Self::Timestamps => "timestamps",
            Self::TimestampIdTcp => "timestamp-id-tcp",
            Self::TcpInfo => "tcp-info",
            Self::OutQueue => "out-queue",
            Self::SealedMemory => "sealed-memory",
            Self::KernelTls => "kernel-tls",
            Self::TlsTransmit => "tls-transmit",
            Self::TlsReceive => "tls-receive",
            Self::TlsRekey => "tls-rekey",
            Self::TlsAes256 => "tls-aes-256",
            Self::TlsChaCha20 => "tls-chacha20",
            Self::TlsEndOfRecord => "tls-end-of-record",
            Self::TlsZeroCopyFiles => "tls-zerocopy-ro",
            Self::UringTaskrun => "uring-taskrun",
            Self::UringAccept => "uring-accept",
            Self::UringReceive => "uring-receive",
            Self::UringSend => "uring-send",
            Self::UringVectored => "uring-vectored",
            Self::UringZeroCopy => "uring-zerocopy",
            Self::UringTimestamps => "uring-timestamps",
            Self::UringFixedBuffers => "uring-fixed-buffers",
        }
    }

    /// What it is nothing without: where one of these is switched off, so is it,
    /// for to try it would be to use that.
    #[must_use]
    pub const fn rests_on(self) -> &'static [Self] {
        match self {
            Self::TimestampIdTcp => &[Self::Timestamps],
            Self::TlsTransmit
            | Self::TlsReceive
            | Self::TlsRekey
            | Self::TlsAes256
            | Self::TlsChaCha20 => &[Self::KernelTls],
            Self::TlsEndOfRecord | Self::TlsZeroCopyFiles => &[Self::KernelTls, Self::TlsTransmit],
            Self::UringTaskrun | Self::UringAccept | Self::UringReceive | Self::UringSend => {
                &[Self::IoUring]
            }
            Self::UringVectored => &[Self::IoUring, Self::UringSend],
            Self::UringZeroCopy => &[Self::IoUring, Self::ZeroCopy],
            Self::UringTimestamps => &[Self::IoUring, Self::Timestamps],
            Self::UringFixedBuffers => &[Self::IoUring, Self::ZeroCopy, Self::UringZeroCopy],
            _ => &[],
        }
    }

    /// What changes for the user where the facility is lacking.
    #[must_use]
    pub const fn effect_of_lack(self) -> &'static str {
        match self {
            Self::Epoll => "the fallback backend is used, which polls",
            Self::IoUring => "the epoll backend is used",
            Self::Sendfile => "files are read and copied into the socket",
            Self::ZeroCopy => "payloads are copied into the socket",
            Self::Timestamps => "acked times are bracketed by looks at TCP_INFO instead of exact",
            Self::TimestampIdTcp => "the stamps' base is taken from the out-queue when attaching",
            Self::TcpInfo => {
                "looks go to the out-queue instead, which knows less; MSG_ZEROCOPY is used on \
                 accepted sockets only"
            }
            Self::OutQueue => "looks go to TCP_INFO alone; without either, acked is unavailable",
            Self::SealedMemory => "generated bodies are copied from ordinary memory",
            Self::KernelTls => "TLS records are sealed and opened in user space",
            Self::TlsTransmit => "TLS records are sealed in user space",
            Self::TlsReceive => "TLS records are opened in user space",
            Self::TlsRekey => "TLS 1.3 stays in user space, because its keys have to change",
            Self::TlsAes256 => "TLS with AES-256-GCM stays in user space",
            Self::TlsChaCha20 => "TLS with ChaCha20-Poly1305 stays in user space",
            Self::TlsEndOfRecord => {
                "some acked times under kernel TLS are bracketed instead of exact"
            }
            Self::TlsZeroCopyFiles => {
                "files are copied to be encrypted, whatever is promised of them"
            }
            Self::UringTaskrun => "io_uring interrupts its thread for each completion",
            Self::UringAccept => "io_uring waits for connections, and each is accepted by a call",
            Self::UringReceive => "io_uring waits for input, and each piece is read by a call",
            Self::UringSend => "the io_uring backend sends by system calls",
            Self::UringVectored => {
                "each send by io_uring takes a message header, and asks for its stamp"
            }
            Self::UringZeroCopy => "the io_uring backend sends by MSG_ZEROCOPY calls",
            Self::UringTimestamps => "the io_uring backend reads stamps from the error queue",
            Self::UringFixedBuffers => "pooled payloads are pinned each time they are sent",
        }
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Facility {
    type Err = UnknownFacility;

    fn from_str(name: &str) -> Result<Self, UnknownFacility> {
        Self::ALL
            .into_iter()
            .find(|facility| facility.name() == name)
            .ok_or_else(|| UnknownFacility { name: name.to_owned() })
    }
}

/// A name that no facility has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownFacility {
    name: String,
}

impl fmt::Display for UnknownFacility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no facility '{}'; known are", self.name)?;
        for (n, facility) in Facility::ALL.into_iter().enumerate() {
            write!(f, "{}{facility}", if n == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownFacility {}

/// Whether a facility can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Support {
    /// It was tried and works.
    Have,
    /// It was tried and does not work.
    Lack {
        /// The kernel's answer, a value of `errno(3)`; `None` where nothing
        /// failed but the result was not what it has to be.
        errno: Option<i32>,
        /// What was tried.
        what: &'static str,
    },
    /// The operator switched it off, or what it [rests on](Facility::rests_on);
    /// it was not tried.
    Disabled,
}

/// A facility and whether it can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Capability {
    /// The facility.
    pub facility: Facility,
    /// Whether it can be used.
    pub support: Support,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.support {
            Support::Have => write!(f, "{:<19} have", self.facility),
            Support::Lack { errno, what } => {
                write!(f, "{:<19} lacks: {what}", self.facility)?;
                if let Some(errno) = errno {
                    write!(f, ": {}", std::io::Error::from_raw_os_error(*errno))?;
                }
                write!(f, "; {}", self.facility.effect_of_lack())
            }
            Support::Disabled => {
                write!(f, "{:<19} disabled; {}", self.facility, self.facility.effect_of_lack())
            }
        }
    }
}

/// Every facility with its support, and the kernel they were tried on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    kernel: String,
    capabilities: Vec<Capability>,
}

impl Report {
    /// A report on `kernel`. A facility that `support` leaves out counts as
    /// one that this build cannot use.
    #[must_use]
    pub fn new(kernel: String, mut support: impl FnMut(Facility) -> Support) -> Self {
        let capabilities = Facility::ALL
            .into_iter()
            .map(|facility| Capability { facility, support: support(facility) })
            .collect();
        Self { kernel, capabilities }
    }

    /// The kernel's name and release.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Every facility, in the order of [`Facility::ALL`].
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// Whether `facility` can be used.
    #[must_use]
    pub fn has(&self, facility: Facility) -> bool {
        *self.support(facility) == Support::Have
    }

    /// How `facility` fared.
    #[must_use]
    pub fn support(&self, facility: Facility) -> &Support {
        self.capabilities
            .iter()
            .find(|capability| capability.facility == facility)
            .map_or(&Support::Disabled, |capability| &capability.support)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kernel)?;
        for capability in &self.capabilities {
            writeln!(f, "  {capability}")?;
        }
        match crate::why_not_ring(self) {
            None => writeln!(f, "auto prefers io_uring, which takes fewer calls than epoll here"),
            Some(facility) => {
                writeln!(f, "auto does not choose io_uring: it would not pay without {facility}")
            }
        }
    }
}
