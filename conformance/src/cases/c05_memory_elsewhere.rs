//! C5 and C9 on a path that does not copy: to another machine, where memory
//! that was lent to the kernel is read when the device sends it, and not before.

use super::{close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::pattern;
use crate::peers::reader;
use crate::remote::{Account, Stream};
use crate::rig::Rig;
use crate::sys::shared_memory::SharedMemory;
use crate::sys::tcp;
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use bytes::Bytes;
use lastbyte::{AttachOptions, ConnectionId, Facility, Method, Pool, Socket, Watch};
use socket2::SockRef;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Two segments. A device that cannot gather gets longer payloads segmented by
/// the kernel, and a segment that is then left alone is copied
/// (net/core/dev.c, `validate_xmit_skb`), which is said of the whole payload.
const SHORT: usize = 2500;
/// What applications send.
const LONG: usize = 64 << 10;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C09-zero-copy-is-real-on-a-path-that-does-not-copy",
            "sent to another machine, payloads go by ZeroCopy and not by ZeroCopyRefused",
            |subject| with_peer(subject, |subject, peer| is_real(subject, peer, false)),
        ),
        Case::new(
            "C09-registered-memory-goes-without-a-copy",
            "the same out of memory that is registered where that can be had",
            |subject| with_peer(subject, |subject, peer| is_real(subject, peer, true)),
        ),
        Case::new(
            "C05-memory-in-flight-is-the-kernels-until-released",
            "what waits for a stalled machine is read from the payload's own memory when it \
             goes out, and Released comes after that",
            |subject| with_peer(subject, in_flight),
        ),
    ]
}

