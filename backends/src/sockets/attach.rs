//! Taking a socket over.

use super::connecting::CONNECTING;
use super::connection::{Connection, ZeroCopy};
use super::context::Context;
use super::native::Native;
use crate::sys::{error_queue, fast_open, out_queue, protocol, tcp_info, timestamping, zero_copy};
use lastbyte::{
    AttachOptions, ConnectionId, Ledger, LedgerLimits, RefuseReason, Refused, Socket, StampKeys,
};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

/// More notifications than any receive buffer holds.
const OLD_NOTICES: usize = 1 << 20;

/// How often the two readings around a setting are repeated while the peer's
/// acknowledgements keep changing them. Each try takes a microsecond, an
/// acknowledgement comes every few at most.
const TRIES: usize = 64;

impl Connection {
    pub(super) fn attach(
        socket: Socket,
        id: ConnectionId,
        token: usize,
        options: &AttachOptions,
        cx: &mut Context,
    ) -> Result<Self, Refused<Socket>> {
        // Before the stream is asked for, after which it counts as handed out.
        let fresh = socket.is_fresh();
        let past = Past { fresh, unlent: socket.is_unlent() };
        let prepared = prepare(&socket, fresh, options).and_then(|connected| {
            connected.then(|| taken_over(socket.stream(), past, cx)).transpose()
        });
        let taken_over = match prepared {
            Ok(taken_over) => taken_over,
            Err((doing, error)) => {
                let errno = error.raw_os_error().unwrap_or(0);
                return Err(Refused::new(socket, RefuseReason::System { doing, errno }));
            }
        };
        let stamps =
            taken_over.as_ref().map_or(cx.facilities.timestamps, |now| now.stamp_keys.is_some());
        let stages = cx.facilities.stages(stamps);
        let limits = LedgerLimits { memory: options.max_memory, transfers: options.max_transfers };
        let ledger = Ledger::new(id, stages, limits);
        let connects = socket.is_connecting();
        let mut connection = Self::new(socket.into_stream(), id, token, ledger, stages);
        let completes = cx.completes;
        if completes.serves_connections() {
            connection.native = Some(Box::new(Native::new(completes)));
        }
        connection.stall_timeout = options.stall_timeout;
        connection.release_timeout = options.release_timeout;
        match taken_over {
            None => connection.await_connect(cx),
            Some(taken_over) => {
                connection.begin(taken_over);
                if connects {
                    connection.tell_connected(cx);
                }
            }
        }
        Ok(connection)
    }

    /// What was found out when the socket was taken over holds from now on.
    pub(super) fn begin(&mut self, taken_over: TakenOver) {
        let keys = taken_over.stamp_keys.unwrap_or(StampKeys::from_base(0));
        self.ledger.kernel_counts_from(keys, 0);
        self.stamps = taken_over.stamp_keys.is_some();
        self.acked_base = taken_over.acked_base;
        self.zero_copy = taken_over.zero_copy;
    }
}

/// What could not be done, and why.
pub(super) type Failed = (&'static str, io::Error);

/// What was found out about a connected socket, and done to it.
pub(super) struct TakenOver {
    stamp_keys: Option<StampKeys>,
    acked_base: u64,
    zero_copy: ZeroCopy,
}

/// What can be done before it is connected. Says whether it is.
fn prepare(socket: &Socket, fresh: bool, options: &AttachOptions) -> Result<bool, Failed> {
    let stream = socket.stream();
    if !fresh {
        // A fresh one's listener was asked.
        protocol::expect_tcp(stream.as_fd()).map_err(|error| ("SO_PROTOCOL", error))?;
    }
    if options.no_delay {
        stream.set_nodelay(true).map_err(|error| ("TCP_NODELAY", error))?;
    }
    if fresh {
        return Ok(true);
    }
    let connected = match stream.peer_addr() {
        Ok(_) => true,
        Err(error) if socket.is_connecting() && error.kind() == io::ErrorKind::NotConnected => {
            match stream.take_error() {
                Ok(None) if fast_open::is_put_off(stream.as_fd()) => {
                    return Err((
                        "TCP_FASTOPEN_CONNECT",
                        io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                    ));
                }
                Ok(None) => false,
                Ok(Some(error)) | Err(error) => return Err((CONNECTING, error)),
            }
        }
        Err(error) => return Err(("getpeername", error)),
    };
    stream.set_nonblocking(true).map_err(|error| ("O_NONBLOCK", error))?;
    Ok(connected)
}

/// What is known of what was done with a socket before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    /// Nothing at all.
    fresh: bool,
    /// Its owner says that nothing was sent by `MSG_ZEROCOPY`.
    unlent: bool,
}

