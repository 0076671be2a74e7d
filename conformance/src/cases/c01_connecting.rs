//! C1 for connections that are used before they are made.

use super::{expect_graceful, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::peers::{End, answering};
use crate::rig::Rig;
use crate::{Case, Proof, Subject, tls};
use lastbyte::{
    AttachOptions, CloseOutcome, ConnectionId, Evidence, FailReason, StageEvidence, TlsRole,
    Transport, Watch,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C01-submitted-while-connecting",
            "what is submitted before there is a connection is sent when there is one",
            submitted_before,
        )
        .over_each_transport(),
        Case::new(
            "C01-connected-at-once",
            "a connection that was made before it was attached says so all the same",
            at_once,
        )
        .over_each_transport(),
        Case::new(
            "C01-refused-while-connecting",
            "a connection that is refused fails what was submitted, and says by what",
            refused,
        )
        .over_each_transport(),
        Case::new(
            "C01-given-up-while-connecting",
            "one that does not come about is over at its deadline, when closed, and when aborted",
            given_up,
        )
        .over_each_transport(),
    ]
}

/// A listener that takes nobody: whoever connects is not answered, and asks again
/// after a second (`include/net/tcp.h`, `TCP_TIMEOUT_INIT`).
#[derive(Debug)]
struct Full {
    listener: TcpListener,
    /// Waits to be accepted, and nobody else can.
    first: TcpStream,
}

impl Full {
    fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        // One connection more than it says may wait (`sk_acceptq_is_full`).
        socket.listen(0)?;
        let listener = TcpListener::from(socket);
        let first = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self { listener, first })
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Makes room, and waits for the one who connects.
    fn accept(self) -> io::Result<TcpStream> {
        drop(self.first);
        drop(self.listener.accept()?);
        Ok(self.listener.accept()?.0)
    }
}

/// Attaches a socket that begins to connect to `address`.
fn connect(
    rig: &mut Rig,
    subject: &Subject,
    address: SocketAddr,
    options: &AttachOptions,
) -> Result<ConnectionId, Failure> {
    let socket = lastbyte_backends::connect(address)?;
    match subject.transport() {
        Transport::Plain => rig.attach(socket, options),
        _ => {
            let role = TlsRole::Client { server_name: "localhost".to_owned() };
            rig.attach_as(socket, options, &role)
        }
    }
}

/// What the peer speaks, once `accept` has it.
fn far_end(
    rig: &mut Rig,
    subject: &Subject,
    accept: impl FnOnce() -> io::Result<TcpStream> + Send + 'static,
) -> Result<FarEnd, Failure> {
    let server = match subject.transport() {
        Transport::Plain => None,
        _ => Some(tls::server()?),
    };
    let accepting = std::thread::spawn(move || {
        let stream = accept()?;
        let Some(server) = server else { return Ok(stream.into()) };
        let mut far = FarEnd::tls(stream, server);
        far.begin()?;
        Ok::<_, io::Error>(far)
    });
    rig.until_outside("the peer to be connected", |_| accepting.is_finished())?;
    Ok(accepting.join().map_err(|_| Failure::new("the peer panicked"))??)
}

