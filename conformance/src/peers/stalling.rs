//! A peer that stops reading until it is told to go on.

use super::{Peer, Seen};
use crate::Failure;
use std::io;
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

/// Reads some, stalls, and reads the rest when told to. A peer that is dropped
/// goes on too, so that no thread stays behind.
#[derive(Debug)]
pub(crate) struct Stalling {
    peer: Peer,
    go_on: Sender<()>,
}

impl Stalling {
    pub(crate) fn after(mut socket: TcpStream, bytes: u64) -> io::Result<Self> {
        let (go_on, told) = channel();
        let peer = Peer::spawn(move || {
            let mut seen = Seen::new();
            let mut buffer = vec![0; 4096];
            while seen.stream.received() < bytes && seen.read(&mut socket, &mut buffer)? {}
            // Also when the other end is dropped.
            let _: Result<(), _> = told.recv();
            let mut buffer = vec![0; 64 << 10];
            while seen.read(&mut socket, &mut buffer)? {}
            Ok(seen)
        })?;
        Ok(Self { peer, go_on })
    }

    /// Goes on reading, and ends with the stream.
    pub(crate) fn resume(self) -> Peer {
        drop(self.go_on);
        self.peer
    }

    pub(crate) fn join(self) -> Result<Seen, Failure> {
        self.resume().join()
    }
}