/// Takes over a connected socket.
pub(super) fn taken_over(
    stream: &TcpStream,
    past: Past,
    cx: &Context,
) -> Result<TakenOver, Failed> {
    let facilities = &cx.facilities;
    let fresh = past.fresh;
    // What was written before the driver took over is not its business, but
    // counts in the kernel's numbers.
    let acked_base = if fresh || !facilities.tcp_info {
        0
    } else {
        written(stream, facilities.out_queue)
            .map_err(|error| ("counting what was written before", error))?
    };
    let can_lend = facilities.zero_copy && (fresh || names_calls(stream, past, cx));
    let zero_copy = if can_lend { ZeroCopy::Untried } else { ZeroCopy::Unusable };
    let stamp_keys = if facilities.timestamps {
        enable_stamps(stream, fresh, facilities.timestamp_id_tcp)
    } else {
        // A listener's or a former owner's wishes would fill a queue that
        // nobody reads. Where there is no such option, there are none.
        drop(timestamping::clear(stream.as_fd()));
        None
    };
    if !fresh {
        forget_old_notices(stream);
    }
    Ok(TakenOver { stamp_keys, acked_base, zero_copy })
}

/// Whether it will be known which call each notification of zero copy is of.
/// `MSG_ZEROCOPY` counts a socket's calls (`sk_zckey`, net/core/skbuff.c,
/// `msg_zerocopy_alloc`), and nothing tells how far that is: it is at 0 only where
/// nothing was ever written, or its owner knows. A ring's notifications are the
/// operation's own.
fn names_calls(stream: &TcpStream, past: Past, cx: &Context) -> bool {
    if cx.completes.lends() {
        return true;
    }
    let fd = stream.as_fd();
    cx.facilities.tcp_info
        && !zero_copy::is_enabled(fd).unwrap_or(true)
        && (past.unlent || tcp_info::read(fd).is_ok_and(|info| info.is_unwritten()))
}

/// Empties the error queue of what a former owner has asked for: under the new
/// names it would speak of other bytes. What is still to come of that is named
/// as from before the first byte, and ignored.
fn forget_old_notices(stream: &TcpStream) {
    for _ in 0..OLD_NOTICES {
        if !matches!(error_queue::read(stream.as_fd()), Ok(Some(_))) {
            return;
        }
    }
}

/// `tcpi_bytes_acked` as it will be when all that was written is acknowledged.
fn written(stream: &TcpStream, out_queue: bool) -> io::Result<u64> {
    let info = tcp_info::read(stream.as_fd())?;
    let mut acked = info.bytes_acked;
    if !out_queue || info.half_open {
        // Only the out-queue tells how much is under way, if anything is.
        return match info.is_under_way() {
            false => Ok(acked),
            true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        };
    }
    for _ in 0..TRIES {
        let queued = out_queue::unacknowledged(stream.as_fd())?;
        let after = tcp_info::read(stream.as_fd())?.bytes_acked;
        if after == acked {
            return Ok(acked + queued);
        }
        acked = after;
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Makes stamps reportable and says how they are named, or `None` if this
/// socket cannot have them: then it is looked at instead, and that is said in
/// what attaching returns.
fn enable_stamps(stream: &TcpStream, fresh: bool, id_tcp: bool) -> Option<StampKeys> {
    let fd = stream.as_fd();
    if fresh {
        timestamping::enable(fd, id_tcp).ok()?;
        return Some(StampKeys::from_base(0));
    }
    if id_tcp {
        timestamping::clear(fd).ok()?;
        timestamping::enable(fd, true).ok()?;
        return Some(StampKeys::from_base(0));
    }
    // Older kernels count from the first unacknowledged byte, and only the
    // out-queue says how far back that is.
    if tcp_info::is_half_open(fd) && tcp_info::read(fd).map_or(true, |info| info.is_under_way()) {
        return None;
    }
    for _ in 0..TRIES {
        timestamping::clear(fd).ok()?;
        let before = out_queue::unacknowledged(fd).ok()?;
        timestamping::enable(fd, false).ok()?;
        if out_queue::unacknowledged(fd).ok()? == before {
            let behind = u32::try_from(before).ok()?;
            return Some(StampKeys::from_base(behind.wrapping_neg()));
        }
    }
    None
}
