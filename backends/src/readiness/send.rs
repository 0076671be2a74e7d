//! Output: which call moves the next bytes, and what its result means.

use super::connection::{Connection, ZeroCopy, reason};
use super::context::Context;
use crate::sys::message::{self, Options};
use crate::sys::timestamping::Wanted;
use crate::sys::{pread, sendfile, zero_copy};
use lastbyte::{Call, FailReason, FileRange, Method, Part, Unsent};
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

/// Slices that one call takes: a header and a few pieces of body. What is
/// beyond goes with the next call.
const SLICES: usize = 16;

/// What one call did.
enum Wrote {
    /// The kernel took some bytes, and may take more.
    Some { bytes: u64, method: Method, stamped: bool },
    /// The kernel took some bytes, and had room for no more.
    AndFull { bytes: u64, method: Method, stamped: bool },
    /// The kernel has no room; it will signal when it has.
    Full,
    /// The connection cannot go on.
    Failed(FailReason),
}

impl Connection {
    /// Writes what is unsent until the kernel has no room or others are due.
    pub(super) fn flush(&mut self, cx: &mut Context) {
        let mut budget = cx.config.write_burst;
        while self.writable {
            let began = cx.time();
            let Some(wrote) = self.write_some(budget, cx) else { return };
            let (bytes, method, stamped) = match wrote {
                Wrote::Some { bytes, method, stamped } => (bytes, method, stamped),
                Wrote::AndFull { bytes, method, stamped } => {
                    self.writable = false;
                    (bytes, method, stamped)
                }
                Wrote::Full => {
                    self.writable = false;
                    return;
                }
                Wrote::Failed(reason) => return self.die(&reason, cx),
            };
            let call = Call { method, began, stamped };
            let now = cx.now();
            self.ledger.accepted(bytes, call, now, &mut cx.outbox);
            budget = budget.saturating_sub(bytes);
            if budget == 0 && !self.ledger.is_all_accepted() {
                return self.do_again(cx);
            }
        }
    }

    /// Makes the next call, or `None` if there is nothing to write.
    fn write_some(&mut self, budget: u64, cx: &mut Context) -> Option<Wrote> {
        // Taken out of the way of the ledger's borrow, and put back after.
        let (mut zero_copy, mut route) = (self.zero_copy, self.route);
        let unsent = self.ledger.unsent()?;
        let mut writer = Writer {
            stream: &self.stream,
            zero_copy: &mut zero_copy,
            route: &mut route,
            stamps: self.stamps,
            cx,
        };
        let wrote = writer.write(&unsent, budget);
        (self.zero_copy, self.route) = (zero_copy, route);
        Some(wrote)
    }
}

/// The parts of a connection that a call needs.
struct Writer<'a> {
    stream: &'a std::net::TcpStream,
    zero_copy: &'a mut ZeroCopy,
    route: &'a mut Option<std::net::IpAddr>,
    stamps: bool,
    cx: &'a mut Context,
}

