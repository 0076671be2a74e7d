//! The way to a driver that a task turns.

use super::connection::Connection;
use super::halves::halves;
use super::listener::Listener;
use super::shared::{Shared, User};
use super::standing::{Standing, Teller};
use super::turning;
use crate::queue::Queue;
use lastbyte::{
    AttachOptions, Attached, Backend, Counters, Driver, DriverConfig, DriverError, NotRegistered,
    Pool, RefuseReason, Refused, Socket, TlsRole,
};
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Makes a driver of `backend` and has a task of the current runtime turn it,
/// until every handle, listener and connection is gone.
///
/// With that runtime the driver ends, too: what is still open is reset, whoever
/// waits hears of it, on whatever runtime that is, and what comes after is
/// refused as [`DriverGone`](lastbyte::RefuseReason::DriverGone). So it does if it
/// cannot be turned for ten seconds on end, and [`Handle::failure`] says why.
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
    let events = Queue::default();
    let driver = backend.movable_driver(config, Box::new(events.clone()))?;
    let (user, turner) = Shared::between(driver, events);
    turning::start(turner)?;
    Ok(Handle { user })
}

/// Gives connections and listeners to a driver. Clones speak of the same one.
///
/// A driver runs code of its users while it works: a TLS provider's, a file's, that
/// of memory which is dropped. What such code asks of the same driver would have to
/// wait for itself. So what is to be handed over is refused as
/// [`WithinDriver`](lastbyte::RefuseReason::WithinDriver); what only has to be told,
/// such as closing, is done as soon as the present work is.
///
/// Two things hang, and are for such code to leave:
/// - Dropping the runtime that turns this driver. That ends the driver, which has to
///   wait for its work, which waits for the runtime's end. Give the runtime to a
///   thread that the driver does not call, or use
///   [`shutdown_background`](tokio::runtime::Runtime::shutdown_background) on one of
///   several threads.
/// - Asking another driver whose work, on another thread, asks this one: each waits
///   for the other's work to end. One driver's work may ask another's as long as it
///   goes one way only.
#[derive(Clone, Debug)]
pub struct Handle {
    user: User,
}

impl Handle {
    /// Accepts from `listener`.
    ///
    /// # Errors
    /// As [`Driver::listen`].
    pub fn listen(&self, listener: TcpListener) -> Result<Listener, Refused<TcpListener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let key = self.user.give(listener, |turned, listener| {
            let name = turned.driver.listen(listener)?;
            Ok(turned.inboxes.listeners.add(name, sender))
        })?;
        Ok(Listener::new(self.user.clone(), key, receiver))
    }

    /// Takes over a connected socket, or one that connects
    /// ([`lastbyte_backends::connect`](crate::connect)): then what is sent before
    /// [`Connection::connected`] is sent after it.
    ///
    /// # Errors
    /// As [`Driver::attach`].
    pub fn attach(
        &self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Connection, Refused<Socket>> {
        self.attach_by(socket, |driver, socket| driver.attach(socket, options))
    }

    /// As [`Self::attach`], and speaks TLS in this role.
    ///
    /// # Errors
    /// As [`Driver::attach_tls`].
    pub fn attach_tls(
        &self,
        socket: Socket,
        options: &AttachOptions,
        role: &TlsRole,
    ) -> Result<Connection, Refused<Socket>> {
        self.attach_by(socket, |driver, socket| driver.attach_tls(socket, options, role))
    }

    fn attach_by(
        &self,
        socket: Socket,
        attach: impl FnOnce(&mut dyn Driver, Socket) -> Result<Attached, Refused<Socket>>,
    ) -> Result<Connection, Refused<Socket>> {
        let (received, to_receive) = mpsc::unbounded_channel();
        let standing = Arc::new(Standing::new(socket.is_connecting()));
        let teller = Teller::new(Arc::clone(&standing));
        let (attached, is_tls) = self.user.give(socket, |turned, socket| {
            let attached = attach(&mut *turned.driver, socket)?;
            turned.inboxes.attached(attached.connection, received, teller);
            Ok((attached, turned.driver.speaks_tls(attached.connection)))
        })?;
        let halves = halves(self.user.clone(), attached, is_tls, standing, to_receive);
        Ok(Connection::new(halves))
    }

    /// Has the kernel pin the memory of a contiguous pool once for all.
    ///
    /// # Errors
    /// As [`Driver::register`]; the pool can be used all the same.
    pub fn register(&self, pool: &Pool) -> Result<(), NotRegistered> {
        let registered = self.user.give((), |turned, ()| Ok(turned.driver.register(pool)));
        registered.unwrap_or_else(|refused| {
            Err(match refused.reason {
                RefuseReason::WithinDriver => NotRegistered::WithinDriver,
                _ => NotRegistered::DriverGone,
            })
        })
    }

    /// Takes [`Self::register`] back.
    pub fn unregister(&self, pool: &Pool) {
        // With the driver went what it had registered.
        let pool = pool.clone();
        self.user.ask(move |turned| turned.driver.unregister(&pool)).unwrap_or_default();
    }

    /// What the driver has done so far; if it is gone, had done when its end
    /// began; out of its own work, when that began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.user.counters()
    }

    /// Why the driver has ended, if it did because it could not be turned.
    #[must_use]
    pub fn failure(&self) -> Option<DriverError> {
        self.user.failure()
    }
}
