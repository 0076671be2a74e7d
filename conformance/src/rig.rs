//! A driver under test, with everything it says on record.

use crate::canary::{Canary, guarded};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::material::{Kind, Material};
use crate::pattern;
use crate::record::{Record, Told};
use crate::subject::Subject;
use crate::tls;
use crate::wire::{Pair, Wire};
use lastbyte::{
    AttachOptions, Attached, ConnectionId, Driver, DriverConfig, Event, Facility, Payload, Refused,
    Socket, Time, TlsRole, TransferId, Transport, Turn, Watch, event_channel,
};
use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen. Only a hang takes
/// this long; cases never depend on less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A driver, the events it delivered, and where each stream stands.
#[derive(Debug)]
pub(crate) struct Rig<D: Driver + ?Sized = dyn Driver> {
    driver: Option<Box<D>>,
    events: Option<Receiver<Event>>,
    positions: HashMap<ConnectionId, u64>,
    /// Whether anything tells that the peer acknowledged a FIN: no stamp does.
    pub(crate) learns_of_fin: bool,
    pub(crate) record: Record,
}

impl Rig {
    /// A driver with the default configuration.
    pub(crate) fn new(subject: &Subject) -> Result<Self, Failure> {
        Self::configured(subject, &DriverConfig::default())
    }

    /// A driver that tries zero copy for every payload.
    pub(crate) fn eager(subject: &Subject) -> Result<Self, Failure> {
        let mut config = DriverConfig::default();
        config.zero_copy_threshold = 1;
        Self::configured(subject, &config)
    }

    pub(crate) fn configured(subject: &Subject, config: &DriverConfig) -> Result<Self, Failure> {
        let (sink, events) = event_channel();
        Ok(Self::over(subject, subject.backend().driver(config, Box::new(sink))?, events))
    }
}

impl Rig<dyn Driver + Send> {
    /// A driver that can be moved to another thread, this rig with it.
    pub(crate) fn movable(subject: &Subject) -> Result<Self, Failure> {
        let (sink, events) = event_channel();
        let driver = subject.backend().movable_driver(&DriverConfig::default(), Box::new(sink))?;
        Ok(Self::over(subject, driver, events))
    }
}

impl<D: Driver + ?Sized> Rig<D> {
    pub(crate) fn over(subject: &Subject, driver: Box<D>, events: Receiver<Event>) -> Self {
        let report = subject.backend().report();
        Self {
            driver: Some(driver),
            events: Some(events),
            positions: HashMap::new(),
            learns_of_fin: report.has(Facility::TcpInfo) || report.has(Facility::OutQueue),
            record: Record::of(subject),
        }
    }

    /// The driver; a case that dropped it does not ask.
    pub(crate) fn driver(&mut self) -> &mut D {
        self.driver.as_mut().expect("the case dropped the driver")
    }

    /// The driver's clock.
    pub(crate) fn now(&self) -> Time {
        self.driver.as_ref().map_or(Time::from_nanos(u64::MAX), |driver| driver.now())
    }

    /// A new connection with default options; the other end is returned.
    pub(crate) fn connect(
        &mut self,
        subject: &Subject,
        wire: Wire,
    ) -> Result<(ConnectionId, FarEnd), Failure> {
        self.join(subject, wire.pair(subject)?, &AttachOptions::default())
    }

    /// Attaches one end of a pair, and gives the other what the subject speaks;
    /// a handshake is done when it is returned.
    pub(crate) fn join(
        &mut self,
        subject: &Subject,
        pair: Pair,
        options: &AttachOptions,
    ) -> Result<(ConnectionId, FarEnd), Failure> {
        let connection = self.attach(pair.own, options)?;
        if subject.transport() == Transport::Plain {
            return Ok((connection, pair.peer.into()));
        }
        let far = FarEnd::tls(pair.peer, tls::client()?);
        Ok((connection, self.shake_hands(far)?))
    }

    /// Turns until both sides have made the handshake.
    pub(crate) fn shake_hands(&mut self, mut far: FarEnd) -> Result<FarEnd, Failure> {
        let made = self.driver().counters().handshakes;
        let shaking = std::thread::spawn(move || far.begin().map(|()| far));
        self.until_outside("the peer's side of the handshake", |_| shaking.is_finished())?;
        let far = shaking.join().map_err(|_| Failure::new("a peer panicked"))??;
        let deadline = Instant::now() + PATIENCE;
        while self.driver().counters().handshakes == made {
            ensure!(Instant::now() < deadline, "the handshake does not end");
            self.turn(Duration::from_millis(2))?;
        }
        Ok(far)
    }

    pub(crate) fn attach(
        &mut self,
        socket: impl Into<Socket>,
        options: &AttachOptions,
    ) -> Result<ConnectionId, Failure> {
        let attached = self.driver().attach(socket.into(), options)?;
        Ok(self.attached(&attached))
    }

    /// The same in another part than the subject's usual one.
    pub(crate) fn attach_as(
        &mut self,
        socket: impl Into<Socket>,
        options: &AttachOptions,
        role: &TlsRole,
    ) -> Result<ConnectionId, Failure> {
        let attached = self.driver().attach_tls(socket.into(), options, role)?;
        Ok(self.attached(&attached))
    }

    fn attached(&mut self, attached: &Attached) -> ConnectionId {
        self.record.attached(attached.connection, attached.stages);
        self.positions.insert(attached.connection, 0);
        attached.connection
    }

    /// Where the stream of `connection` stands.
    pub(crate) fn position(&self, connection: ConnectionId) -> u64 {
        self.positions.get(&connection).copied().unwrap_or(0)
    }

