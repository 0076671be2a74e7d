//! One connection of a load.

use crate::bench::http;
use mio::net::TcpStream;
use rustls::ClientConnection;
use std::io::{self, Read, Write};

/// A connection that has shaken hands.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What is still to come of a response.
    left: u64,
}

impl Connection {
    /// `stream`, with TLS if `tls` is there; shakes hands.
    pub(super) fn new(
        mut stream: std::net::TcpStream,
        mut tls: Option<Box<ClientConnection>>,
    ) -> io::Result<Self> {
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut stream)?;
            }
        }
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { socket: TcpStream::from_std(stream), tls, left: 0 })
    }

    /// Asks for `size` bytes.
    pub(super) fn ask(&mut self, size: u64, request: &[u8]) -> io::Result<()> {
        self.left = http::response_len(size);
        // Nothing is under way, so there is room for these few bytes.
        match &mut self.tls {
            None => self.socket.write_all(request),
            Some(tls) => {
                tls.writer().write_all(request)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.socket)?;
                }
                Ok(())
            }
        }
    }

    /// Reads what there is; whether the response is complete now.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            let (done, drained) = match &mut self.tls {
                None => match self.socket.read(buffer) {
                    Ok(n) => (take(&mut self.left, n)?, n < buffer.len()),
                    Err(error) => return would_block(error),
                },
                Some(tls) => {
                    match tls.read_tls(&mut self.socket) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => {}
                        Err(error) => return would_block(error),
                    }
                    tls.process_new_packets().map_err(io::Error::other)?;
                    let mut done = false;
                    loop {
                        match tls.reader().read(buffer) {
                            Ok(n) => done = take(&mut self.left, n)?,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                    (done, false)
                }
            };
            if done || drained {
                return Ok(done);
            }
        }
    }
}

fn would_block(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        io::ErrorKind::Interrupted => Ok(false),
        _ => Err(error),
    }
}

/// `n` more bytes have come; whether that was all.
fn take(left: &mut u64, n: usize) -> io::Result<bool> {
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left = left
        .checked_sub(n as u64)
        .ok_or_else(|| io::Error::other("more came than was asked for"))?;
    Ok(*left == 0)
}
