//! A peer that stops reading until it is told to go on.

use super::{Peer, Seen};
use crate::Failure;
use crate::far_end::FarEnd;
use std::io;
use std::sync::mpsc::{Sender, channel};

/// Reads some, stalls, and reads the rest when told to. A peer that is dropped
/// goes on too, so that no thread stays behind.
#[derive(Debug)]
pub(crate) struct Stalling {
    peer: Peer,
    go_on: Sender<()>,
}

impl Stalling {
    pub(crate) fn after(far: impl Into<FarEnd>, bytes: u64) -> io::Result<Self> {
        let (go_on, told) = channel();
        let peer = Peer::spawn(far.into(), move |far, seen| {
            let mut buffer = vec![0; 4096];
            while seen.stream.received() < bytes && seen.read(far, &mut buffer)? {}
            // Also when the other end is dropped.
            let _: Result<(), _> = told.recv();
            let mut buffer = vec![0; 64 << 10];
            while seen.read(far, &mut buffer)? {}
            Ok(())
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