    /// Says that the pattern goes on at `position`: bytes were sent before.
    pub(crate) fn set_position(&mut self, connection: ConnectionId, position: u64) {
        self.positions.insert(connection, position);
    }

    /// Sends the next `len` bytes of the pattern from guarded memory.
    pub(crate) fn send(
        &mut self,
        connection: ConnectionId,
        len: usize,
        watch: Watch,
    ) -> Result<TransferId, Failure> {
        let (bytes, canary) = guarded(pattern::bytes(self.position(connection), len));
        Ok(self.submit(connection, bytes.into(), watch, Some(canary))?)
    }

    /// Sends the next `len` bytes of the pattern as a payload of that kind.
    pub(crate) fn send_kind(
        &mut self,
        connection: ConnectionId,
        material: &Material,
        kind: Kind,
        len: usize,
        watch: Watch,
    ) -> Result<TransferId, Failure> {
        let payload = material.payload(kind, self.position(connection), len);
        Ok(self.submit(connection, payload, watch, None)?)
    }

    pub(crate) fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
        canary: Option<Canary>,
    ) -> Result<TransferId, Refused<Payload>> {
        let submitted = self.now();
        let len = payload.len();
        let transfer = self.driver().submit(connection, payload, watch)?;
        let position = self.positions.entry(connection).or_insert(0);
        *position += len;
        let told = Told {
            watch,
            end: *position,
            submitted,
            queued: None,
            transmitted: None,
            acked: None,
            released: None,
            failed: None,
            leaked: false,
            payload: None,
            canary,
        };
        self.record.submitted(connection, transfer, told);
        Ok(transfer)
    }

    /// Turns once and checks what was delivered.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<Turn, Failure> {
        let turn = self.driver().turn(Some(wait))?;
        let now = self.now();
        let taken = self.take_events(now);
        self.check()?;
        ensure!(taken == turn.delivered, "turn says {} events, delivered {taken}", turn.delivered);
        Ok(turn)
    }

    /// Puts what was delivered on record.
    pub(crate) fn take_events(&mut self, now: Time) -> usize {
        let mut taken = 0;
        while let Some(Ok(event)) = self.events.as_ref().map(Receiver::try_recv) {
            self.record.take(event, now);
            taken += 1;
        }
        taken
    }

    /// Fails if anything delivered so far broke the contract.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.record.check_canaries();
        match self.record.take_violations() {
            None => Ok(()),
            Some(violations) => Err(Failure::new(violations)),
        }
    }

    /// Turns until `done`, and leaves the driver to wait as long as it likes:
    /// one that misses a wake-up is found out.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        what: &str,
        done: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let hang = Failure::new(format!("waited in vain for {what}"));
        while !done(&self.record) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(hang.while_doing(self.situation()));
            }
            self.turn(left)?;
        }
        Ok(())
    }

    /// Turns until `done`, which looks at something other than the record, and
    /// so is asked again and again.
    #[track_caller]
    pub(crate) fn until_outside(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Record) -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let hang = Failure::new(format!("waited in vain for {what}"));
        while !done(&self.record) {
            if Instant::now() > deadline {
                return Err(hang.while_doing(self.situation()));
            }
            self.turn(Duration::from_millis(2))?;
        }
        Ok(())
    }

    /// Turns for at least that long, whatever happens.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Checks that a driver with nothing to do waits: each turn is told of
    /// something, or lasts.
    pub(crate) fn expect_calm(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_millis(100);
        let mut turns = 0;
        while Instant::now() < until {
            self.turn(Duration::from_millis(10))?;
            turns += 1;
        }
        ensure!(turns < 100, "{turns} turns in 100 ms, with nothing to do");
        Ok(())
    }

    /// Turns until every transfer is over and checks that nothing is missing.
    #[track_caller]
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        self.until("every transfer to end", Record::is_settled)?;
        self.until_sealed_is_sent()?;
        self.record.check_complete();
        self.check()
    }

    /// A transfer that nobody watches is over when it is sealed; what was made
    /// of it is still to be sent.
    fn until_sealed_is_sent(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while self.driver.as_ref().is_some_and(|driver| driver.counters().ciphertext_bytes > 0) {
            ensure!(Instant::now() < deadline, "ciphertext is held for ever");
            self.turn(Duration::from_millis(2))?;
        }
        Ok(())
    }

    /// Ends the connection and waits until the driver has let go of it.
    pub(crate) fn close(&mut self, connection: ConnectionId) -> Result<(), Failure> {
        self.driver().close(connection, PATIENCE)?;
        self.until("the connection to close", |record| record.is_closed(connection))
    }

    /// Drops the driver, and checks that nothing is owed any more.
    pub(crate) fn drop_driver(&mut self) -> Result<(), Failure> {
        self.driver = None;
        self.take_events(Time::from_nanos(u64::MAX));
        self.record.check_complete();
        let open = self.record.lines().filter(|(_, line)| line.closed.is_none()).count();
        ensure!(
            open == 0 || self.record.events_may_be_missing,
            "{open} connections were not closed when the driver was dropped"
        );
        self.check()
    }

    /// Takes the receiving end of the sink away, as a user who lost interest.
    pub(crate) fn drop_events(&mut self) {
        self.events = None;
    }

    /// Where things stand, for a failure's text.
    fn situation(&self) -> String {
        let all = self.record.transfers().count();
        let over = self.record.transfers().filter(|told| told.is_over()).count();
        let open = self.record.transfers().find(|told| !told.is_over());
        let counters = self.driver.as_ref().map(|driver| driver.counters());
        format!("{over} of {all} transfers are over, the first open one: {open:?}; {counters:?}")
    }
}
