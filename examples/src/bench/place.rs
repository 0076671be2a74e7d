//! Where a load and its servers are, and what is between them.

use super::load::{Generator, Loader, Remote};
use super::server::{Config, Server};
use lastbyte_conformance::{Apart, LinkOptions};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What is between a server and its load.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The kernel's loopback device.
    Loopback,
    /// A pair of devices between two network namespaces, which takes root.
    Veth,
    /// A network, to another machine.
    #[value(skip)]
    Peer,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Peer => "another machine",
        })
    }
}

/// A path that is there.
#[derive(Debug)]
pub enum Place {
    /// See [`Path::Loopback`].
    Loopback,
    /// See [`Path::Veth`].
    Veth(Apart),
    /// See [`Path::Peer`], and where the load waits.
    Peer(SocketAddr),
}

impl Place {
    /// Lays the path; to `peer`, if there is one.
    ///
    /// # Errors
    /// A line for people.
    pub fn lay(path: Path, peer: Option<SocketAddr>) -> Result<Self, String> {
        let none = LinkOptions { delay: Duration::ZERO, loss: 0, rate: None };
        match (path, peer) {
            (_, Some(peer)) => Ok(Self::Peer(peer)),
            (Path::Veth, None) => Apart::new(none)
                .map(Self::Veth)
                .map_err(|lack| format!("no link between two network namespaces: {lack}")),
            _ => Ok(Self::Loopback),
        }
    }

    /// What kind it is.
    #[must_use]
    pub fn path(&self) -> Path {
        match self {
            Self::Loopback => Path::Loopback,
            Self::Veth(_) => Path::Veth,
            Self::Peer(_) => Path::Peer,
        }
    }

    /// Starts a server at its end.
    ///
    /// # Errors
    /// A line for people.
    pub fn server(&self, config: &Config) -> Result<Server, String> {
        match self {
            Self::Veth(apart) => apart
                .server()
                .run(|| Server::start(config))
                .map_err(|error| format!("a network namespace: {error}"))?,
            _ => Server::start(config),
        }
    }

    /// The load at the other end.
    ///
    /// # Errors
    /// A line for people.
    pub fn loader(&self) -> Result<Box<dyn Loader>, String> {
        Ok(match self {
            Self::Loopback => Box::new(Generator::bind((Ipv4Addr::LOCALHOST, 0).into())?),
            Self::Veth(apart) => {
                let bind = || Generator::bind((Apart::CLIENT, 0).into());
                let bound = apart.client().run(bind);
                Box::new(bound.map_err(|error| format!("a network namespace: {error}"))??)
            }
            Self::Peer(address) => Box::new(Remote::connect(*address)?),
        })
    }
}
