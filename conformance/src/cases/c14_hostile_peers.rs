//! C14: a hostile peer costs bounded memory and time, and disturbs nobody else.

use super::{acks_shown, close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::peers::{End, Flooding, Puppet, Stalling, byte_at_a_time, half_closing, reader, reset};
use crate::rig::{PATIENCE, Rig};
use crate::sys::{limits, private_files};
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, BackendKind, DriverConfig, Facility, FailReason, StageEvidence, Watch,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C14-a-stalled-peer-disturbs-nobody",
            "others are served while ten peers do not read",
            stalled_peers,
        )
        .over_each_transport(),
        Case::new(
            "C14-a-stalled-peer-is-looked-at-less-and-less",
            "nobody is kept busy by a peer that acknowledges nothing for long",
            seldom_looked_at,
        )
        .over_each_transport(),
        Case::new(
            "C14-a-stalled-peer-times-out",
            "a peer that acknowledges nothing new is reset, and all comes back",
            stall_timeout,
        )
        .over_each_transport(),
        Case::new(
            "C14-a-slow-peer-does-not-time-out",
            "a peer that makes any progress is left alone, however slow it is",
            |subject| slow_progress(subject, Wire::narrow_sender(), 1, 2_000_000),
        )
        .over_each_transport(),
        Case::new(
            "C14-a-slow-peer-does-not-time-out-within-a-call",
            "the same while all that it takes was handed over in one call",
            // With a send buffer that holds all of it.
            |subject| slow_progress(subject, Wire::default(), 1, 2_000_000),
        )
        .over_each_transport(),
        Case::new(
            "C14-a-slow-peer-does-not-time-out-between-transfers",
            "the same with many transfers, each acknowledged by itself",
            |subject| slow_progress(subject, Wire::narrow_sender(), 500, 4000),
        )
        .over_each_transport(),
        Case::new(
            "C14-a-flood-is-not-read-unasked",
            "input that nobody asked for stays in the kernel, and the peer is slowed down",
            flood,
        )
        .over_each_transport(),
        Case::new(
            "C14-input-received-ahead-is-bounded",
            "many floods that nobody reads cost one bounded amount together, disturb nobody, and \
             are all there when asked for",
            many_floods,
        ),
        Case::new(
            "C14-each-receive-yields-one-event",
            "input comes when asked for, bounded, and to the last byte",
            one_receive_one_event,
        )
        .over_each_transport(),
        Case::new(
            "C14-peers-that-reset-at-any-point",
            "a hundred resets at different points end their own connection only",
            resets,
        )
        .over_each_transport(),
        Case::new(
            "C14-a-peer-that-half-closes-is-served",
            "a FIN from the peer ends its input and nothing else",
            half_close,
        )
        .over_each_transport(),
        Case::new(
            "C14-a-peer-that-reads-single-bytes",
            "a tiny window, read byte by byte, costs patience only",
            single_bytes,
        )
        .over_each_transport(),
        Case::new(
            "C14-peers-that-leave-before-they-are-accepted",
            "connections that are gone already disturb neither accepting nor attaching",
            leave_early,
        ),
        Case::new(
            "C14-no-descriptors-pause-accepting",
            "running out of descriptors pauses accepting, and it goes on by itself",
            no_descriptors,
        ),
        Case::new(
            "C14-a-file-that-shrinks-fails-its-transfer",
            "a file shorter than promised ends its transfer with the reason",
            file_shrinks,
        )
        .over_each_transport(),
    ]
}

fn stalled_peers(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
        rig.send(connection, 2_000_000, Watch::ALL)?;
        stalled.push((connection, Stalling::after(peer, 100)?));
    }
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..20 {
        let transfer = rig.send(connection, 100_000, Watch::ALL)?;
        rig.until("the transfer of a good peer", |record| {
            record.told(connection, transfer).is_over()
        })?;
    }
    close_and_compare(&mut rig, connection, peer)?;
    for (connection, _) in &stalled {
        rig.driver().abort(*connection)?;
    }
    rig.settle()?;
    for (_, peer) in stalled {
        peer.join()?.expect_intact()?;
    }
    expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

