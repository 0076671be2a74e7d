//! The client: nothing of lastbyte's in it.

use super::row::Habit;
use crate::bench::credentials;
use crate::bench::http;
use rustls::ClientConnection;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a request that only warms up.
const WARM: u64 = 1;

/// One transaction as the client saw it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) port: u16,
    pub(super) size: u64,
    /// From the request to the response's last byte.
    pub(super) took: Duration,
    /// Keeps the connection open, so that no FIN takes the acknowledgement along.
    pub(super) _kept: Option<TcpStream>,
}

/// What every transaction has in common.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) server: SocketAddr,
    pub(super) tls: Option<credentials::Client>,
    pub(super) habit: Habit,
    pub(super) warm: u16,
    pub(super) patience: Duration,
}

impl Client {
    /// Asks for `size` bytes on a connection of its own.
    pub(super) fn transaction(&self, size: u64) -> Result<Seen, String> {
        let failed = |error: io::Error| format!("a client of {}: {error}", self.server);
        let stream = TcpStream::connect_timeout(&self.server, self.patience).map_err(failed)?;
        stream.set_read_timeout(Some(self.patience)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let took = match &self.tls {
            None => self.plain(&stream, size).map_err(failed)?,
            Some(tls) => self.secure(&stream, tls.connection()?, size).map_err(failed)?,
        };
        let port = stream.local_addr().map_err(failed)?.port();
        let kept = (self.habit != Habit::Closes).then_some(stream);
        Ok(Seen { port, size, took, _kept: kept })
    }

    fn plain(&self, mut stream: &TcpStream, size: u64) -> io::Result<Duration> {
        let mut buffer = vec![0; 256 << 10];
        let mut get = |size| {
            let mut left = http::response_len(size);
            let began = Instant::now();
            stream.write_all(http::request(size).as_bytes())?;
            while left > 0 {
                left = less(left, stream.read(&mut buffer)?)?;
                self.acknowledge(stream)?;
            }
            Ok(began.elapsed())
        };
        (0..self.warm).try_for_each(|_| get(WARM).map(drop))?;
        get(size)
    }

    fn secure(
        &self,
        mut stream: &TcpStream,
        mut tls: ClientConnection,
        size: u64,
    ) -> io::Result<Duration> {
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let mut buffer = vec![0; 64 << 10];
        let mut get = |size| {
            let mut left = http::response_len(size);
            let began = Instant::now();
            tls.writer().write_all(http::request(size).as_bytes())?;
            while tls.wants_write() {
                tls.write_tls(&mut stream)?;
            }
            while left > 0 {
                if tls.read_tls(&mut stream)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.acknowledge(stream)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                while left > 0 {
                    match tls.reader().read(&mut buffer) {
                        Ok(n) => left = less(left, n)?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(began.elapsed())
        };
        (0..self.warm).try_for_each(|_| get(WARM).map(drop))?;
        get(size)
    }

    /// The kernel forgets about it with every read (tcp(7)).
    fn acknowledge(&self, stream: &TcpStream) -> io::Result<()> {
        match self.habit {
            Habit::Quickack => SockRef::from(stream).set_tcp_quickack(true),
            _ => Ok(()),
        }
    }
}

fn less(left: u64, read: usize) -> io::Result<u64> {
    match read as u64 {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => left.checked_sub(n).ok_or_else(|| io::Error::other("more than was asked for")),
    }
}
