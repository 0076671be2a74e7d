//! Starting what ports are to wait for.

use super::{NOWHERE, RingSelector};
use crate::ring::in_flight::Purpose;
use crate::ring::port::Input;
use crate::sockets::selector::{Happening, Ready};
use crate::sys::poll;
use crate::sys::ring::{Interest, NOBODY, ReceiveBuffers, Ring};
use std::io;
use std::os::fd::AsRawFd;

impl RingSelector {
    /// Starts what the ports that changed their mind are to wait for. If the
    /// kernel takes no more for now, the rest has to wait for the next turn.
    pub(super) fn start_wanted(&mut self) -> io::Result<()> {
        let started = self.try_start_wanted();
        self.is_refused = started.is_err();
        match started {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            other => other,
        }
    }

    fn try_start_wanted(&mut self) -> io::Result<()> {
        if !self.cancel_left() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        if !self.listens_to_waker {
            let fd = self.waker.as_raw_fd();
            self.start(NOWHERE, Purpose::Wake, |ring, name| {
                ring.poll(fd, Interest::Input, false, name)
            })?;
            self.listens_to_waker = true;
        }
        while let Some(&place) = self.dirty.front() {
            self.look_after(place)?;
            self.dirty.pop_front();
            if let Some(port) = self.ports.get_mut(place) {
                port.is_dirty = false;
            }
        }
        self.feed_starved()
    }

    /// Receives again where no buffer was left, in turn, and only on as many sockets
    /// as there are likely to be buffers for: a receive takes one before it looks for
    /// input, and one that gets none ends (`io_uring/net.c`, `io_recv`).
    fn feed_starved(&mut self) -> io::Result<()> {
        // With a turn's worth of work at hand nothing more is fetched.
        if self.waiting.len() >= self.limit {
            return Ok(());
        }
        let buffers = self.buffers.as_ref().map_or(0, ReceiveBuffers::lent);
        // With none at all, input is read by calls.
        let most = if buffers == 0 { usize::MAX } else { buffers.div_ceil(2) };
        for _ in 0..most.min(self.starved.len()) {
            let Some(&place) = self.starved.front() else { break };
            if let Some(port) = self.ports.get_mut(place) {
                port.is_starved = false;
                self.look_after(place)?;
            }
            self.starved.pop_front();
        }
        Ok(())
    }

    /// Starts an operation of a port, and says what it is called.
    fn start(
        &mut self,
        place: usize,
        purpose: Purpose,
        operation: impl FnOnce(&mut Ring, u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let name = self.in_flight.start(place, purpose, None);
        if let Err(error) = operation(&mut self.ring, name) {
            drop(self.in_flight.withdraw(name));
            return Err(error);
        }
        self.started = true;
        if let Some(port) = self.ports.get_mut(place) {
            port.busy += 1;
        }
        Ok(name)
    }

    fn look_after(&mut self, place: usize) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(place).filter(|port| port.token.is_some()) else {
            return Ok(());
        };
        let (listens, idle) = (port.listens, port.input.is_none());
        let accepts = listens && self.uses.accepts;
        let is_out = self.buffers.as_ref().is_none_or(|buffers| buffers.lent() == 0);
        port.one_by_one |= idle && port.wants_input && is_out;
        let receives = !listens && !port.one_by_one;
        if port.wants_input && idle && !port.is_starved && !port.input_ended {
            self.begin_input(place, accepts, receives)?;
        } else if let Some(input) = port.input.filter(|input| !input.cancelled)
            && (accepts && !port.wants_input
                || port.one_by_one && input.purpose == Purpose::Receive)
        {
            self.cancel_input(place, input)?;
        }
        let port = &self.ports[place];
        if listens {
            return Ok(());
        }
        let (fd, repeatedly) = (port.fd, port.half_closed || port.hung_up);
        // Of a connection that is over only the error queue is of interest: the
        // kernel says there when it lets go of memory.
        let stamps = self.uses.stamps && !port.no_stamps && !port.hung_up;
        // Receiving tells of errors and the peer's end, too.
        let watches = !stamps || port.input.is_none();
        let output = port.wants_output && port.output.is_none() && !port.hung_up;
        let trouble = watches && port.trouble.is_none();
        let stamps = stamps && port.stamps.is_none();
        let polls_for_output = port.wants_output && port.output.is_some();
        if polls_for_output && repeatedly && poll::has_room(port) {
            // The poll that goes on told of that before it was wanted.
            let token = port.token.unwrap_or(NOWHERE);
            let ready = Ready { token, writable: true, ..Ready::default() };
            self.waiting.push_back(Happening::Ready(ready));
        }
        if output {
            self.ports[place].output = Some(self.start(place, Purpose::Output, |ring, name| {
                ring.poll(fd, Interest::Output, repeatedly, name)
            })?);
        }
        if stamps {
            let name = self.start(place, Purpose::Stamps, |ring, name| ring.stamps(fd, name))?;
            self.ports[place].stamps = Some(name);
        }
        if trouble {
            self.ports[place].trouble =
                Some(self.start(place, Purpose::Trouble, |ring, name| {
                    ring.poll(fd, Interest::Trouble, repeatedly, name)
                })?);
        }
        Ok(())
    }

    fn begin_input(&mut self, place: usize, accepts: bool, receives: bool) -> io::Result<()> {
        let fd = self.ports[place].fd;
        let group = self.buffers.as_ref().map_or(0, ReceiveBuffers::group);
        let purpose = match (accepts, receives) {
            (true, _) => Purpose::Accept,
            (_, true) => Purpose::Receive,
            _ => Purpose::Input,
        };
        let name = self.start(place, purpose, |ring, name| match purpose {
            Purpose::Accept => ring.accept(fd, name),
            Purpose::Receive => ring.receive(fd, group, name),
            _ => ring.poll(fd, Interest::Input, false, name),
        })?;
        self.ports[place].input = Some(Input { name, purpose, cancelled: false });
        Ok(())
    }

    pub(super) fn cancel_input(&mut self, place: usize, input: Input) -> io::Result<()> {
        self.ring.cancel(input.name, NOBODY)?;
        self.started = true;
        self.ports[place].input = Some(Input { cancelled: true, ..input });
        Ok(())
    }
}
