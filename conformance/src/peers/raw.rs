//! A peer that takes the wire as it is, in the case's own thread.

use super::End;
use crate::failure::{Failure, ensure};
use crate::rig::{PATIENCE, Rig};
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// All that comes until the end, and what the end is, while the driver turns.
pub(crate) fn wire_to_end(
    rig: &mut Rig,
    mut socket: &TcpStream,
) -> Result<(Vec<u8>, End), Failure> {
    socket.set_nonblocking(true)?;
    let mut wire = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let deadline = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "the stream does not end");
        match socket.read(&mut buffer) {
            Ok(0) => return Ok((wire, End::Finished)),
            Ok(n) => wire.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                rig.turn(Duration::from_millis(1))?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Ok((wire, End::of(&error).ok_or(error)?)),
        }
    }
}
