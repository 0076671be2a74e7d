//! Drivers, sockets and peers for the tests.

use lastbyte::{
    AttachOptions, Attached, BackendKind, Choice, Completion, ConnectionId, Driver, DriverConfig,
    Event, EventQueue, Payload, Socket, Stage, TransferId, Watch,
};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const BOTH: [BackendKind; 2] = [BackendKind::Epoll, BackendKind::Fallback];

/// Long enough for anything that happens at all, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A driver and what it has to say.
pub(crate) struct World {
    pub(crate) driver: Box<dyn Driver>,
    queue: EventQueue,
}

impl World {
    /// A driver of `kind` that does without the facilities listed in `without`.
    pub(crate) fn new(kind: BackendKind, without: &str) -> Self {
        Self::configured(kind, without, &DriverConfig::default())
    }

    /// The same, with these bounds.
    pub(crate) fn configured(kind: BackendKind, without: &str, config: &DriverConfig) -> Self {
        let restrictions = without.parse().expect("a list of facilities");
        let backend = lastbyte_backends::open(Choice::Only(kind), &restrictions).expect("opens");
        let queue = EventQueue::default();
        let driver = backend.driver(config, Box::new(queue.sink()));
        Self { driver: driver.expect("a driver"), queue }
    }

    pub(crate) fn attach(&mut self, socket: impl Into<Socket>) -> Attached {
        self.driver.attach(socket.into(), &AttachOptions::default()).expect("attaches")
    }

    pub(crate) fn submit(
        &mut self,
        connection: ConnectionId,
        payload: impl Into<Payload>,
        watch: Watch,
    ) -> TransferId {
        self.driver.submit(connection, payload.into(), watch).expect("submits")
    }

    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.driver.close(connection, Duration::from_secs(30)).expect("closes");
    }

    /// One turn, and what it said.
    pub(crate) fn turn(&mut self, wait: Duration) -> Vec<Event> {
        self.driver.turn(Some(wait)).expect("turns");
        std::iter::from_fn(|| self.queue.pop()).collect()
    }

    /// Turns for as long as `time`. How often that was, and what was said.
    pub(crate) fn turns(&mut self, time: Duration) -> (u32, Vec<Event>) {
        let end = Instant::now() + time;
        let (mut turns, mut events) = (0, Vec::new());
        while Instant::now() < end {
            events.extend(self.turn(end.saturating_duration_since(Instant::now())));
            turns += 1;
        }
        (turns, events)
    }

    /// Turns until `done` with all that was said meanwhile.
    pub(crate) fn until(&mut self, done: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let end = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        while !done(&events) {
            assert!(Instant::now() < end, "nothing more happens after {events:?}");
            events.extend(self.turn(Duration::from_millis(100)));
        }
        events
    }
}

/// The completions of `stage`, in order.
pub(crate) fn reached(events: &[Event], stage: Stage) -> Vec<&Completion> {
    let completions = events.iter().filter_map(|event| match event {
        Event::Transfer(completion) => Some(completion),
        _ => None,
    });
    completions.filter(|completion| completion.stage() == stage).collect()
}

pub(crate) fn is_closed(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Closed { .. }))
}

/// Two ends of a connection: what a driver gets, and its peer's. Until the peer
/// reads, it takes no more than 128 KiB; the near end takes a megabyte at least.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let far = far.expect("a socket");
    // As it would be anyway, but so it does not grow.
    far.set_recv_buffer_size(64 << 10).expect("a receive buffer");
    far.connect(&listener.local_addr().expect("an address").into()).expect("connects");
    (listener.accept().expect("accepts").0, far.into())
}

/// Reads to the end, after a pause.
pub(crate) fn reader(mut far: TcpStream, pause: Duration) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        std::thread::sleep(pause);
        let mut all = Vec::new();
        far.read_to_end(&mut all).expect("reads");
        all
    })
}

/// Bytes that repeat at no power of two.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

/// What another owner of a socket may have asked for: a stamp at every
/// acknowledgement, and one that only names stamps.
pub(crate) const ACK_STAMPS: u32 = libc::SOF_TIMESTAMPING_TX_ACK | NAMED_STAMPS;
pub(crate) const NAMED_STAMPS: u32 = libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY;

pub(crate) fn set_stamps(socket: &impl AsFd, flags: u32) {
    let fd = socket.as_fd().as_raw_fd();
    let (option, len) = ((&raw const flags).cast(), size_of_val(&flags));
    let len = libc::socklen_t::try_from(len).expect("four");
    // SAFETY: `option` is valid for reads of `len` bytes.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, option, len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
