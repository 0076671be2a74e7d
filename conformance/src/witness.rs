//! A second opinion on what was acknowledged: the kernel's own account, asked
//! past the backend through a duplicate of its socket.

use crate::Lack;
use crate::sys::tcp;
use std::io;
use std::net::TcpStream;

/// Watches one connection. While it exists, the connection outlives the
/// driver's own descriptor, so drop it before anything is closed.
#[derive(Debug)]
pub(crate) struct Witness {
    socket: TcpStream,
    base: u64,
}

impl Witness {
    /// To be made just before the driver gets the socket.
    pub(crate) fn new(socket: &TcpStream) -> Result<Self, Lack> {
        let made = || -> io::Result<Self> {
            let socket = socket.try_clone()?;
            let base = loop {
                let before = tcp::bytes_acked(&socket)?;
                let open = tcp::unacknowledged(&socket)?;
                if tcp::bytes_acked(&socket)? == before {
                    break before + open;
                }
            };
            Ok(Self { socket, base })
        };
        made().map_err(|error| Lack::refused("TCP_INFO with tcpi_bytes_acked", &error))
    }

    /// Bytes acknowledged of those written since the witness was made.
    pub(crate) fn acked(&self) -> io::Result<u64> {
        Ok(tcp::bytes_acked(&self.socket)?.saturating_sub(self.base))
    }
}
