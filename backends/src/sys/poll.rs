//! `poll(2)`.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// One descriptor to be polled, and what was found.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Polled(libc::pollfd);

impl Polled {
    pub(crate) fn new(fd: RawFd) -> Self {
        Self(libc::pollfd { fd, events: 0, revents: 0 })
    }

    pub(crate) fn want(&mut self, input: bool, output: bool) {
        self.0.events =
            if input { libc::POLLIN } else { 0 } | if output { libc::POLLOUT } else { 0 };
        // On Linux a hang-up means that both directions are over; elsewhere (XNU,
        // `bsd/kern/sys_generic.c`, `poll_callback`) that the peer has ended its own,
        // and then room is still to be waited for.
        if output && self.0.fd < 0 {
            self.0.fd = !self.0.fd;
        }
    }

    /// Leaves the descriptor out, until output is wanted: `poll` skips negative ones.
    pub(crate) fn mute(&mut self) {
        if self.0.fd >= 0 {
            self.0.fd = !self.0.fd;
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.revents != 0
    }

    pub(crate) fn input(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP) != 0
    }

    pub(crate) fn output(&self) -> bool {
        self.0.revents & (libc::POLLOUT | libc::POLLHUP) != 0
    }

    pub(crate) fn error(&self) -> bool {
        self.0.revents & (libc::POLLERR | libc::POLLNVAL) != 0
    }

    pub(crate) fn hangup(&self) -> bool {
        self.0.revents & libc::POLLHUP != 0
    }
}

/// Whether a socket has room for output now. If not, the kernel will signal
/// when it has.
pub(crate) fn has_room(socket: &impl AsRawFd) -> bool {
    is_ready_for(socket, false, true)
}

/// Whether a socket has input now, or somebody to be accepted.
pub(crate) fn has_input(socket: &impl AsRawFd) -> bool {
    is_ready_for(socket, true, false)
}

fn is_ready_for(socket: &impl AsRawFd, input: bool, output: bool) -> bool {
    let mut polled = [Polled::new(socket.as_raw_fd())];
    polled[0].want(input, output);
    // An error shows when it is tried.
    wait(&mut polled, Some(Duration::ZERO)).is_err() || polled[0].is_ready()
}

/// Waits until one of `set` is ready or `wait` is over, and says how many are.
/// A signal ends the wait early with 0.
pub(crate) fn wait(set: &mut [Polled], wait: Option<Duration>) -> io::Result<usize> {
    // Rounded up: waking before a timer is due would only make another round.
    let millis = wait.map_or(-1, |wait| {
        libc::c_int::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    let len = libc::nfds_t::try_from(set.len()).map_err(io::Error::other)?;
    // SAFETY: `Polled` is a transparent `pollfd`, so the slice is an array of
    // `len` of them, and it is borrowed for the duration of the call.
    let ready = unsafe { libc::poll(set.as_mut_ptr().cast(), len, millis) };
    match super::check(ready) {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            set.iter_mut().for_each(|polled| polled.0.revents = 0);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
