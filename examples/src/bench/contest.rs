//! What the command lines of benches that load servers have in common.

use super::credentials::Credentials;
use super::measure::Plan;
use super::options;
use super::place::{Path, Place};
use super::server::{Body, Config, Stages, Transport};
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

/// How servers are loaded.
#[derive(Clone, Debug, clap::Args)]
pub struct Loading {
    /// Backends: their names, auto, or all
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "auto")]
    pub backend: Vec<options::Backends>,

    /// Connections to each server
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub connections: u16,

    /// Rounds: in each, every server is loaded once
    #[arg(long, value_name = "N", default_value = "5")]
    pub rounds: NonZero<u16>,

    /// How long to measure, all in all
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = options::duration)]
    pub seconds: Duration,

    /// What is between servers and load; veth takes root
    #[arg(long, value_enum, value_name = "PATH", default_value = "loopback")]
    pub path: Path,

    /// Load from another machine, where bench peer waits at this address
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "path")]
    pub peer: Option<SocketAddr>,
}

impl Loading {
    /// Lays the path.
    ///
    /// # Errors
    /// A line for people.
    pub fn place(&self) -> Result<Place, String> {
        Place::lay(self.path, self.peer)
    }

    /// How `sizes` are to be compared.
    #[must_use]
    pub fn plan<'p>(&self, sizes: &'p [u64]) -> Plan<'p> {
        Plan {
            sizes,
            connections: usize::from(self.connections),
            rounds: self.rounds,
            time: self.seconds,
        }
    }
}

/// A server that is loaded.
#[must_use]
pub fn config(
    backend: &str,
    transport: Transport,
    credentials: &Credentials,
    body: Body,
    stages: Stages,
    sizes: &[u64],
) -> Config {
    Config {
        backend: backend.to_owned(),
        transport,
        credentials: (transport != Transport::Plain).then(|| credentials.clone()),
        body,
        stages,
        threshold: None,
        largest: sizes.iter().copied().max().unwrap_or(0),
        listen: None,
        tells: false,
        core: None,
    }
}