fn submitted_before(subject: &Subject) -> Result<Proof, Failure> {
    let full = Full::new()?;
    let mut rig = Rig::eager(subject)?;
    let connection = connect(&mut rig, subject, full.address()?, &AttachOptions::default())?;
    rig.driver().receive(connection)?;
    for len in [1, 300_000, 20_000] {
        rig.send(connection, len, Watch::ALL)?;
    }
    rig.driver().finish(connection)?;
    rig.linger(Duration::from_millis(50))?;
    let early = rig.record.transfers().filter(|told| told.queued.is_some()).count();
    ensure!(early == 0, "{early} transfers are queued without a connection");
    ensure!(!rig.record.line(connection).connected, "connected to nobody");
    rig.expect_calm()?;
    let far = far_end(&mut rig, subject, || full.accept())?;
    let peer = answering(far, b"welcome".to_vec())?;
    rig.settle()?;
    rig.until("the answer", |record| record.line(connection).inputs > 0)?;
    let line = rig.record.line(connection);
    ensure!(line.connected, "nobody said that it is connected");
    ensure!(line.input == b"welcome", "another answer came: {} bytes", line.input.len());
    if line.support.acked == StageEvidence::Kernel {
        let stamped = rig.record.transfers().filter_map(|told| told.acked);
        let stamped = stamped.filter(|acked| acked.evidence == Evidence::Kernel).count();
        ensure!(stamped > 0, "none of the stamps that were announced came");
    }
    peer.join()?.expect(rig.position(connection), End::Finished)?;
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

fn at_once(subject: &Subject) -> Result<Proof, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut rig = Rig::new(subject)?;
    let options = AttachOptions::default();
    let connection = connect(&mut rig, subject, listener.local_addr()?, &options)?;
    rig.send(connection, 100_000, Watch::ALL)?;
    let far = far_end(&mut rig, subject, move || Ok(listener.accept()?.0))?;
    let peer = crate::peers::reader(far)?;
    rig.settle()?;
    ensure!(rig.record.line(connection).connected, "nobody said that it is connected");
    super::close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn refused(subject: &Subject) -> Result<Proof, Failure> {
    let full = Full::new()?;
    let mut rig = Rig::new(subject)?;
    let connection = connect(&mut rig, subject, full.address()?, &AttachOptions::default())?;
    rig.driver().receive(connection)?;
    rig.send(connection, 50_000, Watch::ALL)?;
    rig.send(connection, 1, Watch::NONE)?;
    rig.linger(Duration::from_millis(20))?;
    // Whoever asks again finds nobody.
    drop(full);
    rig.until("the refusal", |record| record.is_closed(connection))?;
    rig.settle()?;
    let refusal = FailReason::System { doing: "connect", errno: libc::ECONNREFUSED };
    expect_failed(&rig, connection, refusal)?;
    expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

fn given_up(subject: &Subject) -> Result<Proof, Failure> {
    let full = Full::new()?;
    let address = full.address()?;
    let mut rig = Rig::new(subject)?;
    let mut options = AttachOptions::default();
    sent_late(&mut rig, subject, address)?;
    // With nothing to send and with something.
    for len in [0, 1000] {
        options.stall_timeout = Some(Duration::from_millis(200));
        let stalled = connect(&mut rig, subject, address, &options)?;
        options.stall_timeout = None;
        let closed = connect(&mut rig, subject, address, &options)?;
        let aborted = connect(&mut rig, subject, address, &options)?;
        for connection in [stalled, closed, aborted] {
            if len > 0 {
                rig.send(connection, len, Watch::ACKED)?;
            }
        }
        rig.linger(Duration::from_millis(20))?;
        rig.driver().close(closed, Duration::from_millis(100))?;
        rig.driver().abort(aborted)?;
        for connection in [aborted, closed, stalled] {
            rig.until("it to be given up", |record| record.is_closed(connection))?;
        }
        rig.settle()?;
        expect_failed(&rig, stalled, FailReason::Timeout)?;
        expect_failed(&rig, aborted, FailReason::Cancelled)?;
        let outcome = rig.record.line(closed).closed.clone();
        // Under TLS nothing was promised to the peer that a close would have to keep.
        let over = Some(CloseOutcome::Failed(FailReason::Timeout));
        ensure!(outcome == over, "closed before it was connected: {outcome:?}");
    }
    // And with the driver.
    options.stall_timeout = None;
    let connection = connect(&mut rig, subject, address, &options)?;
    rig.send(connection, 1000, Watch::ALL)?;
    rig.drop_driver()?;
    expect_failed(&rig, connection, FailReason::Closed)?;
    Ok(Proof::full())
}

/// What is submitted later does not make the wait for the connection longer.
fn sent_late(rig: &mut Rig, subject: &Subject, address: SocketAddr) -> Result<(), Failure> {
    let mut options = AttachOptions::default();
    options.stall_timeout = Some(Duration::from_millis(600));
    let late = connect(rig, subject, address, &options)?;
    rig.linger(Duration::from_millis(400))?;
    // Whatever the clock says, this one's time is over later.
    let other = connect(rig, subject, address, &options)?;
    if !rig.record.is_closed(late) {
        rig.send(late, 1000, Watch::ACKED)?;
    }
    rig.until("one to be given up", |record| record.is_closed(late) || record.is_closed(other))?;
    ensure!(rig.record.is_closed(late), "what was sent late made the wait longer");
    rig.until("the other to be given up", |record| record.is_closed(other))
}

fn expect_failed(rig: &Rig, connection: ConnectionId, why: FailReason) -> Result<(), Failure> {
    let line = rig.record.line(connection);
    let closed = line.closed.clone();
    ensure!(closed == Some(CloseOutcome::Failed(why)), "closed as {closed:?}");
    ensure!(!line.connected, "connected to nobody");
    let failed = line.transfers.iter().filter(|told| told.failed.is_some()).count();
    let watched = line.transfers.iter().filter(|told| told.watch != Watch::NONE).count();
    ensure!(failed >= watched, "{failed} of {watched} transfers failed");
    Ok(())
}
