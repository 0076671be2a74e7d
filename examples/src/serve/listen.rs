//! Listening sockets, one for each thread.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that may wait to be accepted, where descriptors are not scarce.
pub const BACKLOG: u32 = 4096;

/// `count` listeners on one `address`, among which the kernel spreads new
/// connections. At each, up to `backlog` of them may wait to be accepted.
///
/// # Errors
/// If the address cannot be had, or somebody listens there already.
pub fn bind(address: SocketAddr, count: usize, backlog: u32) -> io::Result<Vec<TcpListener>> {
    // Alone first: sockets that share a port would also share it with another
    // server of the same user, without a word.
    let alone = socket(address, false, backlog)?;
    if count <= 1 {
        return Ok(vec![alone]);
    }
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| socket(address, true, backlog)).collect()
}

fn socket(address: SocketAddr, shared: bool, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_with_nobody_else() {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = bind(any, 3, 9).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|other| other.local_addr().unwrap() == address));
        let error = bind(address, 3, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(any, 1, 9).unwrap().len(), 1);
    }
}
