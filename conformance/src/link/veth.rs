//! Two network namespaces, a server's and a client's, with a wire between them
//! that `netem` makes slow and lossy: the kernel's own devices, queues and
//! timers, both ways.
//!
//! It needs root, and the modules `veth` and `sch_netem`.

use super::Ends;
use crate::sys::namespace::Namespace;
use crate::sys::netlink::{Devices, Netem};
use crate::{Failure, Lack};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
/// Only a wire that does not carry takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection between two namespaces, or what was lacking. The namespaces live
/// as long as its ends.
pub(crate) fn apart(netem: Netem) -> Result<Result<Ends, Lack>, Failure> {
    in_another_thread(move || build(netem))
}

/// Lets `build` enter namespaces in a thread of its own: whoever asks stays where
/// it is.
pub(super) fn in_another_thread(
    build: impl FnOnce() -> Result<Ends, (&'static str, io::Error)> + Send + 'static,
) -> Result<Result<Ends, Lack>, Failure> {
    let thread = std::thread::Builder::new().name("namespaces".into());
    match thread.spawn(build)?.join() {
        Ok(Ok(ends)) => Ok(Ok(ends)),
        Ok(Err((what, error))) => Ok(Err(Lack::refused(what, &error))),
        Err(_) => Err(Failure::new("the thread that makes namespaces panicked")),
    }
}

fn build(netem: Netem) -> Result<Ends, (&'static str, io::Error)> {
    let (server, client) = join(Some(netem))?;
    server.enter().map_err(in_step("setns"))?;
    let listener = TcpListener::bind((SERVER, 0)).map_err(in_step("listen in a namespace"))?;
    let address = listener.local_addr().map_err(in_step("listen in a namespace"))?;
    client.enter().map_err(in_step("setns"))?;
    let connected = connect(address).map_err(in_step("connect between namespaces"))?;
    server.enter().map_err(in_step("setns"))?;
    let (accepted, _) = listener.accept().map_err(in_step("accept in a namespace"))?;
    Ok(Ends { server: accepted, client: connected })
}

/// A server's and a client's namespace with a wire between them, which `netem`
/// may slow down. Leaves the calling thread in one of them.
pub(super) fn join(
    netem: Option<Netem>,
) -> Result<(Namespace, Namespace), (&'static str, io::Error)> {
    let client = Namespace::enter_new().map_err(in_step("unshare(CLONE_NEWNET), as root"))?;
    let server = Namespace::enter_new().map_err(in_step("unshare(CLONE_NEWNET), as root"))?;
    let devices = Devices::open().map_err(in_step("a netlink socket"))?;
    devices
        .add_veth("server0", "client0", client.as_file().as_fd())
        .map_err(in_step("a veth pair (module veth)"))?;
    configure(&devices, "server0", SERVER, netem)?;
    client.enter().map_err(in_step("setns"))?;
    let devices = Devices::open().map_err(in_step("a netlink socket"))?;
    configure(&devices, "client0", CLIENT, netem)?;
    Ok((server, client))
}

fn configure(
    devices: &Devices,
    name: &str,
    address: Ipv4Addr,
    netem: Option<Netem>,
) -> Result<(), (&'static str, io::Error)> {
    devices.up("lo").map_err(in_step("loopback up"))?;
    devices.address(name, address, 24).map_err(in_step("an address for veth"))?;
    devices.up(name).map_err(in_step("veth up"))?;
    match netem {
        Some(netem) => devices.netem(name, netem).map_err(in_step("netem (module sch_netem)")),
        None => Ok(()),
    }
}

/// A lossy wire may lose a handshake as well.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
}

pub(super) fn in_step(what: &'static str) -> impl Fn(io::Error) -> (&'static str, io::Error) {
    move |error| (what, error)
}
