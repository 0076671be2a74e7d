//! The way to a driver that a task turns.

use super::connection::Connection;
use super::inbox::Inboxes;
use super::listener::Listener;
use super::turning;
use lastbyte::{
    AttachOptions, Attached, Backend, Counters, Driver, DriverConfig, DriverError, Event,
    NotRegistered, Pool, Refused, Socket, TlsRole, event_channel,
};
use std::fmt;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};

/// Makes a driver of `backend` and has a task of the current runtime turn it,
/// until every handle, listener and connection is gone.
///
/// The runtime needs its I/O and time drivers. A driver without a pollable
/// descriptor (the fallback backend's) is turned once a millisecond while it
/// has listeners or connections.
///
/// # Errors
/// If the kernel refuses a resource that the driver needs, or the runtime one
/// that watching it takes.
///
/// # Panics
/// Outside of a tokio runtime, as everything that needs one.
pub fn spawn(backend: &dyn Backend, config: &DriverConfig) -> Result<Handle, DriverError> {
    let (sink, events) = event_channel();
    let driver = backend.movable_driver(config, Box::new(sink))?;
    let turned = Turned { driver, events, inboxes: Inboxes::default(), listeners: 0 };
    let shared = Arc::new(Shared {
        turned: Mutex::new(turned),
        nudge: Notify::new(),
        users: AtomicUsize::new(0),
    });
    let handle = Handle { user: User::new(Arc::clone(&shared)) };
    turning::start(shared)?;
    Ok(handle)
}

/// Gives connections and listeners to a driver. Clones speak of the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    user: User,
}

/// What the handles of a driver share with the task that turns it.
pub(super) struct Shared {
    turned: Mutex<Turned>,
    /// Something was asked of the driver, or a user is gone.
    nudge: Notify,
    users: AtomicUsize,
}

/// A share that keeps the driver being turned.
#[derive(Debug)]
pub(super) struct User(Arc<Shared>);

pub(super) struct Turned {
    pub(super) driver: Box<dyn Driver + Send>,
    pub(super) events: Receiver<Event>,
    pub(super) inboxes: Inboxes,
    pub(super) listeners: usize,
}

impl Handle {
    /// Accepts from `listener`.
    ///
    /// # Errors
    /// As [`Driver::listen`].
    pub fn listen(&self, listener: TcpListener) -> Result<Listener, Refused<TcpListener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = self.user.with(|turned| {
            let id = turned.driver.listen(listener)?;
            turned.listeners += 1;
            turned.inboxes.listens(id, sender);
            Ok(id)
        })?;
        Ok(Listener::new(self.user.clone(), id, receiver))
    }

    /// Takes over a connected socket.
    ///
    /// # Errors
    /// As [`Driver::attach`].
    pub fn attach(
        &self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Connection, Refused<Socket>> {
        self.attach_by(|driver| driver.attach(socket, options))
    }

    /// Takes over a connected socket that speaks TLS in this role.
    ///
    /// # Errors
    /// As [`Driver::attach_tls`].
    pub fn attach_tls(
        &self,
        socket: Socket,
        options: &AttachOptions,
        role: &TlsRole,
    ) -> Result<Connection, Refused<Socket>> {
        self.attach_by(|driver| driver.attach_tls(socket, options, role))
    }

    fn attach_by(
        &self,
        attach: impl FnOnce(&mut dyn Driver) -> Result<Attached, Refused<Socket>>,
    ) -> Result<Connection, Refused<Socket>> {
        let (received, to_receive) = mpsc::unbounded_channel();
        let (closed, to_close) = oneshot::channel();
        let attached = self.user.with(|turned| {
            let attached = attach(&mut *turned.driver)?;
            turned.inboxes.attached(attached.connection, received, closed);
            Ok(attached)
        })?;
        Ok(Connection::new(self.user.clone(), attached, to_receive, to_close))
    }

    /// Has the kernel pin the memory of a contiguous pool once for all.
    ///
    /// # Errors
    /// As [`Driver::register`]; the pool can be used all the same.
    pub fn register(&self, pool: &Pool) -> Result<(), NotRegistered> {
        self.user.0.lock().driver.register(pool)
    }

    /// Takes [`Self::register`] back.
    pub fn unregister(&self, pool: &Pool) {
        self.user.0.lock().driver.unregister(pool);
    }

    /// What the driver has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.user.0.lock().driver.counters()
    }
}

impl User {
    fn new(shared: Arc<Shared>) -> Self {
        shared.users.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// Lets `act` ask something of the driver, and has it turned.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Turned) -> R) -> R {
        let result = act(&mut self.0.lock());
        self.0.nudge.notify_one();
        result
    }
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Released here and acquired by the task: it ends after the last call.
        self.0.users.fetch_sub(1, Ordering::Release);
        self.0.nudge.notify_one();
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Turned> {
        // A driver outlives a panic; so does what was entered here before.
        self.turned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_users(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }

    pub(super) async fn nudged(&self) {
        self.nudge.notified().await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
