//! Taking a socket over.

use super::connection::{Connection, ZeroCopy};
use super::context::Context;
use super::native::Native;
use crate::sys::{error_queue, out_queue, tcp_info, timestamping, zero_copy};
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
        cx: &Context,
    ) -> Result<Self, Refused<Socket>> {
        match prepare(&socket, options, cx) {
            Ok(prepared) => Ok(prepared.into_connection(socket, id, token, options, cx)),
            Err((doing, error)) => {
                let errno = error.raw_os_error().unwrap_or(0);
                Err(Refused::new(socket, RefuseReason::System { doing, errno }))
            }
        }
    }
}

/// What was found out about a socket, and done to it.
struct Prepared {
    stamp_keys: Option<StampKeys>,
    acked_base: u64,
    zero_copy: ZeroCopy,
}

fn prepare(
    socket: &Socket,
    options: &AttachOptions,
    cx: &Context,
) -> Result<Prepared, (&'static str, io::Error)> {
    // Before the stream is asked for, after which it counts as handed out.
    let fresh = socket.is_fresh();
    let stream = socket.stream();
    if options.no_delay {
        stream.set_nodelay(true).map_err(|error| ("TCP_NODELAY", error))?;
    }
    let facilities = &cx.facilities;
    if !fresh {
        stream.peer_addr().map_err(|error| ("getpeername", error))?;
        stream.set_nonblocking(true).map_err(|error| ("O_NONBLOCK", error))?;
    }
    // What was written before the driver took over is not its business, but
    // counts in the kernel's numbers.
    let acked_base = if fresh || !facilities.tcp_info {
        0
    } else {
        written(stream, facilities.out_queue)
            .map_err(|error| ("counting what was written before", error))?
    };
    // Whoever enabled zero copy before may have used it, and the kernel's next
    // notification id cannot be asked for.
    let used_before = !fresh && zero_copy::is_enabled(stream.as_fd()).unwrap_or(false);
    let zero_copy =
        if facilities.zero_copy && !used_before { ZeroCopy::Untried } else { ZeroCopy::Unusable };
    let stamp_keys = if facilities.timestamps {
        enable_stamps(stream, fresh, cx)
    } else {
        // A listener's or a former owner's wishes would fill a queue that
        // nobody reads. Where there is no such option, there are none.
        drop(timestamping::clear(stream.as_fd()));
        None
    };
    if !fresh {
        forget_old_notices(stream);
    }
    Ok(Prepared { stamp_keys, acked_base, zero_copy })
}

impl Prepared {
    fn into_connection(
        self,
        socket: Socket,
        id: ConnectionId,
        token: usize,
        options: &AttachOptions,
        cx: &Context,
    ) -> Connection {
        let stages = cx.facilities.stages(self.stamp_keys.is_some());
        let limits = LedgerLimits { memory: options.max_memory, transfers: options.max_transfers };
        let keys = self.stamp_keys.unwrap_or(StampKeys::from_base(0));
        let ledger = Ledger::new(id, stages, limits).with_kernel_counters(keys, 0);
        let mut connection = Connection::new(socket.into_stream(), id, token, ledger, stages);
        connection.stamps = self.stamp_keys.is_some();
        connection.acked_base = self.acked_base;
        connection.zero_copy = self.zero_copy;
        let completes = cx.completes;
        if completes.sends || completes.receives {
            connection.native = Some(Box::new(Native::new(completes)));
        }
        connection.stall_timeout = options.stall_timeout;
        connection.release_timeout = options.release_timeout;
        connection
    }
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
    if !out_queue {
        // Only the out-queue tells how much is under way, if anything is.
        return match (info.unacked_segments, info.not_sent) {
            (0, 0) => Ok(acked),
            _ => Err(io::Error::from_raw_os_error(libc::EBUSY)),
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
fn enable_stamps(stream: &TcpStream, fresh: bool, cx: &Context) -> Option<StampKeys> {
    let fd = stream.as_fd();
    if fresh {
        timestamping::enable(fd, cx.facilities.timestamp_id_tcp).ok()?;
        return Some(StampKeys::from_base(0));
    }
    if cx.facilities.timestamp_id_tcp {
        timestamping::clear(fd).ok()?;
        timestamping::enable(fd, true).ok()?;
        return Some(StampKeys::from_base(0));
    }
    // Older kernels count from the first unacknowledged byte, and only the
    // out-queue says how far back that is.
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
