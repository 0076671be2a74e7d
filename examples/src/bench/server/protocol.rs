//! What bench and server tell each other, a line of JSON each.

use crate::bench::credentials::Credentials;
use clap::ValueEnum;
use lastbyte::Watch;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// What a server is to be like: the first line that it reads.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// The backend's name.
    pub backend: String,
    /// What turns payloads into wire bytes.
    pub transport: Transport,
    /// For TLS.
    pub credentials: Option<Credentials>,
    /// What responses are made of.
    pub body: Body,
    /// What the server wants to hear of them.
    pub stages: Stages,
    /// Shortest payload for zero copy; the library's own if none.
    pub threshold: Option<u64>,
    /// Longest response.
    pub largest: u64,
    /// Where to accept connections, if it is to.
    pub listen: Option<SocketAddr>,
    /// Whether to tell of each transfer.
    pub tells: bool,
    /// The core to stay on.
    pub core: Option<usize>,
}

/// What turns payload bytes into wire bytes, as it is asked for.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Nothing.
    Plain,
    /// TLS in this process.
    UserTls,
    /// TLS in the kernel.
    KernelTls,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Plain, Self::UserTls, Self::KernelTls];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::UserTls => "user-tls",
            Self::KernelTls => "kernel-tls",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a response is made of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Bytes in memory.
    Memory,
    /// A range of a file in the page cache.
    File,
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::File => "file",
        })
    }
}

/// What a server wants to hear of its transfers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stages {
    /// Only that memory is released, which is always told.
    Off,
    /// That the kernel has every byte.
    Queued,
    /// That the client's kernel has.
    Acked,
    /// Both.
    QueuedAndAcked,
}

impl Stages {
    pub(super) fn watch(self) -> Watch {
        match self {
            Self::Off => Watch::NONE,
            Self::Queued => Watch::QUEUED,
            Self::Acked => Watch::ACKED,
            Self::QueuedAndAcked => Watch::QUEUED | Watch::ACKED,
        }
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Queued => "queued only",
            Self::Acked => "acked",
            Self::QueuedAndAcked => "queued and acked",
        })
    }
}

/// What the bench wants of a server that runs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Command {
    /// Connect there so many times, and serve whoever is at the other end.
    Dial(SocketAddr, usize),
    /// Give an account.
    Account,
}

/// What a server has to say.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// It serves.
    Ready(Ready),
    /// It has connected as often as it was told to.
    Dialled,
    /// So far.
    Account(Account),
    /// One is done.
    Transfer(Transfer),
    /// It cannot go on.
    Failed(String),
}

/// A server that serves.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ready {
    /// Where it accepts connections.
    pub address: Option<SocketAddr>,
    /// The backend's name, where `auto` was asked for.
    pub backend: String,
}

/// What a server has done since it began.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Account {
    /// CPU time of the whole process.
    pub cpu_ns: u64,
    /// Payload bytes that were copied from memory to memory on their way to the
    /// network, once for each copy.
    pub copied: u64,
    /// Payload bytes that zero copy was asked for and that the kernel copied.
    pub refused: u64,
    /// Payload bytes that went without a copy by the kernel.
    pub lent: u64,
    /// Payload bytes that were asked for.
    pub asked: u64,
}

impl Account {
    /// What happened since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            copied: self.copied.saturating_sub(before.copied),
            refused: self.refused.saturating_sub(before.refused),
            lent: self.lent.saturating_sub(before.lent),
            asked: self.asked.saturating_sub(before.asked),
        }
    }
}

/// One transfer, on the server's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Transfer {
    /// The client's port.
    pub port: u16,
    /// When the request was seen.
    pub received: u64,
    /// When the kernel had taken every byte of the response: what a server
    /// without notifications would log.
    pub queued: u64,
    /// When the client's kernel had acknowledged the last one; `None` if that
    /// cannot be known here.
    pub acked: Option<Acked>,
}

/// An acknowledgement, and how its time is known.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Acked {
    /// Not later than this.
    pub at: u64,
    /// Not earlier than this: the same, if the kernel stamped it.
    pub after: u64,
    /// How far `at` can be off on top of that.
    pub error: u64,
}
