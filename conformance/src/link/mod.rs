//! A slow, lossy link between two TCP endpoints, at the level of IP.
//!
//! A proxy would not do: it has a TCP of its own, which acknowledges what the
//! client has not seen. Here both endpoints are the kernel's, in a network
//! namespace with one TUN device; whatever one sends to the address "beyond" the
//! device comes back with source and destination exchanged, later or never. The
//! exchange leaves every checksum as it was.
//!
//! The link sees every packet, so it knows when an acknowledgement reached the
//! sender: the truth that completions are held against.

#[cfg(target_os = "linux")]
mod apart;
mod hop;
mod journal;
mod lane;
#[cfg(target_os = "linux")]
mod router;
mod segment;
#[cfg(target_os = "linux")]
mod shaped;
#[cfg(target_os = "linux")]
pub(crate) mod veth;

#[cfg(target_os = "linux")]
pub use apart::{Apart, Wire};
#[cfg(target_os = "linux")]
pub(crate) use shaped::shaped;

use crate::sys::tun::{self, HERE, THERE};
use crate::{Failure, Lack};
use hop::{Control, hop};
pub(crate) use journal::Arrival;
use journal::Journal;
use socket2::SockRef;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the link does to packets.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// One way.
    pub delay: Duration,
    /// Packets lost of a thousand, each way.
    pub loss: u32,
    /// Bytes a second, each way; `None` without bound.
    pub rate: Option<u64>,
}

/// A running link. Dropping it cuts it.
#[derive(Debug)]
pub(crate) struct Link {
    control: Arc<Mutex<Control>>,
    journal: Arc<Mutex<Journal>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// The ends of the one connection over a link.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) server: TcpStream,
    pub(crate) client: TcpStream,
}

impl Link {
    /// A link with a connection over it, or what the kernel refused.
    pub(crate) fn new(options: LinkOptions) -> Result<Result<(Self, Ends), Lack>, Failure> {
        let namespace = match tun::make() {
            Ok(namespace) => namespace,
            Err((what, error)) => return Ok(Err(Lack::refused(what, &error))),
        };
        let port = namespace.listener.local_addr()?.port();
        let control = Arc::new(Mutex::new(Control::default()));
        let journal = Arc::new(Mutex::new(Journal::new(port)));
        let (device, ours, book) = (namespace.device, Arc::clone(&control), Arc::clone(&journal));
        let thread = std::thread::Builder::new()
            .name("link".into())
            .spawn(move || hop(device, options, &ours, &book))?;
        let link = Self { control, journal, thread: Some(thread) };
        let client = namespace.connector;
        debug_assert_ne!(HERE, THERE, "a packet must leave by the device");
        SockRef::from(&client).connect(&std::net::SocketAddr::from((THERE, port)).into())?;
        let (server, _) = namespace.listener.accept()?;
        Ok(Ok((link, Ends { server, client })))
    }

    /// From now on the client's packets wait.
    pub(crate) fn hold_acks(&self) {
        self.control().hold_acks = true;
    }

    /// They wait no more.
    pub(crate) fn release_acks(&self) {
        self.control().hold_acks = false;
    }

    /// From now on every packet is lost, both ways.
    pub(crate) fn cut(&self) {
        self.control().cut = true;
    }

    /// When the client's kernel first got all of the server's first `bytes`.
    pub(crate) fn delivered(&self, bytes: u64) -> Option<Arrival> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).delivered(bytes)
    }

    /// When the server's kernel first got an acknowledgement of them.
    pub(crate) fn acknowledged(&self, bytes: u64) -> Option<Arrival> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).acknowledged(bytes)
    }

    /// Packets dropped on purpose so far.
    pub(crate) fn lost(&self) -> u64 {
        self.control().lost
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.control().ended = true;
        if let Some(thread) = self.thread.take() {
            // What it died of, if it did, has shown as a hang.
            drop(thread.join());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Instant;

    #[test]
    fn what_crosses_is_delayed_lost_and_repaired() {
        let options = LinkOptions { delay: Duration::from_millis(10), loss: 30, rate: None };
        let Ok((link, mut ends)) = Link::new(options).unwrap() else {
            return;
        };
        let sent = vec![7; 300_000];
        let expected = sent.clone();
        let began = Instant::now();
        let writer = std::thread::spawn(move || {
            ends.server.write_all(&sent).unwrap();
            ends.server
        });
        let mut got = vec![0; expected.len()];
        ends.client.read_exact(&mut got).unwrap();
        assert!(got == expected, "the link changed what it carried");
        assert!(began.elapsed() >= options.delay);
        // The link notes what it did just after it did it.
        let (delivered, acknowledged) = loop {
            if let (Some(delivered), Some(acknowledged)) =
                (link.delivered(300_000), link.acknowledged(300_000))
            {
                break (delivered.after, acknowledged.before);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(acknowledged >= delivered + options.delay, "an ACK takes its time, too");
        drop(writer);
    }
}
