//! Output: making the calls, and what their results mean.

use super::connection::{Connection, ZeroCopy, reason};
use super::context::Context;
use super::kernel_tls::Transmit;
use super::native::{Native, Sending};
use super::shape::{self, FileRest, Rest, Step};
use super::standing::Standing;
use crate::sys::message::{self, Options};
use crate::sys::ring::SendMemory;
use crate::sys::timestamping::Wanted;
use crate::sys::{poll, pread, sendfile, zero_copy};
use lastbyte::{Call, FailReason, FileRange, Method, Moment, Part, Time, Unsent};
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;

/// Slices that one call takes: a header and a few pieces of body. What is
/// beyond goes with the next call.
const SLICES: usize = 16;

/// A call counts as this many bytes at least of what may be written in a row: many small
/// pieces take a time of their own.
const CALL: u64 = 4 << 10;

type Slices<'a> = SmallVec<[&'a [u8]; SLICES]>;

/// What one call did.
pub(super) enum Wrote {
    /// The kernel took bytes; `full` if it had no room for more and will signal
    /// when it has.
    Some { bytes: u64, method: Method, stamped: bool, full: bool },
    /// The kernel has no room, and will signal when it has.
    Full,
    /// The selector is to do it.
    Started,
    /// The connection cannot go on.
    Failed(FailReason),
}

impl Connection {
    /// Writes what is unsent until the kernel has no room or others are due.
    /// `began` is some time just before.
    pub(super) fn flush(&mut self, began: Time, cx: &mut Context) {
        let mut now = Moment { monotonic: began, ..Moment::default() };
        let mut budget = cx.config.write_burst;
        while self.writable && !self.is_sending() {
            if self.kernel_tls.is_some() && !self.flush_records(cx) {
                return;
            }
            let Some(wrote) = self.write_some(now.monotonic, budget, cx) else { return };
            let began = now.monotonic;
            if let Wrote::Some { bytes, .. } = wrote {
                // The clock is read when something can come of it.
                if bytes > 0 && self.ledger.completes_with(bytes) {
                    now = cx.now();
                }
                budget = budget.saturating_sub(bytes.max(CALL));
            }
            if !self.wrote(wrote, began, now, cx) {
                return;
            }
            if budget == 0 && self.writable && self.has_output() {
                return self.do_again(cx);
            }
        }
    }

    /// Takes in what a call did that `began` and ended `now`. Says whether
    /// another can follow.
    pub(super) fn wrote(
        &mut self,
        wrote: Wrote,
        began: Time,
        now: Moment,
        cx: &mut Context,
    ) -> bool {
        match wrote {
            Wrote::Some { bytes, method, stamped, full } => {
                self.writable = !full;
                let call = Call { method, began, stamped };
                self.ledger.accepted(bytes, call, now, &mut cx.outbox);
                self.last_write = now.monotonic;
                bytes == 0 || self.payload_sealed(cx)
            }
            Wrote::Full => {
                self.writable = false;
                true
            }
            Wrote::Started => false,
            Wrote::Failed(reason) => {
                self.die(&reason, cx);
                false
            }
        }
    }

    /// Makes the next call, or `None` if there is nothing to write.
    fn write_some(&mut self, now: Time, budget: u64, cx: &mut Context) -> Option<Wrote> {
        let unsent = self.ledger.unsent()?;
        let mut writer = Writer {
            stream: &self.stream,
            zero_copy: &mut self.zero_copy,
            route: &mut self.route,
            native: self.native.as_deref_mut(),
            standing: &mut self.standing,
            whole: unsent.offset == 0,
            sealing: self.kernel_tls.as_mut().and_then(|tls| tls.transmit.as_mut()),
            stamps: if self.stamps { wanted(&unsent) } else { Wanted::NONE },
            now,
            cx,
        };
        Some(writer.write(&unsent, budget))
    }
}

