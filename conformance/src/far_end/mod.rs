//! The peer's end of a connection, whatever is spoken on it.

mod plain;
mod records;
mod tls;

pub(crate) use records::Records;

use plain::Plain;
use rustls::Connection;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

/// How a peer makes the stream's bytes of the wire's, and back.
pub(crate) trait Speech: fmt::Debug + Send {
    /// Reads some of the stream; none if it ended as it has to. The error is
    /// [`io::ErrorKind::UnexpectedEof`] if the connection ended and the stream
    /// did not, and [`io::ErrorKind::ConnectionAborted`] with an alert.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some of the stream.
    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize>;

    /// Says that the stream ends, so far as there are words for that.
    fn say_end(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Says whatever has to be said before the stream can begin.
    fn begin(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Changes the keys of what it says, in the middle of everything.
    fn change_keys(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Whether it goes on with what was agreed on before.
    fn is_resumed(&self) -> bool;

    /// What was read so far, in the stream's bytes and in the wire's.
    fn records(&self) -> &Records;

    /// The same for another thread: one of the two may read, the other write.
    fn second(&self) -> Box<dyn Speech>;
}

/// A socket, and what is spoken on it.
#[derive(Debug)]
pub(crate) struct FarEnd {
    socket: TcpStream,
    speech: Box<dyn Speech>,
}

impl FarEnd {
    /// A peer that speaks TLS by a library of its own, in either role. What is
    /// said first is said by [`Self::begin`].
    pub(crate) fn tls(socket: TcpStream, connection: impl Into<Connection>) -> Self {
        Self { socket, speech: Box::new(tls::Tls::new(connection.into())) }
    }

    /// Makes the handshake, where there is one.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        self.speech.begin(&self.socket)
    }

    /// Changes the keys of what it says, in the middle of everything.
    pub(crate) fn change_keys(&mut self) -> io::Result<()> {
        self.speech.change_keys(&self.socket)
    }

    /// Whether it goes on with what was agreed on before.
    pub(crate) fn is_resumed(&self) -> bool {
        self.speech.is_resumed()
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn records(&self) -> &Records {
        self.speech.records()
    }

    /// Ends the stream, and then the sending half of the connection.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.speech.say_end(&self.socket)?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// The same for another thread: one of the two may read, the other write.
    pub(crate) fn second(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, speech: self.speech.second() })
    }
}

/// Without TLS.
impl From<TcpStream> for FarEnd {
    fn from(socket: TcpStream) -> Self {
        Self { socket, speech: Box::new(Plain::default()) }
    }
}

impl Read for FarEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.speech.read(&self.socket, buffer)
    }
}

impl Write for FarEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.speech.write(&self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