fn with_peer(
    subject: &Subject,
    prove: fn(&Subject, SocketAddr) -> Result<Proof, Failure>,
) -> Result<Proof, Failure> {
    if let Some(peer) = subject.remote_peer() {
        return prove(subject, peer);
    }
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..10 {
        rig.send(connection, LONG, Watch::ALL)?;
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    expect_nothing_held(&mut rig)?;
    let lack = Lack::of("another machine (--peer)");
    Ok(Proof::substitute(lack, "over loopback, which copies, memory comes back after Released"))
}

fn is_real(subject: &Subject, peer: SocketAddr, registered: bool) -> Result<Proof, Failure> {
    let (socket, stream) = Stream::open(peer, false)?;
    let mut rig = Rig::eager(subject)?;
    // Where it cannot be registered, a buffer of it is pinned when it is sent.
    let pool = Pool::contiguous(LONG, 1);
    let registered = registered && rig.driver().register(&pool).is_ok();
    // Only the hello was written, and that was copied.
    let connection = rig.attach(Socket::from(socket).unlent(), &AttachOptions::default())?;
    let mut methods = Vec::new();
    for len in [[SHORT; 20], [LONG; 20]].concat() {
        let transfer = if registered {
            let mut buffer = pool.take();
            buffer.fill_from(&pattern::bytes(rig.position(connection), len));
            rig.submit(connection, buffer.into(), Watch::ALL, None)?
        } else {
            rig.send(connection, len, Watch::ALL)?
        };
        rig.settle()?;
        methods.extend(rig.record.told(connection, transfer).released.map(|r| r.method));
    }
    expect_nothing_held(&mut rig)?;
    let sent = rig.driver().counters().sent_registered_bytes;
    ensure!(registered == (sent > 0), "{sent} bytes were sent out of registered memory");
    let account = finish(&mut rig, connection, stream)?;
    ensure!(account.inverted + account.wrong == 0, "the peer got {account:?}");
    if let Some(lack) = subject.lacks(Facility::ZeroCopy).or_else(|| super::no_room(&mut rig)) {
        ensure!(!methods.contains(&Method::ZeroCopy), "by {methods:?} without zero copy");
        return Ok(Proof::substitute(lack, "every payload was copied, and says so"));
    }
    let real = methods.iter().filter(|method| **method == Method::ZeroCopy).count();
    if real == 0 {
        ensure!(methods[0] == Method::ZeroCopyRefused, "zero copy was not tried: {methods:?}");
        return Ok(Proof::substitute(
            Lack::of("a path that does not copy: the kernel copied all that went to the peer"),
            "each payload says that zero copy was refused, or that it was not tried any more",
        ));
    }
    let out_of = if registered { " out of registered memory" } else { "" };
    Ok(Proof::noting(format!("{real} of {} without a copy{out_of}", methods.len())))
}

fn in_flight(subject: &Subject, peer: SocketAddr) -> Result<Proof, Failure> {
    /// How it goes out depends on what goes before it, see [`SHORT`].
    const TRIES: usize = 10;
    let mut late = 0;
    for tried in 1..=TRIES {
        let Some((mut rig, method, inverted)) = overwrite_in_flight(subject, peer, tried)? else {
            continue;
        };
        if let Some(lack) = subject.lacks(Facility::ZeroCopy).or_else(|| super::no_room(&mut rig)) {
            ensure!(inverted == 0, "{inverted} bytes came from memory that was released");
            return Ok(Proof::substitute(
                lack,
                "copied: overwritten after Released, nothing shows",
            ));
        }
        ensure!(inverted > 0, "what was lent to the kernel had been copied at once");
        match method {
            Method::ZeroCopy => {
                return Ok(Proof::noting(format!(
                    "{inverted} bytes overwritten in flight arrived so, without a copy, at try \
                     {tried}"
                )));
            }
            Method::ZeroCopyRefused => late += 1,
            other => return Err(Failure::new(format!("read in flight, but sent by {other:?}"))),
        }
    }
    ensure!(late > 0, "the peer's window never stays shut");
    Ok(Proof::substitute(
        Lack::of("a path that does not copy: the kernel copied late"),
        format!("{late} payloads overwritten in flight arrived so, and Released came after"),
    ))
}

/// Sends a payload to a machine that does not read, overwrites it, and lets the
/// machine read: how the payload went, and how many bytes of what it was
/// overwritten with arrived. `None` if it had been sent before.
fn overwrite_in_flight(
    subject: &Subject,
    peer: SocketAddr,
    segments: usize,
) -> Result<Option<(Rig, Method, u64)>, Failure> {
    let (socket, stream) = Stream::open(peer, true)?;
    let queue = Queue::of(&socket)?;
    let filled = fill(&socket, &queue, segments)?;
    let mut rig = Rig::eager(subject)?;
    let mut patience = AttachOptions::default();
    patience.stall_timeout = None;
    let connection = rig.attach(Socket::from(socket).unlent(), &patience)?;
    rig.set_position(connection, filled);
    let memory = SharedMemory::new(&pattern::bytes(filled, SHORT))?;
    let payload = Bytes::from_owner(memory.clone());
    let transfer = rig.submit(connection, payload.into(), Watch::ALL, None)?;
    rig.until("the payload to be queued", |record| {
        record.told(connection, transfer).queued.is_some()
    })?;
    rig.linger(Duration::from_millis(100))?;
    let inverted: Vec<_> = memory.as_ref().iter().map(|byte| !byte).collect();
    memory.overwrite(&inverted)?;
    // Not even sent now: so it was not when it was overwritten.
    let was_in_flight = queue.unsent()? >= SHORT as u64;
    // Nobody else keeps the connection from ending.
    drop(queue);
    stream.go()?;
    rig.settle()?;
    expect_nothing_held(&mut rig)?;
    let Some(released) = rig.record.told(connection, transfer).released else {
        return Err(Failure::new("not released"));
    };
    let account = finish(&mut rig, connection, stream)?;
    ensure!(account.wrong == 0, "the peer got {} bytes from nowhere", account.wrong);
    Ok(was_in_flight.then_some((rig, released.method, account.inverted)))
}

/// Writes the pattern until the peer's window is shut and some more segments
/// wait, and leaves room in the send buffer; returns how much that took.
fn fill(socket: &TcpStream, queue: &Queue, segments: usize) -> Result<u64, Failure> {
    /// More than all buffers on the way to a machine that does not read.
    const MOST: u64 = 64 << 20;
    const STEP: usize = 32 << 10;
    SockRef::from(socket).set_send_buffer_size(512 << 10)?;
    let mut socket = socket;
    let mut filled = 0;
    let mut write = |bytes: usize| -> Result<u64, Failure> {
        ensure!(filled < MOST, "the peer does not stall: it took {filled} bytes");
        socket.write_all(&pattern::bytes(filled, bytes))?;
        filled += bytes as u64;
        Ok(filled)
    };
    loop {
        while queue.unsent()? == 0 {
            write(STEP)?;
        }
        // It may only be slow.
        std::thread::sleep(Duration::from_millis(100));
        if queue.unsent()? > 0 {
            return write(segments * 1460);
        }
    }
}

/// Ends the stream; the other machine says what it got, which has to be all.
fn finish(rig: &mut Rig, connection: ConnectionId, stream: Stream) -> Result<Account, Failure> {
    let len = rig.position(connection);
    rig.close(connection)?;
    super::expect_graceful(rig, connection)?;
    let account = stream.account()?;
    ensure!(account.finished && account.received == len, "of {len} bytes the peer got {account:?}");
    Ok(account)
}

/// The kernel's queue of a connection, asked past the backend.
#[derive(Debug)]
struct Queue {
    socket: TcpStream,
}

impl Queue {
    fn of(socket: &TcpStream) -> Result<Self, Failure> {
        Ok(Self { socket: socket.try_clone()? })
    }

    /// Bytes that it has not even sent.
    fn unsent(&self) -> Result<u64, Failure> {
        Ok(tcp::unsent(&self.socket)?)
    }
}
