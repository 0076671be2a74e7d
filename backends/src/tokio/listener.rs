//! Accepting.

use super::listeners::Key;
use super::shared::User;
use lastbyte::Socket;
use std::io;
use std::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

/// A listening socket of a driver. Dropping it closes it, and every connection
/// that was accepted and not taken.
///
/// While 64 connections wait for [`Self::accept`], no more are accepted than the
/// driver already has: those of one turn
/// ([`DriverConfig::accept_burst`](lastbyte::DriverConfig::accept_burst)), and on
/// a ring what its kernel accepted ahead, which can be the whole backlog. The
/// others wait in the kernel, as the socket's backlog allows. It goes on when
/// half of those 64 are left.
#[derive(Debug)]
pub struct Listener {
    user: User,
    key: Key,
    sockets: UnboundedReceiver<io::Result<Socket>>,
}

impl Listener {
    pub(super) fn new(
        user: User,
        key: Key,
        sockets: UnboundedReceiver<io::Result<Socket>>,
    ) -> Self {
        Self { user, key, sockets }
    }

    /// The next connection, to be attached. Cancel-safe: a connection that came
    /// meanwhile is the next call's.
    ///
    /// # Errors
    /// The kernel's reason for a pause, such as `EMFILE`; the driver tries again
    /// by itself, and so may the caller. `NotConnected` if the driver is gone:
    /// nothing more will come.
    pub async fn accept(&mut self) -> io::Result<Socket> {
        let Some(next) = self.sockets.recv().await else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let key = self.key;
        // If the driver is gone, there are only those that are here already.
        self.user
            .ask(move |turned| turned.inboxes.listeners.taken(key, &mut *turned.driver))
            .unwrap_or_default();
        next
    }

    /// Stops accepting and gives the socket back, which is non-blocking now.
    /// Connections that were accepted and not taken are closed. `None` if the
    /// driver is gone, and the socket with it; and where the driver's own work calls
    /// this (see [`Handle`](super::Handle)), after which the socket is closed.
    #[must_use = "dropping the socket closes it"]
    pub fn unlisten(self) -> Option<TcpListener> {
        self.stop()
    }

    fn stop(&self) -> Option<TcpListener> {
        let key = self.key;
        let stopped =
            self.user.ask(move |turned| turned.inboxes.listeners.remove(key, &mut *turned.driver));
        stopped.flatten()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing is left of it after `unlisten`.
        drop(self.stop());
    }
}
