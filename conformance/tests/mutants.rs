//! The suite must find faults: drivers that lie in one way each are run
//! through it, and each has to be caught by a case of the contract it breaks.

#![forbid(unsafe_code)]

use lastbyte::{
    AttachOptions, Attached, Backend, BackendKind, Choice, Completion, CompletionSink,
    ConnectionId, Counters, Driver, DriverConfig, DriverError, Event, Evidence, ListenerId, Memory,
    Moment, Payload, Reached, RefuseReason, Refused, Report, Restrictions, Socket, Time,
    TransferId, Transport, Turn, Wake, Watch,
};
use lastbyte_conformance::{Subject, Verdict, cases, run_case};
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One way to lie.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Acked is told as soon as the kernel has the bytes.
    AckedTooSoon,
    /// Acked is told twice.
    AckedTwice,
    /// Some Acked are never told.
    AckedLost,
    /// A payload never comes back.
    NeverReleased,
    /// A payload is leaked without need.
    Leaked,
    /// Failed transfers are told as acknowledged.
    FailureHidden,
    /// Kernel stamps are told as brackets that begin too late.
    BracketTooNarrow,
    /// Wall times are a minute off.
    WallWrong,
    /// Acked is dated a little early, and no error is admitted.
    TimeTooEarly,
    /// Stamps are said to be exact, whatever clock they are from.
    ErrorHidden,
    /// A turn that may not wait waits a little.
    WaitsThough,
    /// Everything is told to have been copied.
    MethodHidden,
    /// Connections close without a word.
    ClosedLost,
    /// The end of one direction is not sent.
    FinishIgnored,
    /// The end of one direction is the end of both.
    FinishCloses,
    /// Input is told twice.
    ReceivedTwice,
    /// Some payloads are sent with something else behind them.
    StrayBytes,
}

#[derive(Debug)]
struct Liar {
    honest: Arc<dyn Backend>,
    fault: Fault,
}

impl Backend for Liar {
    fn kind(&self) -> BackendKind {
        self.honest.kind()
    }

    fn report(&self) -> &Report {
        self.honest.report()
    }

    fn driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink>,
    ) -> Result<Box<dyn Driver>, DriverError> {
        let told = Arc::default();
        let lying = Lying { sink, fault: self.fault, seen: 0, told: Arc::clone(&told) };
        let honest = self.honest.driver(config, Box::new(lying))?;
        Ok(Box::new(LyingDriver { honest, told, fault: self.fault, seen: 0 }))
    }

    fn movable_driver(
        &self,
        config: &DriverConfig,
        sink: Box<dyn CompletionSink + Send>,
    ) -> Result<Box<dyn Driver + Send>, DriverError> {
        let told = Arc::default();
        self.honest
            .movable_driver(config, Box::new(Lying { sink, fault: self.fault, seen: 0, told }))
    }
}

struct Lying<S> {
    sink: S,
    fault: Fault,
    seen: u32,
    told: Arc<AtomicUsize>,
}

impl<S: CompletionSink> CompletionSink for Lying<S> {
    fn complete(&mut self, event: Event) {
        match event {
            Event::Transfer(completion) => self.transfer(completion),
            Event::Closed { .. } if matches!(self.fault, Fault::ClosedLost) => {}
            Event::Received { connection, at, .. }
                if matches!(self.fault, Fault::ReceivedTwice) =>
            {
                let end = || lastbyte::Received::End;
                self.pass_on(Event::Received { connection, received: end(), at });
                self.pass_on(Event::Received { connection, received: end(), at });
            }
            other => self.pass_on(other),
        }
    }
}

