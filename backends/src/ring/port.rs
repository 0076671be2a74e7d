//! What is going on for one descriptor.

use super::in_flight::Purpose;
use std::os::fd::{AsRawFd, RawFd};

/// Times that input may come unasked before a peer is taken for one that sends
/// faster than it is read: from then on it is read from only when asked.
const UNASKED: u8 = 4;

/// By its number: operations name it so.
impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) fd: RawFd,
    /// Who hears of it; nobody once it is retired.
    pub(super) token: Option<usize>,
    pub(super) listens: bool,
    /// Once retired: who hears when the kernel has no more to do with it.
    pub(super) retired: Option<usize>,
    pub(super) wants_input: bool,
    pub(super) wants_output: bool,
    /// Waits to be looked after.
    pub(super) is_dirty: bool,
    /// No buffer was left for its input, and it waits for its turn to get one.
    pub(super) is_starved: bool,
    /// Names of operations under way.
    pub(super) input: Option<Input>,
    pub(super) output: Option<u64>,
    pub(super) trouble: Option<u64>,
    pub(super) stamps: Option<u64>,
    /// Taking stamps does not work here.
    pub(super) no_stamps: bool,
    unasked: u8,
    /// Input is read when asked for, not received ahead. For good: whoever may
    /// have read from the socket must not be received for, or its input could
    /// come in another order.
    pub(super) one_by_one: bool,
    /// The kernel said that no more will be received. The driver hears of it later,
    /// and wants input until then.
    pub(super) input_ended: bool,
    /// What was received, the end included, and was not told yet.
    pub(super) untold: u32,
    /// The peer's end, the end of the connection were told.
    pub(super) half_closed: bool,
    pub(super) hung_up: bool,
    /// What came of a send was not told yet.
    pub(super) sent_waits: bool,
    /// Stamps that were not told yet because of that.
    pub(super) stamps_wait: u32,
    /// Zero-copy sends that succeeded.
    pub(super) zero_copies: u32,
    /// Operations that keep the descriptor busy, and those that only have to
    /// say that memory is free.
    pub(super) busy: u32,
    pub(super) pinned: u32,
}

/// How input is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    pub(super) name: u64,
    pub(super) purpose: Purpose,
    /// It was told to end.
    pub(super) cancelled: bool,
}

impl Port {
    pub(super) fn new(fd: RawFd, token: usize, listens: bool) -> Self {
        Self {
            fd,
            token: Some(token),
            listens,
            retired: None,
            wants_input: false,
            wants_output: false,
            is_dirty: false,
            is_starved: false,
            input: None,
            output: None,
            trouble: None,
            stamps: None,
            no_stamps: false,
            unasked: 0,
            one_by_one: false,
            input_ended: false,
            untold: 0,
            half_closed: false,
            hung_up: false,
            sent_waits: false,
            stamps_wait: 0,
            zero_copies: 0,
            busy: 0,
            pinned: 0,
        }
    }

    /// Whether input is taken from the socket by the kernel itself, or was and is
    /// still to be told, so that nobody else must.
    pub(super) fn is_receiving(&self) -> bool {
        self.untold > 0 || self.input.is_some_and(|input| input.purpose == Purpose::Receive)
    }

    /// Input came. Says whether receiving ahead has to end.
    pub(super) fn input_came(&mut self) -> bool {
        if std::mem::take(&mut self.wants_input) {
            return false;
        }
        self.unasked = self.unasked.saturating_add(1);
        self.one_by_one |= self.unasked > UNASKED;
        self.one_by_one
    }

    /// An operation has ended.
    pub(super) fn ended(&mut self, purpose: Purpose) {
        self.busy = self.busy.saturating_sub(1);
        match purpose {
            Purpose::Input | Purpose::Receive | Purpose::Accept => self.input = None,
            Purpose::Output => self.output = None,
            Purpose::Trouble => self.trouble = None,
            Purpose::Stamps => self.stamps = None,
            Purpose::Send | Purpose::SendZeroCopy { .. } | Purpose::Wake => {}
        }
    }

    /// Operations that would go on by themselves.
    pub(super) fn armed(&self) -> impl Iterator<Item = u64> {
        let input = self.input.map(|input| input.name);
        [input, self.output, self.trouble, self.stamps].into_iter().flatten()
    }
}
