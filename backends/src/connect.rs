//! Connections to be made.

use lastbyte::Socket;
use std::io;
use std::net::SocketAddr;

/// Begins to connect to `address`, and does not wait for it: attach the socket, and
/// use it. Whether it has connected is told by
/// [`Event::Connected`](lastbyte::Event::Connected), or why not by
/// [`Event::Closed`](lastbyte::Event::Closed).
///
/// For a socket with options of its own, begin `connect(2)` on it without blocking and
/// use [`Socket::connecting`].
///
/// # Errors
/// If there are no more descriptors or ports, or the address cannot be reached from
/// here at all.
///
/// ```no_run
/// # fn example(driver: &mut dyn lastbyte::Driver) -> Result<(), Box<dyn std::error::Error>> {
/// use lastbyte::{AttachOptions, Payload, Watch};
/// let socket = lastbyte_backends::connect("192.0.2.1:80".parse()?)?;
/// let upstream = driver.attach(socket, &AttachOptions::default())?.connection;
/// // It is sent when there is a connection.
/// driver.submit(upstream, Payload::from(&b"GET / HTTP/1.0\r\n\r\n"[..]), Watch::ACKED)?;
/// # Ok(()) }
/// ```
pub fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => other?,
    }
    Ok(Socket::connecting(socket.into()))
}