impl<S: CompletionSink> Lying<S> {
    fn transfer(&mut self, mut completion: Completion) {
        self.seen += 1;
        match (self.fault, &completion.reached) {
            (Fault::AckedTooSoon, Reached::Queued) => {
                let evidence = Evidence::Bracketed { after: Time::default() };
                let soon = Completion { reached: Reached::Acked, evidence, ..copy(&completion) };
                self.tell(completion);
                self.tell(soon);
                return;
            }
            (Fault::AckedTooSoon, Reached::Acked | Reached::Transmitted) => return,
            (Fault::AckedTwice, Reached::Acked) => {
                let again = copy(&completion);
                self.tell(again);
            }
            (Fault::AckedLost, Reached::Acked) if self.seen.is_multiple_of(5) => return,
            (Fault::NeverReleased, Reached::Released(_)) => return,
            (Fault::Leaked, Reached::Released(Memory::Returned(payload))) => {
                let bytes = payload.memory_len();
                completion.reached = Reached::Released(Memory::Leaked { bytes });
            }
            (Fault::FailureHidden, Reached::Failed(_)) => completion.reached = Reached::Acked,
            (Fault::BracketTooNarrow, Reached::Acked) => {
                completion.evidence = Evidence::Bracketed {
                    after: completion.at.monotonic.after(Duration::from_millis(1)),
                };
            }
            (Fault::WallWrong, Reached::Acked) => {
                let wall = completion.at.wall.as_nanos() + 60_000_000_000;
                completion.at.wall = lastbyte::UnixTime::from_nanos(wall);
            }
            (Fault::TimeTooEarly, Reached::Acked) => {
                let early = completion.at.monotonic.as_nanos().saturating_sub(20_000_000);
                completion.at = Moment {
                    monotonic: Time::from_nanos(early),
                    error: Duration::ZERO,
                    ..completion.at
                };
            }
            (Fault::ErrorHidden, _) => completion.at.error = Duration::ZERO,
            (Fault::MethodHidden, _) => completion.method = lastbyte::Method::Copy,
            _ => {}
        }
        self.tell(completion);
    }

    fn tell(&mut self, completion: Completion) {
        self.pass_on(Event::Transfer(completion));
    }

    fn pass_on(&mut self, event: Event) {
        self.told.fetch_add(1, Ordering::SeqCst);
        self.sink.complete(event);
    }
}

/// A driver that covers up for its sink: it counts what that told.
#[derive(Debug)]
struct LyingDriver {
    honest: Box<dyn Driver>,
    told: Arc<AtomicUsize>,
    fault: Fault,
    seen: u32,
}

impl Driver for LyingDriver {
    fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, DriverError> {
        self.told.store(0, Ordering::SeqCst);
        if matches!(self.fault, Fault::WaitsThough) && wait == Some(Duration::ZERO) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let turn = self.honest.turn(wait)?;
        Ok(Turn { delivered: self.told.load(Ordering::SeqCst), ..turn })
    }

    fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, Refused<TcpListener>> {
        self.honest.listen(listener)
    }

    fn unlisten(&mut self, listener: ListenerId) -> Option<TcpListener> {
        self.honest.unlisten(listener)
    }

    fn attach(
        &mut self,
        socket: Socket,
        options: &AttachOptions,
    ) -> Result<Attached, Refused<Socket>> {
        self.honest.attach(socket, options)
    }

    fn submit(
        &mut self,
        connection: ConnectionId,
        payload: Payload,
        watch: Watch,
    ) -> Result<TransferId, Refused<Payload>> {
        self.seen += 1;
        let stray = matches!(self.fault, Fault::StrayBytes) && self.seen.is_multiple_of(5);
        let payload = if stray { payload.with(&b"plaintext"[..]) } else { payload };
        self.honest.submit(connection, payload, watch)
    }

    fn receive(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.honest.receive(connection)
    }

    fn finish(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        match self.fault {
            Fault::FinishIgnored => Ok(()),
            Fault::FinishCloses => self.honest.close(connection, Duration::from_secs(10)),
            _ => self.honest.finish(connection),
        }
    }

    fn close(&mut self, connection: ConnectionId, within: Duration) -> Result<(), RefuseReason> {
        self.honest.close(connection, within)
    }

    fn abort(&mut self, connection: ConnectionId) -> Result<(), RefuseReason> {
        self.honest.abort(connection)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.honest.pollable()
    }

    fn next_turn_by(&self) -> Option<Time> {
        self.honest.next_turn_by()
    }

    fn now(&self) -> Time {
        self.honest.now()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.honest.waker()
    }

    fn counters(&self) -> Counters {
        self.honest.counters()
    }
}

/// The same completion; for stages that carry nothing.
fn copy(of: &Completion) -> Completion {
    Completion {
        reached: match of.reached {
            Reached::Queued => Reached::Queued,
            _ => Reached::Acked,
        },
        ..*of
    }
}

