//! TLS by rustls, which shares nothing with the record layer under test.
//!
//! The library is given one record at a time, so that what it makes of each is
//! known: whatever is on the wire has to be a record, and every record has to
//! open.

use super::{Records, Speech};
use rustls::{Connection, HandshakeKind};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Type, version, length (RFC 8446, 5.1).
const HEADER: usize = 5;

#[derive(Debug)]
pub(super) struct Tls {
    shared: Arc<Shared>,
    /// The record that is being read.
    record: Vec<u8>,
    records: Records,
}

/// What the reading and the writing thread have in common.
struct Shared {
    connection: Mutex<Connection>,
    /// Held from sealing until the last byte is written, so that records leave
    /// in the order in which they were sealed.
    writing: Mutex<()>,
}

impl Tls {
    pub(super) fn new(connection: Connection) -> Self {
        let shared = Shared { connection: Mutex::new(connection), writing: Mutex::default() };
        Self { shared: Arc::new(shared), record: Vec::new(), records: Records::default() }
    }

    /// Reads the rest of one record, as far as that goes; says whether there
    /// is one.
    fn read_record(&mut self, mut socket: &TcpStream) -> io::Result<bool> {
        loop {
            let len = match self.record.get(3..HEADER) {
                None => HEADER,
                Some(len) => HEADER + usize::from(u16::from_be_bytes([len[0], len[1]])),
            };
            let had = self.record.len();
            if had == len && len > HEADER {
                return Ok(true);
            }
            self.record.resize(len.max(HEADER), 0);
            let read = socket.read(&mut self.record[had..]);
            let got = *read.as_ref().unwrap_or(&0);
            self.record.truncate(had + got);
            self.records.wire(got);
            match read {
                Ok(0) if had == len => return Err(invalid("a record without content")),
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the library one more record; says whether there was one.
    fn take_record(&mut self, socket: &TcpStream) -> io::Result<bool> {
        if !self.read_record(socket)? {
            return Ok(false);
        }
        let mut connection = lock(&self.shared.connection);
        let mut record = &self.record[..];
        while !record.is_empty() {
            connection.read_tls(&mut record)?;
        }
        self.record.clear();
        let state = connection.process_new_packets();
        drop(connection);
        // An alert that says what was wrong, if nothing else.
        self.shared.answer(socket)?;
        let state = state.map_err(|error| match error {
            rustls::Error::AlertReceived(alert) => {
                io::Error::new(ErrorKind::ConnectionAborted, format!("the alert {alert:?}"))
            }
            error => invalid(&error.to_string()),
        })?;
        // None was left: the next record is taken when there is nothing to read.
        self.records.ended(state.plaintext_bytes_to_read());
        Ok(true)
    }
}

impl Speech for Tls {
    fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match lock(&self.shared.connection).reader().read(buffer) {
                // It was announced; nothing may follow but FIN.
                Ok(0) if !buffer.is_empty() => {
                    return match socket.read(&mut [0])? {
                        0 => Ok(0),
                        _ => Err(invalid("something follows close_notify")),
                    };
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if !self.take_record(socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let _in_order = self.shared.writing.lock();
        let taken = lock(&self.shared.connection).writer().write(bytes)?;
        self.shared.write_sealed(socket)?;
        Ok(taken)
    }

    fn say_end(&mut self, socket: &TcpStream) -> io::Result<()> {
        let _in_order = self.shared.writing.lock();
        lock(&self.shared.connection).send_close_notify();
        self.shared.write_sealed(socket)
    }

    fn begin(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.shared.answer(socket)?;
        while lock(&self.shared.connection).is_handshaking() {
            if !self.take_record(socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn change_keys(&mut self, socket: &TcpStream) -> io::Result<()> {
        let _in_order = self.shared.writing.lock();
        lock(&self.shared.connection).refresh_traffic_keys().map_err(io::Error::other)?;
        self.shared.write_sealed(socket)
    }

    fn is_resumed(&self) -> bool {
        lock(&self.shared.connection).handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn second(&self) -> Box<dyn Speech> {
        let shared = Arc::clone(&self.shared);
        Box::new(Self { shared, record: Vec::new(), records: Records::default() })
    }
}

impl Shared {
    /// Sends what the library has to say, if nobody else is writing: who does
    /// will send it too.
    fn answer(&self, socket: &TcpStream) -> io::Result<()> {
        let Ok(_in_order) = self.writing.try_lock() else { return Ok(()) };
        self.write_sealed(socket)
    }

    /// Writes what is sealed. The library is not locked meanwhile, so that what
    /// the peer sends is read even while it takes nothing.
    fn write_sealed(&self, mut socket: &TcpStream) -> io::Result<()> {
        let mut sealed = Vec::new();
        {
            let mut connection = lock(&self.connection);
            while connection.wants_write() {
                connection.write_tls(&mut sealed)?;
            }
        }
        socket.write_all(&sealed)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("what is on the wire is no TLS: {what}"))
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
