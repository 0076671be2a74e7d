//! Without TLS: the wire's bytes are the stream's.

use super::{Records, Speech};
use std::io::{self, Read, Write};
use std::net::TcpStream;

#[derive(Debug, Default)]
pub(super) struct Plain {
    records: Records,
}

impl Speech for Plain {
    fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let got = socket.read(buffer)?;
        self.records.plain(got);
        Ok(got)
    }

    fn write(&mut self, mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        socket.write(bytes)
    }

    fn say_end(&mut self, _: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn change_keys(&mut self, _: &TcpStream) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn is_resumed(&self) -> bool {
        false
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn second(&self) -> Box<dyn Speech> {
        Box::new(Self::default())
    }
}