impl Writer<'_> {
    fn write(&mut self, unsent: &Unsent<'_>, budget: u64) -> Wrote {
        let mut slices = SmallVec::<[IoSlice<'_>; SLICES]>::new();
        let mut len = 0;
        for part in unsent.payload.remaining(unsent.offset) {
            match part {
                Part::Memory(bytes) if slices.len() < SLICES => {
                    slices.push(IoSlice::new(bytes));
                    len += bytes.len() as u64;
                }
                Part::File { range, offset, len } if slices.is_empty() => {
                    return self.write_file(unsent, range, offset, len.min(budget));
                }
                _ => break,
            }
        }
        self.write_memory(unsent, &slices, len)
    }

    fn write_memory(&mut self, unsent: &Unsent<'_>, slices: &[IoSlice<'_>], len: u64) -> Wrote {
        let last = len == unsent.len;
        let stamps = if last && self.stamps { wanted(unsent) } else { Wanted::NONE };
        let options =
            Options { stamps, end_of_record: stamps.any(), more: !last, zero_copy: false };
        if self.tries_zero_copy(len) {
            let options = Options { zero_copy: true, ..options };
            match message::send(self.stream.as_fd(), slices, options) {
                Err(error) if has_no_room_to_pin(&error) => {
                    self.cx.outbox.counters.zero_copy_no_room += 1;
                }
                result => return self.wrote(result, len, Method::ZeroCopy, stamps),
            }
        }
        let result = message::send(self.stream.as_fd(), slices, options);
        self.wrote(result, len, Method::Copy, stamps)
    }

    fn write_file(
        &mut self,
        unsent: &Unsent<'_>,
        range: &FileRange,
        offset: u64,
        len: u64,
    ) -> Wrote {
        let _ = (unsent, sendfile::sendfile);
        self.copy_file(unsent, range, offset, len)
    }

    /// Reads a piece of a file and sends it, for where `sendfile` is lacking.
    fn copy_file(
        &mut self,
        unsent: &Unsent<'_>,
        range: &FileRange,
        offset: u64,
        len: u64,
    ) -> Wrote {
        let mut piece = self.cx.take_piece();
        let want = piece.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        let read = pread::pread(range.source().as_fd(), &mut piece[..want], offset);
        let wrote = match read {
            Ok(0) => Wrote::Failed(FailReason::FileTruncated { missing: len }),
            Ok(n) => self.write_memory_copy(unsent, &piece[..n]),
            Err(error) => Wrote::Failed(reason("pread", &error)),
        };
        self.cx.piece = piece;
        wrote
    }

    fn write_memory_copy(&mut self, unsent: &Unsent<'_>, bytes: &[u8]) -> Wrote {
        let len = bytes.len() as u64;
        let last = len == unsent.len;
        let stamps = if last && self.stamps { wanted(unsent) } else { Wanted::NONE };
        let options =
            Options { stamps, end_of_record: stamps.any(), more: !last, zero_copy: false };
        let result = message::send(self.stream.as_fd(), &[IoSlice::new(bytes)], options);
        self.wrote(result, len, Method::Copy, stamps)
    }

    /// Whether `len` bytes should go by zero copy, and can.
    fn tries_zero_copy(&mut self, len: u64) -> bool {
        if *self.zero_copy == ZeroCopy::Unusable || !self.cx.policy.long_enough(len) {
            return false;
        }
        let Some(route) = self.route() else { return false };
        let now = self.cx.time();
        if !self.cx.policy.try_now(route, len, now) {
            return false;
        }
        if *self.zero_copy == ZeroCopy::Untried {
            let enabled = zero_copy::enable(self.stream.as_fd()).is_ok();
            *self.zero_copy = if enabled { ZeroCopy::Enabled } else { ZeroCopy::Unusable };
        }
        *self.zero_copy == ZeroCopy::Enabled
    }

    fn route(&mut self) -> Option<std::net::IpAddr> {
        if self.route.is_none() {
            *self.route = self.stream.local_addr().ok().map(|address| address.ip());
        }
        *self.route
    }

    fn wrote(
        &mut self,
        result: io::Result<usize>,
        asked: u64,
        method: Method,
        stamps: Wanted,
    ) -> Wrote {
        match result {
            Ok(n) => {
                let bytes = n as u64;
                // A stamp asked for on a call's last byte lands on the last one
                // taken: of use only if that is the transfer's.
                let stamped = stamps.any() && bytes == asked;
                // A short copy means that the send buffer is full, and that
                // room will be signalled. A short zero copy may have other
                // reasons, which are not.
                if bytes < asked && method == Method::Copy {
                    Wrote::AndFull { bytes, method, stamped }
                } else {
                    Wrote::Some { bytes, method, stamped }
                }
            }
            Err(error) => failed("sendmsg", &error),
        }
    }
}

fn wanted(unsent: &Unsent<'_>) -> Wanted {
    Wanted { acked: unsent.wants_stamp, transmitted: unsent.wants_transmit_stamp }
}

fn failed(doing: &'static str, error: &io::Error) -> Wrote {
    match error.kind() {
        io::ErrorKind::WouldBlock => Wrote::Full,
        io::ErrorKind::Interrupted => {
            Wrote::Some { bytes: 0, method: Method::Copy, stamped: false }
        }
        _ => Wrote::Failed(reason(doing, error)),
    }
}

/// The kernel cannot account for another zero-copy send: the error queue's
/// memory (`optmem_max`) or this user's locked memory is used up. The same bytes
/// can be copied.
fn has_no_room_to_pin(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