fn seldom_looked_at(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let wire = Wire { peer_window: Some(32 << 10), send_buffer: Some(200_000), ..Wire::default() };
    let (connection, peer) = rig.connect(subject, wire)?;
    let mut puppet = Puppet::new(peer)?;
    // The kernel takes it all, so that nothing but the acknowledgement is waited for.
    let transfer = rig.send(connection, 100_000, Watch::QUEUED | Watch::ACKED)?;
    rig.until("all to be queued", |record| record.told(connection, transfer).queued.is_some())?;
    rig.linger(Duration::from_secs(1))?;
    ensure!(puppet.held()? < 100_000, "everything fits the window, so nothing is shown");
    let until = Instant::now() + Duration::from_millis(500);
    let mut turns = 0;
    while Instant::now() < until {
        rig.turn(Duration::from_millis(100))?;
        turns += 1;
    }
    // At an eighth of a second's standstill, or at the ends of the waits.
    ensure!(turns <= 40, "{turns} turns in half a second for a peer that does nothing");
    rig.until_outside("the peer to read it all", |_| {
        puppet.read(8000).is_ok() && puppet.seen.stream.received() == 100_000
    })?;
    rig.settle()?;
    Ok(acks_shown(&rig, connection))
}

fn patience(stall: Duration) -> AttachOptions {
    let mut options = AttachOptions::default();
    options.stall_timeout = Some(stall);
    options
}

