//! Two network namespaces, a server's and a client's, for any number of
//! connections between them.

use super::router::Router;
use super::{LinkOptions, veth};
use crate::Lack;
use crate::sys::namespace::Namespace;
use crate::sys::netlink::{Devices, Netem};
use crate::sys::tun;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Two network namespaces with a wire between them. They are gone, with the
/// wire, when this is and nothing lives in them any more.
///
/// It takes root, or a user namespace in which this process is root
/// (`unshare --user --map-root-user`).
#[derive(Debug)]
pub struct Apart {
    server: Namespace,
    client: Namespace,
    wire: Wire,
    _router: Option<Router>,
}

/// What carries packets from one namespace to the other.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Wire {
    /// The kernel's pair of devices, as fast as it goes.
    Veth,
    /// The same, made slow and lossy by the kernel's `netem`.
    Netem,
    /// Two TUN devices and a thread of this process that carries packets from
    /// one to the other, because of a lack.
    Tun(Lack),
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Veth => f.write_str("veth"),
            Self::Netem => f.write_str("veth with netem"),
            Self::Tun(lack) => write!(f, "two TUN devices, carried in user space ({lack})"),
        }
    }
}

impl Apart {
    /// Where the server's namespace is reached from the client's.
    pub const SERVER: Ipv4Addr = veth::SERVER;
    /// Where the client's namespace is reached from the server's.
    pub const CLIENT: Ipv4Addr = veth::CLIENT;

    /// Two namespaces, apart as `options` say.
    ///
    /// # Errors
    /// If the kernel has neither `netem` nor TUN devices, or does not let this
    /// process have namespaces.
    pub fn new(options: LinkOptions) -> Result<Self, Lack> {
        let plain = options.delay == Duration::ZERO && options.loss == 0 && options.rate.is_none();
        let netem = (!plain).then_some(Netem {
            delay: options.delay,
            loss: options.loss,
            rate: options.rate,
        });
        let lack = match elsewhere(move || veth::join(netem))? {
            Ok((server, client)) => {
                let wire = if plain { Wire::Veth } else { Wire::Netem };
                return Ok(Self { server, client, wire, _router: None });
            }
            Err(lack) => lack,
        };
        let (server, client) = (side(Self::SERVER)?, side(Self::CLIENT)?);
        let router = Router::start([server.1, client.1], options)
            .map_err(|error| Lack::refused("a thread that carries packets", &error))?;
        let (server, client) = (server.0, client.0);
        Ok(Self { server, client, wire: Wire::Tun(lack), _router: Some(router) })
    }

    /// The server's namespace.
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// What is between them.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }
}

/// Packets that may wait until the router's thread gets to run: some hundred
/// connections' bursts.
const QUEUE: u32 = 20_000;

/// A namespace with a TUN device.
fn side(address: Ipv4Addr) -> Result<(Namespace, File), Lack> {
    elsewhere(move || {
        let namespace =
            Namespace::enter_new().map_err(|error| ("unshare(CLONE_NEWNET), as root", error))?;
        let device = tun::open("link0").map_err(|error| ("a TUN device", error))?;
        let devices = Devices::open().map_err(|error| ("a netlink socket", error))?;
        let set_up = || -> io::Result<()> {
            devices.up("lo")?;
            devices.queue("link0", QUEUE)?;
            devices.address("link0", address, 24)?;
            devices.up("link0")
        };
        set_up().map_err(|error| ("an address for the TUN device", error))?;
        Ok((namespace, device))
    })?
}

/// Does `work` on a thread of its own: whoever asks stays in its namespace.
fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, (&'static str, io::Error)> + Send + 'static,
) -> Result<Result<T, Lack>, Lack> {
    let thread = std::thread::Builder::new().name("namespaces".into());
    let thread = thread.spawn(work).map_err(|error| Lack::refused("a thread", &error))?;
    match thread.join() {
        Ok(done) => Ok(done.map_err(|(what, error)| Lack::refused(what, &error))),
        Err(_) => Err(Lack::of("namespaces: the thread that makes them panicked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    #[test]
    fn connections_between_namespaces_are_as_far_apart_as_asked() {
        let options = LinkOptions { delay: Duration::from_millis(10), loss: 20, rate: None };
        let Ok(apart) = Apart::new(options) else { return };
        let listener = apart.server().run(|| TcpListener::bind((Apart::SERVER, 0))).unwrap();
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let began = Instant::now();
        let connect = || TcpStream::connect((Apart::SERVER, port));
        let mut clients: Vec<_> =
            (0..3).map(|_| apart.client().run(connect).unwrap().unwrap()).collect();
        assert!(began.elapsed() >= 3 * 2 * options.delay, "a handshake takes a round trip");
        let sent = vec![7; 200_000];
        std::thread::scope(|scope| {
            for _ in 0..clients.len() {
                let (mut server, _) = listener.accept().unwrap();
                let sent = &sent;
                scope.spawn(move || server.write_all(sent).unwrap());
            }
            for client in &mut clients {
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                assert!(got == sent, "the link changed what it carried");
            }
        });
    }
}
