//! The suite's side.

use super::{Account, Purpose};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the other machine waits for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// A stream to the other machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    peer: SocketAddr,
    token: u64,
}

impl Stream {
    /// Connects. What is written from now on has to be the pattern. A stalled
    /// stream is not read before [`Self::go`].
    pub(crate) fn open(peer: SocketAddr, stalled: bool) -> io::Result<(TcpStream, Self)> {
        // The seed of a hash map is random, and no secret is needed.
        let stream = Self { peer, token: RandomState::new().build_hasher().finish() };
        let purpose = if stalled { Purpose::StalledStream } else { Purpose::Stream };
        Ok((stream.say(purpose)?, stream))
    }

    pub(crate) fn go(&self) -> io::Result<()> {
        // It hangs up when it has understood. A ring of this thread's may interrupt
        // the wait on older kernels, which this call takes for granted.
        self.say(Purpose::Go)?.read_to_end(&mut Vec::new()).map(drop)
    }

    /// What it got, when the stream has ended.
    pub(crate) fn account(&self) -> io::Result<Account> {
        let mut text = String::new();
        self.say(Purpose::Report)?.read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the peer knows nothing of the stream")
        })
    }

    fn say(&self, purpose: Purpose) -> io::Result<TcpStream> {
        let mut socket = TcpStream::connect_timeout(&self.peer, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&purpose.hello(self.token))?;
        Ok(socket)
    }
}
