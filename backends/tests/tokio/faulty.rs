//! A backend whose driver fails when a test wants it to.

use lastbyte::{
    AttachOptions, Attached, Backend, BackendKind, CompletionSink, ConnectionId, Counters, Driver,
    DriverConfig, DriverError, ListenerId, Payload, RefuseReason, Refused, Report, Socket, Time,
    TransferId, Turn, Wake, Watch,
};
use std::io::Error;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What goes wrong, and how often it did.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) turning: AtomicBool,
    /// Turns that do more than to deliver what submitting has brought about.
    pub(crate) waiting: AtomicBool,
    pub(crate) listening: AtomicBool,
    pub(crate) failed: AtomicU32,
}

impl Faults {
    /// Whether `what` goes wrong now.
    fn strikes(&self, what: &AtomicBool) -> bool {
        let strikes = what.load(Ordering::SeqCst);
        self.failed.fetch_add(u32::from(strikes), Ordering::SeqCst);
        strikes
    }
}

pub(crate) const ERRNO: i32 = libc::ENOMEM;

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Backend>,
    pub(crate) faults: Arc<Faults>,
}

impl Faulty {
    pub(crate) fn over(inner: Arc<dyn Backend>) -> Self {
        Self { inner, faults: Arc::default() }
    }
}

impl Backend for Faulty {
    fn kind(&self) -> BackendKind {
        self.inner.kind()
    }

    fn report(&self) -> &Report {
        self.inner.report()
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        self.inner.driver(config, sink)
    }

    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        let inner = self.inner.movable_driver(config, sink)?;
        Ok(Box::new(FaultyDriver { inner, faults: Arc::clone(&self.faults), submitted: false }))
    }
}

#[derive(Debug)]
struct FaultyDriver {
    inner: Box<dyn Driver + Send>,
    faults: Arc<Faults>,
    submitted: bool,
}

impl Driver for FaultyDriver {
    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        if self.faults.strikes(&self.faults.listening) {
            let reason = RefuseReason::System { doing: "a test's listening", errno: ERRNO };
            return Err(Refused::new(listener, reason));
        }
        self.inner.listen(listener)
    }

    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener> {
        self.inner.unlisten(listener)
    }

    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>> {
        self.inner.attach(socket, options)
    }

    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        self.submitted = true;
        self.inner.submit(connection, payload, watch)
    }

    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.receive(connection)
    }

    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.finish(connection)
    }

    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason> {
        self.inner.close(connection, within)
    }

    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.inner.abort(connection)
    }

    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError> {
        let failure = || DriverError::new("a test's turn", &Error::from_raw_os_error(ERRNO));
        if self.faults.strikes(&self.faults.turning) {
            return Err(failure());
        }
        if self.faults.strikes(&self.faults.waiting) {
            let submitted = std::mem::take(&mut self.submitted);
            let delivery = submitted.then(|| self.inner.turn(Some(Duration::ZERO))).transpose()?;
            return delivery.filter(|turn| turn.delivered > 0).ok_or_else(failure);
        }
        self.inner.turn(wait)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.pollable()
    }

    fn next_turn_by(&self) -> Option<Time> {
        self.inner.next_turn_by()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