fn stall_timeout(subject: &Subject) -> Result<Proof, Failure> {
    let stall = Duration::from_millis(200);
    let mut rig = Rig::eager(subject)?;
    let pair = Wire::narrow_sender().pair(subject)?;
    let (connection, peer) = rig.join(subject, pair, &patience(stall))?;
    let stalling = Stalling::after(peer, 0)?;
    rig.send(connection, 5_000_000, Watch::ALL)?;
    if rig.record.line(connection).support.acked == StageEvidence::Unavailable {
        rig.driver().abort(connection)?;
        rig.settle()?;
        stalling.join()?;
        return Ok(acks_shown(&rig, connection));
    }
    let began = Instant::now();
    rig.until("the stalled connection to be reset", |record| record.is_closed(connection))?;
    rig.settle()?;
    ensure!(began.elapsed() >= stall / 2, "given up after {:?}", began.elapsed());
    let failed = rig.record.transfers().find_map(|told| told.failed.clone());
    let reason = failed.map(|failure| failure.reason);
    ensure!(reason == Some(FailReason::Timeout), "failed with {reason:?}");
    let seen = stalling.join()?;
    ensure!(seen.end == End::Reset, "the peer saw {:?}", seen.end);
    seen.expect_intact()?;
    expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

/// How often a machine may be too busy to be slow in time.
const BUSY: usize = 3;

fn slow_progress(
    subject: &Subject,
    wire: Wire,
    transfers: usize,
    len: usize,
) -> Result<Proof, Failure> {
    for _ in 0..BUSY {
        if let Some(proof) = progress_slowly(subject, wire, transfers, len)? {
            return Ok(proof);
        }
    }
    Err(Failure::new("this machine is too busy for a peer to make any progress in time"))
}

/// `None` if it was given up, but the peer had got nothing for a while either.
fn progress_slowly(
    subject: &Subject,
    wire: Wire,
    transfers: usize,
    len: usize,
) -> Result<Option<Proof>, Failure> {
    let stall = Duration::from_millis(600);
    let mut rig = Rig::new(subject)?;
    let wire = Wire { peer_window: Some(32 << 10), ..wire };
    let pair = wire.pair(subject)?;
    let (connection, peer) = rig.join(subject, pair, &patience(stall))?;
    let mut puppet = Puppet::new(peer)?;
    for _ in 0..transfers {
        rig.send(connection, len, Watch::ALL)?;
    }
    let end = rig.position(connection);
    // Progress in each quarter of the time allowed, for longer than is allowed.
    let slow = Instant::now() + stall * 2;
    let (mut last, mut pause) = (Instant::now(), Duration::ZERO);
    let failed = loop {
        let got = puppet.read(32 << 10)?;
        pause = pause.max(last.elapsed());
        if got > 0 {
            last = Instant::now();
        }
        rig.linger(stall / 16)?;
        // Behind a reset nothing comes, however idle the machine is.
        let failed = rig.record.transfers().find_map(|told| told.failed.clone());
        if failed.is_some() || Instant::now() >= slow {
            pause = pause.max(last.elapsed());
            break failed;
        }
    };
    if failed.is_some() && pause > stall / 2 {
        return Ok(None);
    }
    ensure!(failed.is_none(), "given up in spite of progress: {failed:?}");
    rig.until_outside("the rest", |record| {
        puppet.read(64 << 10).is_ok() && puppet.seen.stream.received() >= end && record.is_settled()
    })?;
    rig.settle()?;
    puppet.seen.expect(end, End::Left)?;
    Ok(Some(Proof::full()))
}

fn flood(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let flood = Flooding::start(peer)?;
    let mut before = 0;
    let mut still = 0;
    rig.until_outside("the flood to be stopped by TCP", |_| {
        still = if flood.written() == before { still + 1 } else { 0 };
        before = flood.written();
        before > 0 && still > 30
    })?;
    ensure!(rig.record.line(connection).inputs == 0, "read without being asked to");
    // Idle, though input is waiting: a turn must not spin.
    rig.expect_calm()?;
    rig.driver().abort(connection)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    flood.join()?;
    Ok(Proof::full())
}

fn many_floods(subject: &Subject) -> Result<Proof, Failure> {
    const FLOODS: usize = 24;
    const EACH: usize = 60_000;
    let mut config = DriverConfig::default();
    (config.receive_buffer, config.receive_ahead) = (2048, 32 << 10);
    let mut rig = Rig::configured(subject, &config)?;
    let mut floods = Vec::new();
    for _ in 0..FLOODS {
        let (connection, peer) = rig.connect(subject, Wire::default())?;
        peer.socket().set_nonblocking(true)?;
        // Once, and never again until all is there.
        rig.driver().receive(connection)?;
        floods.push((connection, peer, 0));
    }
    let input = pattern::bytes(0, EACH);
    let mut most = 0;
    let mut pour = |rig: &mut Rig| -> Result<(), Failure> {
        for (_, peer, written) in &mut floods {
            // In pieces, so that each costs a buffer.
            let piece = &input[*written..EACH.min(*written + 500)];
            if !piece.is_empty() {
                match peer.write(piece) {
                    Ok(n) => *written += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        rig.turn(Duration::ZERO)?;
        let ahead = rig.driver().counters().received_ahead_bytes;
        most = ahead.max(most);
        ensure!(ahead <= config.receive_ahead, "{ahead} bytes were received ahead");
        Ok(())
    };
    for _ in 0..40 {
        pour(&mut rig)?;
    }
    // Somebody else is served all the same.
    let (good, mut good_peer) = rig.connect(subject, Wire::default())?;
    rig.driver().receive(good)?;
    good_peer.write_all(b"?")?;
    rig.until("others' input", |record| record.line(good).inputs == 1)?;
    let good_peer = reader(good_peer)?;
    rig.send(good, 100_000, Watch::ACKED)?;
    rig.settle()?;
    close_and_compare(&mut rig, good, good_peer)?;
    // What nobody asked for is there when somebody does.
    for _ in 0..2 * EACH / 500 {
        pour(&mut rig)?;
    }
    for (connection, mut peer, written) in floods {
        peer.socket().set_nonblocking(false)?;
        let (rest, after) = (input[written..].to_vec(), peer.socket().try_clone()?);
        let writer = std::thread::spawn(move || {
            peer.write_all(&rest)?;
            peer.end()
        });
        while !rig.record.line(connection).ended {
            let inputs = rig.record.line(connection).inputs;
            rig.driver().receive(connection)?;
            rig.until("the input", |record| record.line(connection).inputs > inputs)?;
        }
        writer.join().map_err(|_| Failure::new("the peer panicked"))??;
        let got = &rig.record.line(connection).input;
        ensure!(*got == input, "of {EACH} bytes {} came, or others", got.len());
        drop(after);
    }
    let left = rig.driver().counters().received_ahead_bytes;
    ensure!(left == 0, "{left} bytes are said to be received ahead after the end");
    let receives_ahead = subject.backend().kind() == BackendKind::IoUring
        && subject.lacks(Facility::UringReceive).is_none();
    ensure!(!receives_ahead || most > 0, "nothing was received ahead");
    Ok(Proof::noting(format!("at most {most} of {} bytes ahead", config.receive_ahead)))
}

fn one_receive_one_event(subject: &Subject) -> Result<Proof, Failure> {
    const TOTAL: usize = 300_000;
    let mut config = DriverConfig::default();
    config.receive_buffer = 10_000;
    let mut rig = Rig::configured(subject, &config)?;
    let (connection, mut peer) = rig.connect(subject, Wire::default())?;
    let writer = std::thread::spawn(move || {
        peer.write_all(&crate::pattern::bytes(0, TOTAL))?;
        peer.end()?;
        Ok::<_, std::io::Error>(peer)
    });
    let mut received = 0;
    while !rig.record.line(connection).ended {
        let (inputs, len) = {
            let line = rig.record.line(connection);
            (line.inputs, line.input.len())
        };
        // Twice is as good as once.
        rig.driver().receive(connection)?;
        rig.driver().receive(connection)?;
        rig.until("input", |record| record.line(connection).inputs > inputs)?;
        let line = rig.record.line(connection);
        ensure!(line.inputs == inputs + 1, "{} events for one receive", line.inputs - inputs);
        let got = line.input.len() - len;
        ensure!(got <= 10_000, "{got} bytes in a buffer of 10000");
        received += got;
    }
    ensure!(received == TOTAL, "{received} of {TOTAL} bytes were received");
    let intact = rig.record.line(connection).input == crate::pattern::bytes(0, TOTAL);
    ensure!(intact, "the input was changed");
    let peer = writer.join().map_err(|_| Failure::new("the peer panicked"))??;
    let peer = reader(peer)?;
    rig.send(connection, 1000, Watch::ACKED)?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn resets(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (good, good_peer) = rig.connect(subject, Wire::default())?;
    let good_peer = reader(good_peer)?;
    for n in 0..100_usize {
        let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
        let mut puppet = Puppet::new(peer)?;
        for _ in 0..n % 4 {
            rig.send(connection, n * 3000 + 1, Watch::ALL)?;
        }
        if n % 3 == 0 {
            rig.driver().receive(connection)?;
        }
        if n % 2 == 0 {
            rig.turn(Duration::ZERO)?;
        }
        puppet.read(n * 1000)?;
        puppet.seen.expect_intact()?;
        if n % 5 == 0 {
            rig.driver().close(connection, PATIENCE)?;
        }
        reset(puppet.into_far_end())?;
        if n % 7 == 0 {
            // The user has not heard of the reset yet.
            let bytes = vec![0; 100];
            drop(rig.submit(connection, bytes.into(), Watch::ALL, None));
        }
        rig.send(good, 500, Watch::ALL)?;
    }
    rig.settle()?;
    rig.until("all but one connection to close", |record| {
        record.lines().filter(|(_, line)| line.closed.is_none()).count() == 1
    })?;
    close_and_compare(&mut rig, good, good_peer)?;
    expect_nothing_held(&mut rig)?;
    Ok(Proof::full())
}

fn half_close(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
    let peer = half_closing(peer, b"")?;
    // Sent without ever asking for input, so the FIN lies unread.
    for _ in 0..10 {
        rig.send(connection, 200_000, Watch::ALL)?;
        rig.settle()?;
    }
    rig.driver().receive(connection)?;
    rig.until("the peer's end", |record| record.line(connection).ended)?;
    rig.send(connection, 1000, Watch::ALL)?;
    rig.settle()?;
    // A half-closed peer must not make a turn spin.
    rig.expect_calm()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn single_bytes(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::narrow())?;
    let peer = byte_at_a_time(peer)?;
    for len in [1, 5000, 1, 5000] {
        rig.send(connection, len, Watch::ALL)?;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn leave_early(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    rig.driver().listen(listener)?;
    for n in 0..20 {
        let peer = TcpStream::connect(address)?;
        if n % 2 == 0 {
            reset(peer)?;
        }
    }
    let mut last = TcpStream::connect(address)?;
    last.set_read_timeout(Some(PATIENCE))?;
    // Any number of those that are gone may or may not show.
    let deadline = Instant::now() + PATIENCE;
    let here = last.local_addr()?;
    loop {
        ensure!(Instant::now() < deadline, "the one good connection is not accepted");
        rig.turn(Duration::from_millis(20))?;
        while let Some((_, socket)) = rig.record.accepted.pop_front() {
            let good = socket.peer() == Some(here);
            match rig.attach(socket, &AttachOptions::default()) {
                Ok(connection) => {
                    rig.send(connection, 1000, Watch::ALL)?;
                }
                Err(failure) if good => return Err(failure),
                Err(_) => {}
            }
        }
        let good_is_served = rig.record.transfers().any(|told| told.acked.is_some());
        if good_is_served && rig.record.is_settled() {
            break;
        }
    }
    let mut got = vec![0; 1000];
    last.read_exact(&mut got)?;
    ensure!(got == crate::pattern::bytes(0, 1000), "wrong bytes");
    Ok(Proof::full())
}

fn no_descriptors(subject: &Subject) -> Result<Proof, Failure> {
    if let Err(error) = private_files::start_over() {
        leave_early(subject)?;
        let lack = Lack::refused("a descriptor table of a thread's own", &error);
        return Ok(Proof::substitute(lack, "accepting among peers that leave"));
    }
    let mut rig = Rig::new(subject)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    rig.driver().listen(listener)?;
    let (connection, old_peer) = rig.connect(subject, Wire::default())?;
    let old_peer = reader(old_peer)?;
    let waiting = TcpStream::connect(address)?;
    limits::bound_descriptors()?;
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    rig.until("the pause", |record| !record.accept_pauses.is_empty())?;
    let errno = rig.record.accept_pauses[0];
    ensure!([libc::EMFILE, libc::ENFILE].contains(&errno), "paused with errno {errno}");
    // The others are served meanwhile, and the listener does not spin.
    rig.expect_calm()?;
    rig.send(connection, 50_000, Watch::ALL)?;
    rig.settle()?;
    ensure!(rig.record.accepted.is_empty(), "accepted without a descriptor");
    // With the last descriptor given to the last who waited, nothing is paused.
    hoard.pop();
    rig.until("accepting to go on", |record| !record.accepted.is_empty())?;
    let pauses = rig.record.accept_pauses.len();
    rig.linger(Duration::from_millis(150))?;
    ensure!(rig.record.accept_pauses.len() == pauses, "paused though nobody connects");
    hoard.clear();
    let another = TcpStream::connect(address)?;
    rig.until("another", |record| record.accepted.len() == 2)?;
    drop(another);
    close_and_compare(&mut rig, connection, old_peer)?;
    drop(waiting);
    Ok(Proof::full())
}

fn file_shrinks(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    for before in [false, true] {
        let (connection, peer) = rig.connect(subject, Wire::narrow_sender())?;
        let mut file = tempfile::tempfile()?;
        file.write_all(&crate::pattern::bytes(0, 3_000_000))?;
        let shrink = file.try_clone()?;
        if before {
            shrink.set_len(0)?;
        }
        let mut puppet = Puppet::new(peer)?;
        let range = lastbyte::FileRange::new(std::sync::Arc::new(file), 0, 3_000_000);
        let transfer = rig.submit(connection, range.into(), Watch::ALL, None)?;
        puppet.read(1000)?;
        shrink.set_len(0)?;
        let deadline = Instant::now() + PATIENCE;
        while rig.record.told(connection, transfer).failed.is_none() {
            ensure!(Instant::now() < deadline, "sending from an empty file goes on for ever");
            puppet.read(64 << 10)?;
            rig.turn(Duration::from_millis(1))?;
        }
        let failure = rig.record.told(connection, transfer).failed.clone();
        let reason = failure.map(|failure| failure.reason);
        ensure!(
            matches!(reason, Some(FailReason::FileTruncated { missing }) if missing > 0),
            "failed with {reason:?}"
        );
        drop(puppet);
        rig.until("the connection to close", |record| record.is_closed(connection))?;
        rig.settle()?;
    }
    Ok(Proof::full())
}
