//! Accepting.

use super::shared::User;
use lastbyte::{ListenerId, Socket};
use std::io;
use std::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

/// A listening socket of a driver. Dropping it closes it.
#[derive(Debug)]
pub struct Listener {
    user: User,
    id: ListenerId,
    sockets: UnboundedReceiver<io::Result<Socket>>,
}

impl Listener {
    pub(super) fn new(
        user: User,
        id: ListenerId,
        sockets: UnboundedReceiver<io::Result<Socket>>,
    ) -> Self {
        Self { user, id, sockets }
    }

    /// The next connection, to be attached. Cancel-safe: a connection that came
    /// meanwhile is the next call's.
    ///
    /// # Errors
    /// The kernel's reason for a pause, such as `EMFILE`; the driver tries again
    /// by itself, and so may the caller. `NotConnected` if the driver is gone:
    /// nothing more will come.
    pub async fn accept(&mut self) -> io::Result<Socket> {
        self.sockets.recv().await.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Stops accepting and gives the socket back, which is non-blocking now.
    /// Connections that were accepted and not taken are closed. `None` if the
    /// driver is gone, and the socket with it.
    #[must_use = "dropping the socket closes it"]
    pub fn unlisten(self) -> Option<TcpListener> {
        self.stop()
    }

    fn stop(&self) -> Option<TcpListener> {
        let stopped = self.user.ask(|turned| {
            turned.inboxes.unlistens(self.id);
            let listener = turned.driver.unlisten(self.id);
            turned.listeners -= usize::from(listener.is_some());
            listener
        });
        stopped.flatten()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing is left of it after `unlisten`.
        drop(self.stop());
    }
}
