//! A peer that sends without end, whether anybody reads it or not.

use super::{Peer, Seen};
use crate::Failure;
use crate::far_end::FarEnd;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// One thread writes as much as the connection takes, another reads.
#[derive(Debug)]
pub(crate) struct Flooding {
    reader: Peer,
    writer: JoinHandle<()>,
    socket: TcpStream,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Flooding {
    pub(crate) fn start(far: impl Into<FarEnd>) -> io::Result<Self> {
        let far = far.into();
        let socket = far.socket().try_clone()?;
        let mut sink = far.second()?;
        let reader = super::reader(far)?;
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let writer = std::thread::Builder::new().name("flood".into()).spawn(move || {
            let chunk = [b'x'; 4096];
            while !stopped.load(Ordering::SeqCst) {
                match sink.write(&chunk) {
                    Ok(n) => count.fetch_add(n as u64, Ordering::SeqCst),
                    // The other side had enough, or `finish` ended the stream.
                    Err(_) => break,
                };
            }
        })?;
        Ok(Self { reader, writer, socket, stop, written })
    }

    /// Bytes that it wrote so far: one write more may be held up.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Stops sending, in the middle of a record if there are any, and ends the
    /// sending half of its connection.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        // The connection may be gone already.
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Whether it has read to the end.
    pub(crate) fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// Waits for the end of the stream, and says what was read.
    pub(crate) fn join(self) -> Result<Seen, Failure> {
        self.stop();
        let seen = self.reader.join();
        match self.writer.join() {
            Ok(()) => seen,
            Err(_) => Err(Failure::new("a peer panicked")),
        }
    }
}
