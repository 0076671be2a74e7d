//! The other machine's side.

use super::{Account, Hello, Purpose};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a stream may pause, and how long an account is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A stalled stream shall be felt by its sender soon.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Streams that are remembered. Beyond, the first in the order of tokens, which
/// are random, is forgotten.
const REMEMBERED: usize = 1024;

/// A listening peer.
#[derive(Debug)]
pub(crate) struct Remote {
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Streams {
    known: Mutex<BTreeMap<u64, State>>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    go: bool,
    account: Option<Account>,
}

impl Remote {
    /// On loopback, and served by a thread of its own.
    pub(crate) fn start() -> io::Result<Self> {
        let remote = Self::listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let served = Self { listener: Arc::clone(&remote.listener), address: remote.address };
        std::thread::Builder::new().name("remote".into()).spawn(move || served.serve())?;
        Ok(remote)
    }

    pub(super) fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Self { listener: Arc::new(listener), address })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever, a thread a connection.
    pub(super) fn serve(&self) {
        let streams = Arc::new(Streams::default());
        loop {
            let Ok((socket, _)) = self.listener.accept() else {
                // Too many descriptors, mostly: some will be closed.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let streams = Arc::clone(&streams);
            // Without a thread, and at any error, the connection is dropped: the
            // suite sees that.
            drop(std::thread::Builder::new().spawn(move || streams.attend(socket)));
        }
    }
}

impl Streams {
    fn attend(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut hello: Hello = [0; 16];
        socket.read_exact(&mut hello)?;
        let Some((purpose, token)) = Purpose::of(&hello) else { return Ok(()) };
        match purpose {
            Purpose::Stream => self.read(&mut socket, token),
            Purpose::StalledStream => {
                self.wait(token, |state| state.go);
                self.read(&mut socket, token);
            }
            Purpose::Go => self.change(token, |state| state.go = true),
            Purpose::Report => {
                let account = self.wait(token, |state| state.account.is_some()).account;
                if let Some(account) = account {
                    socket.write_all(serde_json::to_string(&account)?.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn read(&self, socket: &mut TcpStream, token: u64) {
        let mut account = Account::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => {
                    account.finished = true;
                    break;
                }
                Ok(n) => account.take(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.change(token, |state| state.account = Some(account));
    }

    fn change(&self, token: u64, change: impl FnOnce(&mut State)) {
        let mut known = self.known();
        if known.len() >= REMEMBERED && !known.contains_key(&token) {
            known.pop_first();
        }
        change(known.entry(token).or_default());
        self.changed.notify_all();
    }

    /// Waits until `reached`, or patience ends.
    fn wait(&self, token: u64, reached: impl Fn(&State) -> bool) -> State {
        let state = |known: &BTreeMap<u64, State>| known.get(&token).copied().unwrap_or_default();
        let waiting = |known: &mut BTreeMap<u64, State>| !reached(&state(known));
        let (known, _) = self
            .changed
            .wait_timeout_while(self.known(), PATIENCE, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state(&known)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
