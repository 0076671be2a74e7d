//! One transfer's place in the ledger.

use crate::{Method, Payload, Time, Watch};

#[derive(Debug)]
pub(super) struct Transfer {
    /// Wire offsets of the first byte and just past the last.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) watch: Watch,
    /// `None` once released.
    pub(super) payload: Option<Payload>,
    /// Start of the first call that took bytes of it.
    pub(super) opened: Time,
    /// Start of the last call that took bytes of it: nothing later than
    /// `Queued` can have happened to its last byte before.
    pub(super) began: Time,
    /// When the kernel was seen to hold all of it.
    pub(super) queued_at: Time,
    /// Lower bound for the time of `Acked`.
    pub(super) transmitted_at: Time,
    /// Zero-copy calls that the kernel has not said to be done with.
    pub(super) pins: u32,
    /// The kernel references pages of a file until they are acknowledged.
    pub(super) file_pinned: bool,
    /// A stamp was asked for on its last byte.
    pub(super) stamped: bool,
    pub(super) transmitted: bool,
    /// Its last watched stage was reached, or it failed.
    pub(super) concluded: bool,
    moved: Moved,
}

/// What moved its bytes.
#[derive(Debug, Default)]
struct Moved {
    copied: u64,
    uncopied: u64,
    refused: u64,
    how: Method,
}

impl Transfer {
    pub(super) fn new(start: u64, payload: Payload, watch: Watch) -> Self {
        Self {
            start,
            end: start + payload.len(),
            watch,
            payload: Some(payload),
            opened: Time::default(),
            began: Time::default(),
            queued_at: Time::default(),
            transmitted_at: Time::default(),
            pins: 0,
            file_pinned: false,
            stamped: false,
            transmitted: false,
            concluded: false,
            moved: Moved::default(),
        }
    }

    /// How many bytes of `start..end` are its own.
    pub(super) fn share(&self, start: u64, end: u64) -> u64 {
        self.end.min(end).saturating_sub(self.start.max(start))
    }

    /// A time before which nothing can have happened to the byte before `end`,
    /// which may be one that an earlier call took, or one of an earlier transfer.
    pub(super) fn not_before(&self, end: u64) -> Time {
        if end == self.end {
            self.began
        } else if end > self.start {
            self.opened
        } else {
            Time::default()
        }
    }

    pub(super) fn moved(&mut self, bytes: u64, method: Method) {
        if method == Method::Copy {
            self.moved.copied += bytes;
        } else {
            self.moved.uncopied += bytes;
            self.moved.how = method;
        }
    }

    pub(super) fn refused(&mut self, bytes: u64) {
        self.moved.refused += bytes;
    }

    /// What moved most of it.
    pub(super) fn method(&self) -> Method {
        let Moved { copied, uncopied, refused, how } = self.moved;
        if uncopied <= copied {
            Method::Copy
        } else if how == Method::ZeroCopy && refused * 2 > uncopied {
            Method::ZeroCopyRefused
        } else {
            how
        }
    }

    pub(super) fn memory(&self) -> u64 {
        self.payload.as_ref().map_or(0, Payload::memory_len)
    }

    /// Whether the peer's acknowledgement is still of interest.
    pub(super) fn awaits_ack(&self) -> bool {
        self.file_pinned
            || !self.concluded
                && (self.watch.contains(Watch::ACKED) || self.watch.contains(Watch::TRANSMITTED))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.concluded && self.payload.is_none()
    }
}
