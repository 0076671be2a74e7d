//! A peer that does nothing but what a case tells it, in the case's own
//! thread: between two steps nothing moves, so its account is exact.

use super::{End, Seen};
use crate::Failure;
use crate::sys::tcp;
use std::io::{self, Read};
use std::net::TcpStream;

/// A socket that is read on command only.
#[derive(Debug)]
pub(crate) struct Puppet {
    socket: TcpStream,
    pub(crate) seen: Seen,
}

impl Puppet {
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, seen: Seen::new() })
    }

    /// Reads up to `bytes`, as far as there are any; says how many there were.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<usize, Failure> {
        let mut buffer = vec![0; bytes];
        let mut got = 0;
        while got < bytes && self.seen.end == End::Left {
            match self.socket.read(&mut buffer[got..]) {
                Ok(0) => {
                    self.seen.end = End::Finished;
                    break;
                }
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.seen.end = End::Reset;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.seen.stream.take(&buffer[..got]);
        Ok(got)
    }

    /// Every byte that its kernel has ever had, and so the most that it can
    /// have acknowledged.
    pub(crate) fn held(&self) -> Result<u64, Failure> {
        Ok(self.seen.stream.received() + tcp::unread(&self.socket)?)
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }
}