/// Runs `case` on a driver that lies so; says what the case makes of it. Under
/// TLS it is the driver below that lies.
fn verdict(fault: Fault, transport: Transport, case: &str) -> Verdict {
    // Which of several contradictions a lie shows first is a matter of when the
    // driver writes; those below are of one that writes when it is told to.
    let open = |choice| lastbyte_backends::open(choice, &Restrictions::none());
    let Ok(honest) = open(Choice::Only(BackendKind::Epoll))
        .or_else(|_| open(Choice::Only(BackendKind::Fallback)))
    else {
        panic!("the fallback cannot fail");
    };
    let subject = match Subject::new(Arc::new(Liar { honest, fault })).over(transport) {
        Ok(subject) => subject,
        Err(why) => panic!("{why}"),
    };
    let Some(case) = cases().into_iter().find(|known| known.name().starts_with(case)) else {
        panic!("there is no case {case}");
    };
    // A lost event shows as a hang, so this is how long some of these take.
    run_case(&case, &subject, Duration::from_secs(3)).verdict
}

macro_rules! caught {
    ($transport:ident: $($name:ident: $fault:ident by $case:literal: $why:literal,)+) => {
        $(#[test]
        fn $name() {
            let verdict = verdict(Fault::$fault, Transport::$transport, $case);
            let text = verdict.to_string();
            assert!(verdict.is_failure() && text.contains($why), "{}: {text}", $case);
        })+
    };
}

caught! {
    Plain:
    acked_too_soon_is_caught: AckedTooSoon by "C03-no-ack-beyond": "the peer's kernel has",
    acked_too_soon_over_a_link_is_caught: AckedTooSoon by "C03-no-ack-while":
        "no acknowledgement came through",
    acked_twice_is_caught: AckedTwice by "C01-exactly-once-whatever": "acked twice",
    acked_lost_is_caught: AckedLost by "C04-acked-after":
        "acked before a transfer submitted earlier",
    never_released_is_caught: NeverReleased by "C05-reused": "hangs",
    leaked_is_caught: Leaked by "C05-freed": "freed before it was released",
    failure_hidden_is_caught: FailureHidden by "C01-exactly-once-when-aborted": "acked not watched",
    bracket_too_narrow_is_caught: BracketTooNarrow by "C03-acked-over-a-slow": "inside out",
    wall_wrong_is_caught: WallWrong by "C06-wall": "is not between",
    time_too_early_is_caught: TimeTooEarly by "C03-acked-over-a-slow":
        "before the acknowledgement arrived",
    error_hidden_is_caught: ErrorHidden by "C06-error": "without any error",
    waits_though_is_caught: WaitsThough by "C15-a-turn-without": "may not wait takes",
    method_hidden_is_caught: MethodHidden by "C13-memory-zerocopy": "never moved as asked",
    closed_lost_is_caught: ClosedLost by "C12-close-of-an-idle": "hangs",
    finish_ignored_is_caught: FinishIgnored by "C12-finish-ends": "taken behind the end",
    finish_that_closes_is_caught: FinishCloses by "C12-finish-ends": "is closing",
    received_twice_is_caught: ReceivedTwice by "C14-each-receive": "2 events for one receive",
}

caught! {
    UserTls:
    acked_too_soon_under_tls_is_caught: AckedTooSoon by "C03-no-ack-beyond": "the peer's kernel has",
    acked_too_soon_under_tls_is_caught_to_the_record: AckedTooSoon by "C03-exact":
        "the peer's kernel has",
    acked_too_soon_under_tls_over_a_link_is_caught: AckedTooSoon by "C03-no-ack-while":
        "no acknowledgement came through",
    time_too_early_under_tls_is_caught: TimeTooEarly by "C03-acked-over-a-slow":
        "before the acknowledgement arrived",
    acked_lost_under_tls_is_caught: AckedLost by "C04-acked-after":
        "acked before a transfer submitted earlier",
    ciphertext_never_released_is_caught: NeverReleased by "C13-memory-copy": "hangs",
    plaintext_on_the_wire_is_caught: StrayBytes by "C10-every-byte": "a record of version",
}