/// The parts of a connection that a call needs, and the stamps of use.
struct Writer<'a> {
    stream: &'a TcpStream,
    zero_copy: &'a mut ZeroCopy,
    route: &'a mut Option<IpAddr>,
    native: Option<&'a mut Native>,
    standing: &'a mut Standing,
    /// Nothing of the transfer has been taken yet.
    whole: bool,
    sealing: Option<&'a mut Transmit>,
    stamps: Wanted,
    now: Time,
    cx: &'a mut Context,
}

/// The next file range of a payload: which, from where, how much of it is left.
type FilePart<'a> = (&'a FileRange, u64, u64);

impl Writer<'_> {
    fn write(&mut self, unsent: &Unsent<'_>, budget: u64) -> Wrote {
        let mut slices = Slices::new();
        let mut file: Option<FilePart<'_>> = None;
        let mut rest = Rest { memory: 0, file: None, more: false, stamp: self.stamps.any() };
        for part in unsent.remaining() {
            match part {
                Part::Memory(bytes) if file.is_none() && slices.len() < SLICES => {
                    slices.push(bytes);
                    rest.memory += bytes.len() as u64;
                }
                Part::File { range, offset, len } if file.is_none() && slices.len() < SLICES => {
                    file = Some((range, offset, len));
                    rest.file = Some(FileRest { len, whole: range.len() });
                }
                _ => {
                    rest.more = true;
                    break;
                }
            }
        }
        if rest.file.is_none()
            && !rest.more
            && self.tries_zero_copy(rest.memory)
            && let Some(wrote) = self.send_zero_copy(&slices, rest.memory)
        {
            return wrote;
        }
        let sendfile = self.cx.facilities.sendfile;
        let (step, budget) = match &self.sealing {
            None => (shape::next(rest, sendfile), budget),
            Some(sealing) => {
                let most = sealing.most();
                (shape::next_sealed(rest, sendfile, most), budget.min(most))
            }
        };
        match (step, file) {
            (Step::Memory { len, glue }, _) => {
                let last = len == unsent.len;
                shorten(&mut slices, rest.memory - len);
                self.send_copy(&slices, &[], last, glue)
            }
            (Step::Sendfile { len }, Some(file)) => {
                self.send_file(file, len.min(budget), unsent.len)
            }
            (Step::Joined, Some(file)) => self.send_joined(&slices, file, unsent.len),
            (Step::Read { .. } | Step::Joined | Step::Sendfile { .. }, file) => {
                let Some(file) = file else { return Wrote::Full };
                self.send_joined(&[], file, unsent.len)
            }
        }
    }

    /// Copies payload memory into the socket: `slices`, then `tail`. `last` if
    /// the transfer ends with it.
    fn send_copy(&mut self, slices: &[&[u8]], tail: &[u8], last: bool, glue: bool) -> Wrote {
        // What more follows at once is better made at once, too: the selector
        // would let a turn pass between the two.
        if last && self.native.as_ref().is_some_and(|native| native.completes.sends) {
            let end_of_record = self.stamps.any();
            let options =
                Options { stamps: self.stamps, end_of_record, more: false, zero_copy: false };
            return self.start(slices, tail, Method::Copy, options);
        }
        self.copy_now(slices, tail, last, glue)
    }

    /// Has the selector send payload memory.
    fn start(&mut self, slices: &[&[u8]], tail: &[u8], method: Method, options: Options) -> Wrote {
        let stamps = options.stamps;
        let asked = self.asked(stamps);
        let Some(native) = self.native.as_deref_mut() else { return Wrote::Full };
        let mut memory = self.cx.spare_memory.pop().unwrap_or_else(SendMemory::new);
        let all = slices.iter().copied().chain(Some(tail).filter(|tail| !tail.is_empty()));
        let bytes = memory.fill(all, Options { stamps: asked, ..options });
        native.sending = Some(Sending { bytes, method, stamps, began: self.now });
        native.prepared = Some((memory, method == Method::ZeroCopy));
        Wrote::Started
    }

    /// What a call still has to ask for, of the stamps that it wants.
    fn asked(&mut self, stamps: Wanted) -> Wanted {
        let id_tcp = self.cx.facilities.timestamp_id_tcp;
        self.standing.asked(stamps, self.whole, self.stream, id_tcp)
    }

    /// Copies memory into the socket by a call: `slices`, then `tail`.
    fn copy_now(&mut self, slices: &[&[u8]], tail: &[u8], last: bool, glue: bool) -> Wrote {
        let stamps = if last { self.stamps } else { Wanted::NONE };
        let end_of_record = stamps.any();
        let asked = self.asked(stamps);
        let mut options = Options { stamps: asked, end_of_record, more: glue, zero_copy: false };
        if let Some(sealing) = &mut self.sealing {
            let facilities = &self.cx.facilities;
            sealing.ask_for(stamps, self.stream, facilities.timestamp_id_tcp);
            sealing.is_open = glue;
            options.stamps = Wanted::NONE;
            options.end_of_record &= facilities.kernel_tls.end_of_record;
        }
        took(self.send(slices, tail, options), bytes_in(slices, tail), Method::Copy, stamps)
    }

    /// Copies memory and a piece of a file into the socket, in one call.
    /// `rest` is what is left of the transfer.
    fn send_joined(
        &mut self,
        slices: &[&[u8]],
        (range, offset, left): FilePart<'_>,
        rest: u64,
    ) -> Wrote {
        if let Some(mapped) = range.memory() {
            let from = usize::try_from(range.len() - left).unwrap_or(usize::MAX);
            let tail = mapped.get(from..).unwrap_or_default();
            let last = bytes_in(slices, tail) == rest;
            return self.send_copy(slices, tail, last, !last);
        }
        let mut piece = self.cx.take_piece();
        let want = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let wrote = match pread::pread(range.source().as_fd(), &mut piece[..want], offset) {
            Ok(0) => Wrote::Failed(FailReason::FileTruncated { missing: left }),
            Ok(n) => {
                let last = bytes_in(slices, &piece[..n]) == rest;
                self.copy_now(slices, &piece[..n], last, !last)
            }
            Err(error) => failed("pread", &error),
        };
        self.cx.put_piece(piece);
        wrote
    }

    /// Has the kernel take `len` bytes from the page cache.
    /// `rest` is what is left of the transfer.
    fn send_file(&mut self, file: FilePart<'_>, len: u64, rest: u64) -> Wrote {
        let (range, offset, left) = file;
        let stamps = if len == rest { self.stamps } else { Wanted::NONE };
        // Of a plain socket it cannot ask for any.
        let _: Wanted = self.asked(Wanted::NONE);
        if let Some(sealing) = &mut self.sealing {
            sealing.ask_for(stamps, self.stream, self.cx.facilities.timestamp_id_tcp);
        }
        match sendfile::sendfile(self.stream.as_fd(), range.source().as_fd(), offset, len) {
            Ok(0) => Wrote::Failed(FailReason::FileTruncated { missing: left }),
            Ok(bytes) => {
                // Less than asked can mean a full send buffer, a file that has
                // become shorter, or a signal. Asking whether there is room
                // makes sure that room will be signalled if there is none
                // (net/ipv4/tcp.c, `tcp_poll`), and spares a refused call.
                let full = bytes < len && !poll::has_room(self.stream);
                let mut stamped = false;
                if let Some(sealing) = &mut self.sealing {
                    // More was announced to the kernel's record layer, all but
                    // at the end of what was asked for.
                    sealing.is_open = bytes < len;
                    stamped = stamps.any() && bytes == len;
                }
                Wrote::Some { bytes, method: Method::Sendfile, stamped, full }
            }
            Err(error) if is_of_the_file(&error) => self.send_joined(&[], file, rest),
            Err(error) => failed("sendfile", &error),
        }
    }

    /// Lends memory to the kernel. `None` if it has no room to account for that.
    fn send_zero_copy(&mut self, slices: &[&[u8]], len: u64) -> Option<Wrote> {
        let stamps = self.stamps;
        let end_of_record = stamps.any();
        if self.native.as_ref().is_some_and(|native| native.completes.zero_copy_sends) {
            let options = Options { stamps, end_of_record, more: false, zero_copy: false };
            return Some(self.start(slices, &[], Method::ZeroCopy, options));
        }
        let asked = self.asked(stamps);
        let options = Options { stamps: asked, end_of_record, more: false, zero_copy: true };
        match self.send(slices, &[], options) {
            Err(error) if has_no_room_to_pin(&error) => {
                self.cx.outbox.counters.zero_copy_no_room += 1;
                None
            }
            result => Some(took(result, len, Method::ZeroCopy, stamps)),
        }
    }

    fn send(&self, slices: &[&[u8]], tail: &[u8], options: Options) -> io::Result<usize> {
        let mut all = SmallVec::<[IoSlice<'_>; SLICES + 1]>::new();
        all.extend(slices.iter().map(|bytes| IoSlice::new(bytes)));
        if !tail.is_empty() {
            all.push(IoSlice::new(tail));
        }
        message::send(self.stream.as_fd(), &all, options)
    }

    /// Whether `len` bytes should go by zero copy, and can.
    fn tries_zero_copy(&mut self, len: u64) -> bool {
        if *self.zero_copy == ZeroCopy::Unusable || !self.cx.policy.long_enough(len) {
            return false;
        }
        if let Some(native) = self.native.as_deref_mut() {
            if std::mem::take(&mut native.copies_next) {
                return false;
            }
            if native.completes.zero_copy_sends {
                // A ring needs no leave of the socket for that.
                *self.zero_copy = ZeroCopy::Enabled;
            }
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

    fn route(&mut self) -> Option<IpAddr> {
        if self.route.is_none() {
            *self.route = self.stream.local_addr().ok().map(|address| address.ip());
        }
        *self.route
    }
}

fn wanted(unsent: &Unsent<'_>) -> Wanted {
    Wanted { acked: unsent.wants_stamp, transmitted: unsent.wants_transmit_stamp }
}

fn bytes_in(slices: &[&[u8]], tail: &[u8]) -> u64 {
    slices.iter().chain([&tail]).map(|bytes| bytes.len() as u64).sum()
}

/// Takes `less` bytes off the end.
fn shorten(slices: &mut Slices<'_>, less: u64) {
    let mut less = usize::try_from(less).unwrap_or(usize::MAX);
    while less > 0 {
        let Some(slice) = slices.pop() else { return };
        if slice.len() > less {
            slices.push(&slice[..slice.len() - less]);
            return;
        }
        less -= slice.len();
    }
}

pub(super) fn took(result: io::Result<usize>, asked: u64, method: Method, stamps: Wanted) -> Wrote {
    match result {
        Ok(n) => {
            let bytes = n as u64;
            // A stamp asked for on a call's last byte lands on the last one
            // taken: of use only if that is the transfer's.
            let stamped = stamps.any() && bytes == asked;
            // A short copy means that the send buffer is full. A short zero copy
            // may have other reasons, which nothing signals the end of.
            let full = bytes < asked && method == Method::Copy;
            Wrote::Some { bytes, method, stamped, full }
        }
        Err(error) => failed("sendmsg", &error),
    }
}

fn failed(doing: &'static str, error: &io::Error) -> Wrote {
    match error.kind() {
        io::ErrorKind::WouldBlock => Wrote::Full,
        io::ErrorKind::Interrupted => {
            Wrote::Some { bytes: 0, method: Method::Copy, stamped: false, full: false }
        }
        _ => Wrote::Failed(reason(doing, error)),
    }
}

/// The file cannot be sent this way, but read: it has no page cache, for one.
fn is_of_the_file(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOVERFLOW | libc::EOPNOTSUPP)
    )
}

/// The kernel cannot account for another zero-copy send: the error queue's
/// memory (`optmem_max`) or this user's locked memory is used up. The same bytes
/// can be copied.
pub(super) fn has_no_room_to_pin(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
