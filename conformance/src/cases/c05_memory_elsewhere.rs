//! C5 and C9 on a path that does not copy: to another machine, where memory
//! that was lent to the kernel is read when the device sends it, and not before.

use super::{close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::pattern;
use crate::peers::reader;
use crate::remote::{Account, Stream};
use crate::rig::{PATIENCE, Rig};
use crate::sys::shared_memory::SharedMemory;
use crate::sys::tcp;
use crate::wire::Wire;
use crate::witness::Witness;
use crate::{Case, Lack, Proof, Subject};
use bytes::Bytes;
use lastbyte::{AttachOptions, ConnectionId, Facility, Method, TransferId, Watch};
use socket2::SockRef;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Two segments. A device that cannot gather gets longer payloads segmented by
/// the kernel, and a segment that is then left alone is copied
/// (net/core/dev.c, `validate_xmit_skb`), which is said of the whole payload.
const SHORT: usize = 2500;
/// More than all buffers on the way to a machine that does not read.
const MOST: usize = 64 << 20;
/// What applications send.
const LONG: usize = 64 << 10;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C09-zero-copy-is-real-on-a-path-that-does-not-copy",
            "sent to another machine, payloads go by ZeroCopy and not by ZeroCopyRefused",
            |subject| with_peer(subject, is_real),
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

fn is_real(subject: &Subject, peer: SocketAddr) -> Result<Proof, Failure> {
    let (socket, stream) = Stream::open(peer, false)?;
    let mut rig = Rig::eager(subject)?;
    let connection = rig.attach(socket, &AttachOptions::default())?;
    let mut methods = Vec::new();
    for len in [[SHORT; 20], [LONG; 20]].concat() {
        let transfer = rig.send(connection, len, Watch::ALL)?;
        rig.settle()?;
        methods.extend(rig.record.told(connection, transfer).released.map(|r| r.method));
    }
    expect_nothing_held(&mut rig)?;
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
    Ok(Proof::noting(format!("{real} of {} without a copy", methods.len())))
}

fn in_flight(subject: &Subject, peer: SocketAddr) -> Result<Proof, Failure> {
    let (socket, stream) = Stream::open(peer, true)?;
    // Room for many short payloads that wait.
    SockRef::from(&socket).set_send_buffer_size(256 << 10)?;
    let queue = Queue::of(&socket)?;
    let mut rig = Rig::eager(subject)?;
    let mut patience = AttachOptions::default();
    patience.stall_timeout = None;
    patience.max_transfers = MOST / SHORT;
    let connection = rig.attach(socket, &patience)?;
    let lack = subject.lacks(Facility::ZeroCopy);
    let mut sent = Vec::new();
    let overwritten = loop {
        ensure!(sent.len() * SHORT < MOST, "the peer never stalls: {} bytes went out", MOST);
        sent.push(submit(&mut rig, connection)?);
        rig.turn(Duration::ZERO)?;
        if queue.unsent()? < 4 * SHORT as u64 {
            continue;
        }
        // The window may open yet.
        rig.linger(Duration::from_millis(200))?;
        if let Some(found) = overwrite_one(&rig, connection, &queue, &sent, lack.is_some())? {
            break found;
        }
    };
    // Nobody else keeps the connection from ending.
    drop(queue);
    stream.go()?;
    rig.settle()?;
    let released = rig.record.told(connection, overwritten).released;
    expect_nothing_held(&mut rig)?;
    let Account { inverted, wrong, .. } = finish(&mut rig, connection, stream)?;
    ensure!(wrong == 0, "the peer got {wrong} bytes from nowhere");
    if let Some(lack) = lack {
        ensure!(inverted == 0, "{inverted} bytes came from memory that was released");
        return Ok(Proof::substitute(lack, "copied: overwritten after Released, nothing shows"));
    }
    ensure!(inverted > 0, "what was lent to the kernel had been copied");
    let method = released.map(|released| released.method);
    if method == Some(Method::ZeroCopyRefused) {
        return Ok(Proof::substitute(
            Lack::of("a path that does not copy: the kernel copied late"),
            format!("{inverted} bytes overwritten in flight arrived, Released came after"),
        ));
    }
    ensure!(method == Some(Method::ZeroCopy), "overwritten in flight, but sent by {method:?}");
    Ok(Proof::noting(format!("{inverted} bytes overwritten in flight arrived, by ZeroCopy")))
}

/// Overwrites the newest payload that is queued, not acked and, in part at
/// least, not even sent: if it is that still afterwards, it was that meanwhile.
/// Where memory is copied, one that was released takes its place.
fn overwrite_one(
    rig: &Rig,
    connection: ConnectionId,
    queue: &Queue,
    sent: &[(TransferId, SharedMemory)],
    copied: bool,
) -> Result<Option<TransferId>, Failure> {
    for (transfer, memory) in sent.iter().rev() {
        let told = rig.record.told(connection, *transfer);
        let lent = told.released.is_none()
            && told.queued.is_some_and(|queued| queued.method == Method::ZeroCopy);
        if told.queued.is_none() || told.acked.is_some() || lent == copied {
            continue;
        }
        let inverted: Vec<_> = memory.as_ref().iter().map(|byte| !byte).collect();
        memory.overwrite(&inverted)?;
        let beyond = queue.written()?.saturating_sub(told.end);
        let is_unsent = queue.unsent()? > beyond;
        return Ok(is_unsent.then_some(*transfer));
    }
    Ok(None)
}

fn submit(rig: &mut Rig, connection: ConnectionId) -> Result<(TransferId, SharedMemory), Failure> {
    let memory = SharedMemory::new(&pattern::bytes(rig.position(connection), SHORT))?;
    let payload = Bytes::from_owner(memory.clone());
    let transfer = rig.submit(connection, payload.into(), Watch::ALL, None)?;
    Ok((transfer, memory))
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
    witness: Witness,
}

impl Queue {
    fn of(socket: &TcpStream) -> Result<Self, Failure> {
        // The hello was written before, and counts for nothing when acked.
        let deadline = Instant::now() + PATIENCE;
        while tcp::unacknowledged(socket)? > 0 {
            ensure!(Instant::now() < deadline, "the peer does not acknowledge the hello");
            std::thread::sleep(Duration::from_millis(1));
        }
        let witness = Witness::new(socket).map_err(|lack| Failure::new(lack.to_string()))?;
        Ok(Self { socket: socket.try_clone()?, witness })
    }

    /// Bytes that the kernel has taken since.
    fn written(&self) -> Result<u64, Failure> {
        Ok(self.witness.acked()? + tcp::unacknowledged(&self.socket)?)
    }

    /// Bytes that it has not even sent.
    fn unsent(&self) -> Result<u64, Failure> {
        Ok(tcp::unsent(&self.socket)?)
    }
}
