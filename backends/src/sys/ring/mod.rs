//! `io_uring(7)`: a ring, the operations that are used of it, and the memory
//! that the kernel reads and writes on their behalf.

mod buffers;
mod last_slot;
mod operations;
mod registered;
mod send;
mod set_up;

pub(crate) use buffers::ReceiveBuffers;
pub(crate) use operations::{Interest, Way, accepted, stamp};
pub(crate) use registered::{PLACES, Registered};
pub(crate) use send::SendMemory;
pub(crate) use set_up::Wish;

use crate::sys::event_fd::EventFd;
use io_uring::{IoUring, Submitter, cqueue, squeue, types};
use last_slot::LastSlot;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// `IORING_ENTER_GETEVENTS`, `include/uapi/linux/io_uring.h`.
const ENTER_GETEVENTS: u32 = 1;

/// Longer than that there is no difference between waits, and the kernel's seconds
/// are signed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A ring. Its completions are 32 bytes wide where the kernel has that, for
/// stamps come in the second half.
pub(crate) struct Ring {
    queues: Queues,
    /// Completions only appear when the ring is entered for them.
    deferred: bool,
    /// Times that there was no room for submissions, for completions.
    pub(crate) full: (u64, u64),
}

enum Queues {
    Wide(IoUring<squeue::Entry, cqueue::Entry32>, LastSlot),
    Narrow(IoUring<squeue::Entry, cqueue::Entry>),
}

/// Does the same with either kind of ring.
macro_rules! with {
    ($queues:expr, $ring:ident => $do:expr) => {
        match $queues {
            Queues::Wide($ring, _) => $do,
            Queues::Narrow($ring) => $do,
        }
    };
}

/// A name that no operation has.
pub(crate) const NOBODY: u64 = u64::MAX;

/// What the kernel says of an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Completion {
    /// The name that the operation was given.
    pub(crate) name: u64,
    /// Its result, or a negated `errno(3)`.
    pub(crate) result: i32,
    /// `IORING_CQE_F_…`.
    pub(crate) flags: u32,
    /// The second half of a wide one.
    pub(crate) extra: [u64; 2],
}

impl Completion {
    /// Whether more will be said of the operation (`IORING_CQE_F_MORE`).
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether this says that memory is free again (`IORING_CQE_F_NOTIF`).
    pub(crate) fn is_notification(&self) -> bool {
        cqueue::notif(self.flags)
    }

    /// The provided buffer that was filled.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The result as system calls tell it.
    pub(crate) fn value(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

impl Ring {
    /// Whether completions are wide enough for stamps.
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self.queues, Queues::Wide(..))
    }

    /// Whether completions only appear when the ring is entered
    /// (`IORING_SETUP_DEFER_TASKRUN`).
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// Whether there are completions in the queue, or the kernel has some that it puts
    /// there when the ring is entered.
    pub(crate) fn has_more(&mut self) -> bool {
        with!(&mut self.queues, ring => {
            let queue = ring.submission();
            let has_work = queue.taskrun() || queue.cq_overflow();
            drop(queue);
            has_work || !ring.completion().is_empty()
        })
    }

    fn submitter(&self) -> Submitter<'_> {
        with!(&self.queues, ring => ring.submitter())
    }

    /// The ring's own descriptor: readable while there are completions in the queue.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = with!(&self.queues, ring => ring.as_raw_fd());
        // SAFETY: the ring owns the descriptor, and the result borrows the ring.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Has `event` set whenever there is something to enter or to reap for. A
    /// deferred ring's own descriptor does not tell of work that waits for its
    /// thread (`io_uring/io_uring.c`, `io_req_local_work_add`).
    pub(crate) fn announce(&self, event: &EventFd) -> io::Result<()> {
        self.submitter().register_eventfd(event.as_raw_fd())
    }

    /// Whether the kernel has taken in all that was started.
    pub(crate) fn has_handed_over(&mut self) -> bool {
        with!(&mut self.queues, ring => ring.submission().is_empty())
    }

    /// Hands over what was started, and waits until a completion is there, for
    /// `wait` at the longest. A signal ends the wait early.
    pub(crate) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let entered = match wait {
            Some(Duration::ZERO) => return self.submit(),
            None => with!(&mut self.queues, ring => ring.submitter().submit_and_wait(1)),
            Some(wait) => {
                let wait = types::Timespec::from(wait.min(LONGEST));
                let args = types::SubmitArgs::new().timespec(&wait);
                with!(&mut self.queues, ring => ring.submitter().submit_with_args(1, &args))
            }
        };
        match entered {
            Err(error) if is_harmless(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Hands over what was started, and lets the kernel put completions into
    /// the queue, without waiting.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.enter_with(ENTER_GETEVENTS)
    }

    /// Hands over what was started, and no more: completions that wait for this
    /// thread go on waiting.
    pub(crate) fn hand_over(&mut self) -> io::Result<()> {
        self.enter_with(0)
    }

    fn enter_with(&mut self, flags: u32) -> io::Result<()> {
        let entered = with!(&mut self.queues, ring => {
            let started = u32::try_from(ring.submission().len()).unwrap_or(u32::MAX);
            // SAFETY: no argument is passed, and the flag only asks for
            // completions. What the operations refer to was seen to when they
            // were started.
            unsafe { ring.submitter().enter::<libc::sigset_t>(started, 0, flags, None) }
        });
        match entered {
            Err(error) if is_harmless(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes out every completion that is there.
    pub(crate) fn reap(&mut self, mut take: impl FnMut(Completion)) {
        let overflows = with!(&mut self.queues, ring => ring.submission().cq_overflow());
        self.full.1 += u64::from(overflows);
        match &mut self.queues {
            Queues::Wide(ring, last_slot) => {
                for entry in ring.completion() {
                    last_slot.has_read();
                    let extra = *entry.big_cqe();
                    take(Completion::from_parts(
                        entry.user_data(),
                        entry.result(),
                        entry.flags(),
                        extra,
                    ));
                }
            }
            Queues::Narrow(ring) => {
                for entry in ring.completion() {
                    take(Completion::from_parts(
                        entry.user_data(),
                        entry.result(),
                        entry.flags(),
                        [0; 2],
                    ));
                }
            }
        }
    }

    /// Enters `entry`, and makes room by submitting if the queue is full.
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: every caller is an operation in `operations`, which says
            // why what `entry` refers to stays valid until it has completed.
            let pushed = with!(&mut self.queues, ring => unsafe { ring.submission().push(entry) });
            if pushed.is_ok() {
                return Ok(());
            }
            self.full.0 += 1;
            self.submit()?;
            if with!(&mut self.queues, ring => ring.submission().is_full()) {
                // The kernel takes nothing for now, for want of memory or
                // because completions pile up.
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
        }
    }
}

impl Completion {
    fn from_parts(name: u64, result: i32, flags: u32, extra: [u64; 2]) -> Self {
        Self { name, result, flags, extra }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("wide", &self.is_wide())
            .field("deferred", &self.deferred)
            .finish_non_exhaustive()
    }
}

/// The wait's time was over or a signal came, or the kernel wants completions
/// taken out before it takes more in.
fn is_harmless(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
