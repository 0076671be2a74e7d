//! A simulated kernel with a peer behind it: the truth that completions are
//! held against. It knows nothing of transfers or of the ledger.

use lastbyte::{Method, StampOf, UnixTime};

/// The most that TCP has in flight (RFC 7323, section 2.3).
const MAX_IN_FLIGHT: u64 = (1 << 31) - 1;

/// One system call's bytes.
#[derive(Debug)]
pub struct Taken {
    pub start: u64,
    pub end: u64,
    pub method: Method,
    /// Number of the zero-copy call.
    pub id: Option<u32>,
    /// The kernel has let go of a zero-copy call's memory.
    pub released: bool,
}

impl Taken {
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }

    pub fn moves_file(&self) -> bool {
        matches!(self.method, Method::Sendfile | Method::Splice)
    }
}

/// What waits to be read from the error queue.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    Stamp { of: StampOf, end: u64, key: u32, at: UnixTime },
    Released { first: u32, last: u32, copied: bool },
}

/// When a counter passed which value.
#[derive(Debug, Default)]
pub struct History {
    steps: Vec<(u64, u64)>,
}

impl History {
    pub fn to(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.0)
    }

    /// When the byte before `end` was passed.
    pub fn passed(&self, end: u64) -> Option<u64> {
        let n = self.steps.partition_point(|step| step.0 < end);
        self.steps.get(n).map(|step| step.1)
    }

    fn reach(&mut self, to: u64, now: u64) {
        if to > self.to() {
            self.steps.push((to, now));
        }
    }
}

#[derive(Debug)]
struct Mark {
    end: u64,
    of: StampOf,
}

#[derive(Debug)]
pub struct Kernel {
    /// Monotonic clock.
    pub now: u64,
    /// Wall clock minus monotonic.
    pub wall_ahead: u64,
    key_base: u32,
    next_id: u32,
    /// Bytes taken.
    pub taken: u64,
    pub calls: Vec<Taken>,
    pub transmitted: History,
    pub acked: History,
    marks: Vec<Mark>,
    pub notices: Vec<Notice>,
    /// The connection is over: nothing is retransmitted any more.
    pub dead: bool,
}

impl Kernel {
    /// `key_base` and `next_id` are where the 32-bit counters stand.
    pub fn new(key_base: u32, next_id: u32) -> Self {
        Self {
            now: 1_000_000_000,
            wall_ahead: 1_700_000_000_000_000_000,
            key_base,
            next_id,
            taken: 0,
            calls: Vec::new(),
            transmitted: History::default(),
            acked: History::default(),
            marks: Vec::new(),
            notices: Vec::new(),
            dead: false,
        }
    }

    pub fn wall(&self) -> u64 {
        self.now + self.wall_ahead
    }

    /// Bytes that a call could take now.
    pub fn room(&self) -> u64 {
        MAX_IN_FLIGHT - (self.taken - self.acked.to())
    }

    /// Takes `bytes`, marking the last for the stamps in `stamps`; file calls
    /// are marked once more half-way, as the kernel does per chunk.
    pub fn take(&mut self, bytes: u64, method: Method, stamps: &[StampOf]) {
        let (start, end) = (self.taken, self.taken + bytes);
        let id = (method == Method::ZeroCopy).then(|| {
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            id
        });
        let call = Taken { start, end, method, id, released: false };
        for &of in stamps {
            if call.moves_file() && bytes > 1 {
                self.marks.push(Mark { end: start + bytes / 2, of });
            }
            self.marks.push(Mark { end, of });
        }
        self.calls.push(call);
        self.taken = end;
    }

    /// Asks for a stamp of the byte before `end`.
    pub fn mark(&mut self, end: u64, of: StampOf) {
        self.marks.push(Mark { end, of });
    }

    /// Hands bytes to the device up to `to`.
    pub fn transmit(&mut self, to: u64) {
        let to = to.min(self.taken);
        self.transmitted.reach(to, self.now);
        self.stamp(StampOf::Transmitted, to, false);
    }

    /// The peer acknowledges up to `to`. If the acknowledged buffers were
    /// `merged` before, only the last mark among them is left.
    pub fn acknowledge(&mut self, to: u64, merged: bool) {
        let to = to.min(self.taken);
        self.transmit(to.max(self.transmitted.to()));
        self.acked.reach(to, self.now);
        self.stamp(StampOf::Acked, to, merged);
    }

    /// Lets go of up to `count` zero-copy calls in a row, from the first one
    /// held at or behind the `from`th of `among`.
    pub fn release(&mut self, from: usize, count: usize, among: usize, copied: bool, merge: bool) {
        let calls = self.calls[..among].iter_mut().filter(|call| call.id.is_some());
        let held = calls.skip(from).skip_while(|call| call.released).take_while(|c| !c.released);
        let mut range = None;
        for call in held.take(count) {
            call.released = true;
            let id = call.id.expect("filtered");
            range = Some((range.map_or(id, |(first, _)| first), id));
        }
        let Some((first, last)) = range else { return };
        if let (true, Some(Notice::Released { last: tail, .. })) = (merge, self.notices.last_mut())
            && tail.wrapping_add(1) == first
        {
            *tail = last;
            return;
        }
        self.notices.push(Notice::Released { first, last, copied });
    }

    /// Whether the kernel or the device may still read these bytes' memory.
    pub fn references(&self, start: u64, end: u64) -> bool {
        let acked = self.acked.to();
        self.calls.iter().filter(|call| call.overlaps(start, end)).any(|call| match call.id {
            Some(_) => !call.released,
            None => call.moves_file() && !self.dead && acked < call.end.min(end),
        })
    }

    fn stamp(&mut self, of: StampOf, to: u64, merged: bool) {
        let at = UnixTime::from_nanos(self.wall());
        let base = self.key_base;
        let mut due: Vec<u64> = Vec::new();
        self.marks.retain(|mark| {
            let is_due = mark.of == of && mark.end <= to;
            if is_due {
                due.push(mark.end);
            }
            !is_due
        });
        let skip = if merged { due.len().saturating_sub(1) } else { 0 };
        for end in due.into_iter().skip(skip) {
            #[expect(clippy::cast_possible_truncation, reason = "as the kernel does")]
            let key = (end as u32).wrapping_sub(1).wrapping_sub(base);
            self.notices.push(Notice::Stamp { of, end, key, at });
        }
    }
}
