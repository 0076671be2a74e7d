//! The other machine: it takes streams, and gives account of what it got.
//!
//! A peer in the same kernel cannot show that memory goes out without a copy:
//! loopback and veth copy always. A connection to this one begins with a hello
//! of 16 bytes. Streams are named by a token that the suite chose, so that a
//! second connection can ask about the first, whatever address translation is
//! between them.

mod account;
mod client;
mod server;

pub(crate) use account::Account;
pub(crate) use client::Stream;
pub(crate) use server::Remote;

use crate::cli::output::{self, tell};
use std::net::SocketAddr;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; `run --peer` on the other machine names it. Whoever can
    /// reach it can send to it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

/// `conformance peer`: serves until it is stopped.
pub(crate) fn serve(options: &Options) -> Result<ExitCode, String> {
    let listen = options.listen;
    let remote = Remote::listen(listen).map_err(|error| format!("listen on {listen}: {error}"))?;
    tell(&format!("listening on {}; stop it with Ctrl-C", remote.address()));
    if output::lost().is_some() {
        // Nobody can know where to reach it; `main` says why.
        return Ok(ExitCode::FAILURE);
    }
    remote.serve();
    Ok(ExitCode::SUCCESS)
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    /// A stream of the pattern follows, and is read as it comes.
    Stream,
    /// The same, but nothing is read before a go.
    StalledStream,
    /// From now on the stalled stream is read.
    Go,
    /// An account of the stream is wanted when it has ended.
    Report,
}

const MAGIC: [u8; 4] = *b"LBC1";
type Hello = [u8; 16];

impl Purpose {
    const ALL: [Self; 4] = [Self::Stream, Self::StalledStream, Self::Go, Self::Report];

    fn hello(self, token: u64) -> Hello {
        let mut hello = [0; 16];
        hello[..4].copy_from_slice(&MAGIC);
        hello[4] = self as u8;
        hello[8..].copy_from_slice(&token.to_be_bytes());
        hello
    }

    fn of(hello: &Hello) -> Option<(Self, u64)> {
        let purpose = Self::ALL.into_iter().find(|purpose| *purpose as u8 == hello[4])?;
        let token = u64::from_be_bytes(hello[8..].try_into().ok()?);
        (hello[..4] == MAGIC).then_some((purpose, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern;
    use std::io::Write;

    #[test]
    fn a_stream_is_accounted_for() {
        let remote = Remote::start().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], remote.port()));
        let (mut socket, stream) = Stream::open(address, true).unwrap();
        let mut bytes = pattern::bytes(0, 10_000);
        bytes[9_000..].iter_mut().for_each(|byte| *byte = !*byte);
        bytes.push(pattern::bytes(10_000, 1)[0] ^ 1);
        socket.write_all(&bytes).unwrap();
        drop(socket);
        stream.go().unwrap();
        let account = stream.account().unwrap();
        let expected = Account { received: 10_001, inverted: 1_000, wrong: 1, finished: true };
        assert_eq!(account, expected);
    }

    #[test]
    fn what_is_no_hello_is_hung_up_on() {
        use std::io::Read;
        let remote = Remote::start().unwrap();
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", remote.port())).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(socket.read(&mut [0; 9]), Ok(0) | Err(_)));
    }
}
