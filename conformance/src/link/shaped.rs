//! A namespace whose loopback lets out so many bytes a second: what was sent
//! waits in its queue, where the kernel reads it long after the connection it was
//! sent over is gone.
//!
//! It needs root, and the module `sch_tbf`.

use super::Ends;
use super::veth::{in_another_thread, in_step};
use crate::sys::namespace::Namespace;
use crate::sys::netlink::Devices;
use crate::{Failure, Lack};
use std::io;
use std::net::{TcpListener, TcpStream};

/// A connection within such a namespace, or what was lacking.
pub(crate) fn shaped(bytes_per_second: u32) -> Result<Result<Ends, Lack>, Failure> {
    in_another_thread(move || build(bytes_per_second))
}

fn build(bytes_per_second: u32) -> Result<Ends, (&'static str, io::Error)> {
    let _namespace = Namespace::enter_new().map_err(in_step("unshare(CLONE_NEWNET), as root"))?;
    let devices = Devices::open().map_err(in_step("a netlink socket"))?;
    devices.up("lo").map_err(in_step("loopback up"))?;
    devices.shape("lo", bytes_per_second).map_err(in_step("tbf (module sch_tbf)"))?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(in_step("listen in a namespace"))?;
    let address = listener.local_addr().map_err(in_step("listen in a namespace"))?;
    let client = TcpStream::connect(address).map_err(in_step("connect in a namespace"))?;
    let (server, _) = listener.accept().map_err(in_step("accept in a namespace"))?;
    Ok(Ends { server, client })
}
