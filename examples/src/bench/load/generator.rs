//! A load on this machine, made by the thread that calls it.

use super::Loader;
use super::connection::Connection;
use crate::bench::credentials;
use crate::bench::http;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections that may wait to be accepted: the kernel's own bound.
const BACKLOG: i32 = 4096;
/// A load that gets nothing for so long has found a fault.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// Answers.
    pub requests: u64,
    /// From the first question to the last answer.
    pub seconds: f64,
}

/// A load, and where servers connect to it.
#[derive(Debug)]
pub struct Generator {
    listener: TcpListener,
    address: SocketAddr,
    expected: Option<(usize, Option<credentials::Client>)>,
    groups: Vec<Group>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Group {
    poll: Poll,
    connections: Vec<Connection>,
}

impl Generator {
    /// One that listens on `address`.
    ///
    /// # Errors
    /// A line for people.
    pub fn bind(address: SocketAddr) -> Result<Self, String> {
        let listen = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        let listener = listen().map_err(|error| format!("cannot listen on {address}: {error}"))?;
        Self::on(listener)
    }

    /// One that accepts what comes to `listener`.
    ///
    /// # Errors
    /// A line for people.
    pub fn on(listener: TcpListener) -> Result<Self, String> {
        let address = listener.local_addr().map_err(|error| format!("a listener: {error}"))?;
        // Accepting waits no longer than this either (socket(7)).
        SockRef::from(&listener)
            .set_read_timeout(Some(PATIENCE))
            .map_err(|error| format!("a listener: {error}"))?;
        let buffer = vec![0; 256 << 10];
        Ok(Self { listener, address, expected: None, groups: Vec::new(), buffer })
    }

    fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Loader for Generator {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn expect(&mut self, connections: usize, certificate: Option<&str>) -> Result<(), String> {
        let client = certificate.map(credentials::Client::trusting).transpose()?;
        self.expected = Some((connections, client));
        Ok(())
    }

    fn group(&mut self) -> Result<usize, String> {
        let (connections, client) = self.expected.take().ok_or("no connections are expected")?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => "the server does not connect".to_owned(),
            _ => format!("a connection of the load: {error}"),
        };
        let poll = Poll::new().map_err(failed)?;
        let mut group = Group { poll, connections: Vec::with_capacity(connections) };
        for n in 0..connections {
            let stream = self.accept().map_err(failed)?;
            let tls = client.as_ref().map(credentials::Client::connection).transpose()?;
            let mut connection = Connection::new(stream, tls.map(Box::new)).map_err(failed)?;
            let registry = group.poll.registry();
            registry
                .register(&mut connection.socket, Token(n), Interest::READABLE)
                .map_err(failed)?;
            group.connections.push(connection);
        }
        self.groups.push(group);
        Ok(self.groups.len() - 1)
    }

    fn run(&mut self, group: usize, size: u64, time: Duration) -> Result<Load, String> {
        let group = self.groups.get_mut(group).ok_or("no such connections")?;
        group.run(size, time, &mut self.buffer).map_err(|error| format!("under load: {error}"))
    }
}

impl Group {
    fn run(&mut self, size: u64, time: Duration, buffer: &mut [u8]) -> io::Result<Load> {
        let request = http::request(size);
        let mut events = Events::with_capacity(256);
        let (mut requests, mut open) = (0, self.connections.len());
        let began = Instant::now();
        for connection in &mut self.connections {
            connection.ask(size, request.as_bytes())?;
        }
        let mut now = began;
        while open > 0 {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            if events.is_empty() {
                return Err(io::Error::other(format!("nothing came for {PATIENCE:?}")));
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if !connection.read(buffer)? {
                    continue;
                }
                requests += 1;
                now = Instant::now();
                if now - began < time {
                    connection.ask(size, request.as_bytes())?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(Load { requests, seconds: (now - began).as_secs_f64() })
    }
}
