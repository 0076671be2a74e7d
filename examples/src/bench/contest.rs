//! What the command lines of benches that load servers have in common.

use super::about::About;
use super::credentials::Credentials;
use super::measure::{Contestant, Figures, Plan, compare};
use super::options;
use super::place::{Path, Place};
use super::server::{Body, Config, Stages, Transport};
use super::transports;
use lastbyte::Report;
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

/// What servers are compared on.
#[derive(Debug)]
pub struct Ground {
    /// What this kernel has.
    pub report: Report,
    /// The backends to compare.
    pub backends: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// What servers show under TLS.
    pub credentials: Credentials,
    transports: Vec<Transport>,
    place: Place,
}

impl Ground {
    /// Lays the path, and finds out what of `transports` can be compared.
    ///
    /// # Errors
    /// A line for people.
    pub fn lay(load: &Loading, transports: &[Transport]) -> Result<Self, String> {
        let report = options::report()?;
        let backends = options::backends(&load.backend, &report)?;
        let (transports, notes) = transports::choose(transports, &report)?;
        let credentials = Credentials::new()?;
        let place = Place::lay(load.path, load.peer)?;
        Ok(Self { report, backends, notes, credentials, transports, place })
    }

    /// The transports of a backend; what it has not is noted.
    pub fn transports_of(&mut self, backend: &str) -> Vec<Transport> {
        transports::of(backend, &self.transports, &mut self.notes)
    }

    /// What is between servers and load.
    #[must_use]
    pub fn path(&self) -> Path {
        self.place.path()
    }

    /// Compares `contestants`: for each of them, what came of each size.
    ///
    /// # Errors
    /// A line for people.
    pub fn compare(
        &self,
        contestants: &[Contestant],
        load: &Loading,
        sizes: &[u64],
    ) -> Result<(About, Vec<Vec<Figures>>), String> {
        let about = About::now(&self.report, self.path().to_string());
        let connections = usize::from(load.connections);
        let plan = Plan { sizes, connections, rounds: load.rounds, time: load.seconds };
        Ok((about, compare(&self.place, contestants, plan)?))
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
