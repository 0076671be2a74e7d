//! Making a ring, with the best set-up that the kernel takes.

use super::last_slot::LastSlot;
use super::{Queues, Ring};
use io_uring::{IoUring, Parameters, cqueue, squeue};
use std::io;
use std::os::fd::AsRawFd;

/// What a ring is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Operations that can be started between two submissions without one more.
    pub(crate) entries: u32,
    /// Completions that can wait to be taken out.
    pub(crate) completions: u32,
    /// Only this thread will ever use it, and says when completions are to be
    /// worked out: the cheapest way there is (Linux 6.1).
    pub(crate) deferred: bool,
}

/// Flags that go together, the best first. A kernel that does not know one
/// answers `EINVAL` to all.
#[derive(Clone, Copy, Debug)]
struct Rung {
    /// `SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG`, Linux 6.1.
    deferred: bool,
    /// `NO_SQARRAY`, Linux 6.6.
    direct: bool,
    /// `SUBMIT_ALL`, Linux 5.18, and `CQE32`, Linux 5.19.
    wide: bool,
}

const LADDER: [Rung; 4] = [
    Rung { deferred: true, direct: true, wide: true },
    Rung { deferred: true, direct: false, wide: true },
    Rung { deferred: false, direct: false, wide: true },
    Rung { deferred: false, direct: false, wide: false },
];

/// Fewest completions that are worth having.
const FEWEST: u32 = 16;

impl Ring {
    /// Makes a ring. Where the kernel has no memory for as many entries as
    /// wished for (`RLIMIT_MEMLOCK` counts on some), it has fewer.
    ///
    /// # Errors
    /// `EPERM`, `EACCES` or `ENOSYS` if this process may have no ring;
    /// `EOPNOTSUPP` if the kernel's rings cannot wait with a time limit (before
    /// Linux 5.11), or could lose completions.
    pub(crate) fn new(mut wish: Wish) -> io::Result<Self> {
        loop {
            match Self::whole(wish) {
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM) && wish.completions > FEWEST =>
                {
                    wish.completions = (wish.completions / 4).max(FEWEST);
                    wish.entries = wish.entries.min(wish.completions / 2);
                }
                result => return result,
            }
        }
    }

    /// Makes a ring with as many entries as wished for.
    ///
    /// # Errors
    /// As [`Self::new`], and `ENOMEM` if there is no memory for as many.
    pub(crate) fn whole(wish: Wish) -> io::Result<Self> {
        let mut rungs = LADDER.into_iter().filter(|rung| wish.deferred || !rung.deferred);
        let mut rung = rungs.next().ok_or(io::ErrorKind::InvalidInput)?;
        loop {
            match rung.build(wish) {
                Ok(queues) => return Ok(Self { queues, deferred: rung.deferred, full: (0, 0) }),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    rung = rungs.next().ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Rung {
    fn build(self, wish: Wish) -> io::Result<Queues> {
        if self.wide {
            let ring = IoUring::<squeue::Entry, cqueue::Entry32>::builder();
            let ring = self.flags(ring, wish).build(wish.entries)?;
            suffices(ring.params())?;
            let last_slot = LastSlot::of(ring.as_raw_fd(), ring.params().cq_entries())?;
            Ok(Queues::Wide(ring, last_slot))
        } else {
            let ring = IoUring::<squeue::Entry, cqueue::Entry>::builder();
            let ring = self.flags(ring, wish).build(wish.entries)?;
            suffices(ring.params()).map(|()| Queues::Narrow(ring))
        }
    }

    fn flags<C: cqueue::EntryMarker>(
        self,
        mut ring: io_uring::Builder<squeue::Entry, C>,
        wish: Wish,
    ) -> io_uring::Builder<squeue::Entry, C> {
        ring.setup_clamp().setup_cqsize(wish.completions);
        if self.wide {
            ring.setup_submit_all();
        }
        if self.deferred {
            ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        } else if self.wide {
            ring.setup_coop_taskrun();
        }
        if self.direct {
            ring.setup_no_sqarray();
        }
        ring
    }
}

fn suffices(params: &Parameters) -> io::Result<()> {
    if params.is_feature_ext_arg() && params.is_feature_nodrop() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }
}
