//! Pairs of connected sockets.

use crate::Subject;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

/// How a connection is to be set up. Buffer lengths are set before connecting,
/// so that windows are sized for them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    /// `SO_RCVBUF` of the peer.
    pub(crate) peer_window: Option<usize>,
    /// `SO_RCVBUF` of the socket that a driver gets.
    pub(crate) own_window: Option<usize>,
    /// `SO_SNDBUF` of the socket that a driver gets.
    pub(crate) send_buffer: Option<usize>,
    /// Over IPv6.
    pub(crate) v6: bool,
    /// The socket that a driver gets is the one that connected.
    pub(crate) active: bool,
}

/// The two ends of a connection.
#[derive(Debug)]
pub(crate) struct Pair {
    /// For the driver.
    pub(crate) own: TcpStream,
    /// For the peer.
    pub(crate) peer: TcpStream,
}

impl Wire {
    /// A window and a send buffer that hold next to nothing.
    pub(crate) fn narrow() -> Self {
        Self { peer_window: Some(4096), send_buffer: Some(16 << 10), ..Self::default() }
    }

    /// A send buffer that holds little, and a window that holds some.
    pub(crate) fn narrow_sender() -> Self {
        Self { send_buffer: Some(64 << 10), ..Self::default() }
    }

    pub(crate) fn pair(self, subject: &Subject) -> io::Result<Pair> {
        self.listen(subject)?.pair()
    }

    /// For many pairs: each listener costs a port.
    pub(crate) fn listen(self, subject: &Subject) -> io::Result<Listening> {
        let address: SocketAddr =
            if self.v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
        let own_window = self.own_window.or(subject.receive_buffer());
        let (listening, connecting) = if self.active {
            (self.peer_window, own_window)
        } else {
            (own_window, self.peer_window)
        };
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Thousands of earlier connections may linger on every port.
        listener.set_reuse_address(true)?;
        set_window(&listener, listening)?;
        listener.bind(&SockAddr::from(address))?;
        listener.listen(1)?;
        Ok(Listening { wire: self, listener, connecting })
    }
}

/// Makes pairs, one after the other.
#[derive(Debug)]
pub(crate) struct Listening {
    wire: Wire,
    listener: Socket,
    /// `SO_RCVBUF` of the side that connects.
    connecting: Option<usize>,
}

impl Listening {
    pub(crate) fn pair(&self) -> io::Result<Pair> {
        let address = self.listener.local_addr()?;
        let connector = Socket::new(address.domain(), Type::STREAM, None)?;
        set_window(&connector, self.connecting)?;
        connector.connect(&address)?;
        let (acceptor, _) = self.listener.accept()?;
        let (own, peer) =
            if self.wire.active { (connector, acceptor) } else { (acceptor, connector) };
        if let Some(bytes) = self.wire.send_buffer {
            own.set_send_buffer_size(bytes)?;
        }
        peer.set_tcp_nodelay(true)?;
        Ok(Pair { own: own.into(), peer: peer.into() })
    }
}

fn set_window(socket: &Socket, bytes: Option<usize>) -> io::Result<()> {
    bytes.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
}
