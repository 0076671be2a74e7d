//! Accepting.

use super::context::Context;
use super::selector::Done;
use crate::sys::{accept, poll};
use lastbyte::{Event, ListenerId, Socket, Time};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long a listener rests when descriptors or memory have run out. Nothing
/// signals that some were freed, so this is also how soon it recovers.
const REST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) id: ListenerId,
    pub(super) token: usize,
    pub(super) in_again: bool,
    /// Resting, until an alarm for this time.
    resting: Option<Time>,
    /// Accepted by the selector, and not handed on yet.
    accepted: VecDeque<TcpStream>,
}

/// Connections that the selector may accept ahead before it has to stop.
const AHEAD: usize = 128;

impl Listener {
    pub(super) fn new(socket: TcpListener, id: ListenerId, token: usize) -> Self {
        Self { socket, id, token, in_again: false, resting: None, accepted: VecDeque::new() }
    }

    /// Whether more connections are of use now.
    pub(super) fn wants_more(&self) -> bool {
        self.resting.is_none() && self.accepted.len() < AHEAD
    }

    fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// The selector has done something by itself.
    pub(super) fn done(&mut self, done: Done, cx: &mut Context) {
        match done {
            Done::Accepted(stream) => {
                self.accepted.push_back(stream);
                if !self.in_again {
                    self.in_again = true;
                    cx.again.push_back(self.token);
                }
            }
            Done::AcceptFailed(error) if is_of_the_peer(&error) => {}
            // Woken for what somebody else has taken.
            Done::AcceptFailed(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Done::AcceptFailed(error) if !self.is_resting() => self.rest(&error, cx),
            _ => {}
        }
    }

    /// Hands on every connection that was accepted.
    pub(super) fn hand_on_all(&mut self, more: Vec<TcpStream>, cx: &mut Context) {
        for stream in self.accepted.drain(..).chain(more) {
            if let Ok(peer) = stream.peer_addr() {
                let socket = Socket::accepted(stream, peer);
                cx.outbox.push(Event::Accepted { listener: self.id, socket });
            }
        }
    }

    pub(super) fn alarm(&mut self, at: Time, cx: &mut Context) {
        if self.resting == Some(at) {
            self.resting = None;
            self.accept(cx);
        }
    }

    /// There is something to accept.
    pub(super) fn ready(&mut self, cx: &mut Context) {
        // One go a turn: if it waits for one, that one comes.
        if !self.in_again {
            self.accept(cx);
        }
    }

    /// Accepts until there is nothing to accept, or it is others' turn.
    pub(super) fn accept(&mut self, cx: &mut Context) {
        // What the selector has accepted needs no descriptor any more.
        if self.is_resting() && self.accepted.is_empty() {
            return;
        }
        for _ in 0..cx.config.accept_burst {
            match self.next(cx.completes.accepts) {
                Ok((stream, peer)) => {
                    let socket = Socket::accepted(stream, peer);
                    cx.outbox.push(Event::Accepted { listener: self.id, socket });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => return self.rest(&error, cx),
            }
        }
        if !self.in_again {
            self.in_again = true;
            cx.again.push_back(self.token);
        }
    }

    fn next(&mut self, ahead: bool) -> io::Result<(TcpStream, SocketAddr)> {
        if !ahead {
            return accept::accept(&self.socket);
        }
        let stream = self.accepted.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        match stream.peer_addr() {
            Ok(peer) => Ok((stream, peer)),
            // It was over before it was looked at.
            Err(_) => Err(io::Error::from_raw_os_error(libc::ECONNABORTED)),
        }
    }

    fn rest(&mut self, error: &io::Error, cx: &mut Context) {
        let until = cx.time().after(REST);
        self.resting = Some(until);
        cx.timers.arm(until, self.token);
        // The kernel takes a descriptor before it looks whether anybody connects
        // (net/socket.c, `__sys_accept4_file`; io_uring/net.c, `io_accept`).
        if !poll::has_input(&self.socket) {
            return;
        }
        // Those who came before hear first.
        self.hand_on_all(Vec::new(), cx);
        let errno = error.raw_os_error().unwrap_or(0);
        cx.outbox.push(Event::AcceptPaused { listener: self.id, errno });
    }
}

/// Errors of a connection that was over before it was accepted: accept(2) hands
/// on the new socket's, and the next one in line may be well.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
