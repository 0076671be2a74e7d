//! A peer with the case's own record layer, which can say anything and keeps
//! everything: whatever it is sent has to be records, and each has to open.

use super::End;
use crate::failure::{Failure, ensure};
use crate::far_end::Records;
use crate::rig::{PATIENCE, Rig};
use crate::sys::tcp;
use crate::tls::{ALERT, DATA, HANDSHAKE, HELLO, Known, Opened, Sealing};
use crate::wire::{Pair, Wire};
use crate::{Subject, pattern};
use lastbyte::{AttachOptions, ConnectionId};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// It is stepped by the case, in the case's own thread.
#[derive(Debug)]
pub(crate) struct RecordPeer {
    pub(crate) socket: TcpStream,
    pub(crate) sealing: Sealing,
    opening: Sealing,
    /// Bytes of the wire that no whole record was made of yet.
    wire: Vec<u8>,
    /// Records that were sent to it after the handshake.
    pub(crate) records: Vec<Opened>,
    /// Where they ended on the wire.
    pub(crate) account: Records,
    /// What ended the connection; `Left` while it goes on.
    pub(crate) end: End,
}

impl RecordPeer {
    /// A connection between the subject and such a peer, after the handshake.
    pub(crate) fn join(
        rig: &mut Rig,
        subject: &Subject,
        known: &Known,
        wire: Wire,
    ) -> Result<(ConnectionId, Self), Failure> {
        Self::join_after(rig, subject, known, wire, &[])
    }

    /// The same, with `early` on the peer's side right behind its handshake, in
    /// the same segment.
    pub(crate) fn join_after(
        rig: &mut Rig,
        subject: &Subject,
        known: &Known,
        wire: Wire,
        early: &[u8],
    ) -> Result<(ConnectionId, Self), Failure> {
        Self::join_pair(rig, wire.pair(subject)?, known, early)
    }

    /// The same between these two sockets.
    pub(crate) fn join_pair(
        rig: &mut Rig,
        pair: Pair,
        known: &Known,
        early: &[u8],
    ) -> Result<(ConnectionId, Self), Failure> {
        let Pair { own, peer } = pair;
        let made = rig.driver().counters().handshakes;
        let connection = rig.attach(own, &AttachOptions::default())?;
        let mut said = HELLO.to_vec();
        said.extend_from_slice(early);
        (&peer).write_all(&said)?;
        peer.set_nonblocking(true)?;
        let mut answer = Vec::new();
        rig.until_outside("the answer to the handshake", |_| {
            let mut rest = [0; Known::ANSWERED];
            let rest = &mut rest[answer.len()..];
            if let Ok(got) = (&peer).read(rest) {
                answer.extend_from_slice(&rest[..got]);
            }
            answer.len() == Known::ANSWERED
        })?;
        // Handing it to the kernel may take a while.
        let deadline = Instant::now() + PATIENCE;
        while rig.driver().counters().handshakes == made {
            ensure!(Instant::now() < deadline, "the handshake does not end");
            rig.turn(Duration::from_millis(2))?;
        }
        let mut peer = Self::after_handshake(peer, known)?;
        peer.account.wire(answer.len());
        Ok((connection, peer))
    }

    /// Such a peer on a socket over which nothing was said yet that is to be
    /// accounted for: others have made the handshake.
    pub(crate) fn after_handshake(socket: TcpStream, known: &Known) -> Result<Self, Failure> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            sealing: known.sealing(),
            opening: known.opening(),
            wire: Vec::new(),
            records: Vec::new(),
            account: Records::default(),
            end: End::Left,
        })
    }

    /// Sends one record.
    pub(crate) fn send(&mut self, kind: u8, content: &[u8]) -> Result<(), Failure> {
        let record = self.sealing.seal(kind, content)?;
        self.send_raw(&record)
    }

    /// Sends bytes as they are: no more than fit the buffers between the two.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// Sends FIN.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.socket.shutdown(Shutdown::Write)?)
    }

    /// Takes what is there, up to `bytes`, and opens it. A KeyUpdate changes the
    /// keys that open what follows.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<(), Failure> {
        let mut buffer = vec![0; bytes];
        let mut got = 0;
        while got < bytes && self.end == End::Left {
            match self.socket.read(&mut buffer[got..]) {
                Ok(0) => self.end = End::Finished,
                Ok(n) => got += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.end = End::of(&error).ok_or(error)?,
            }
        }
        self.wire.extend_from_slice(&buffer[..got]);
        let mut at = 0;
        while let Some(opened) = self.opening.open(&self.wire[at..])? {
            at += opened.len;
            self.account.wire(opened.len);
            self.account.ended(if opened.kind == DATA { opened.content.len() } else { 0 });
            // KeyUpdate is the only one that is sent to it (RFC 8446, 4.6.3).
            if opened.kind == HANDSHAKE && opened.content.first() == Some(&24) {
                self.opening.update();
            }
            self.records.push(opened);
        }
        self.wire.drain(..at);
        Ok(())
    }

    /// Every byte of the wire that its kernel has ever had.
    pub(crate) fn held(&self) -> Result<u64, Failure> {
        let read = self.account.wire_read() + self.wire.len() as u64;
        Ok(read + tcp::unread(&self.socket)?)
    }

    /// Turns and reads until the connection has ended.
    pub(crate) fn read_to_end(&mut self, rig: &mut Rig) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while self.end == End::Left {
            ensure!(Instant::now() < deadline, "the end does not come");
            rig.turn(Duration::from_millis(1))?;
            self.read(1 << 20)?;
        }
        Ok(())
    }

    /// Whether what no record was made of has `bytes` in it.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.wire.windows(bytes.len()).any(|window| window == bytes)
    }

    /// The payload that came, in one piece.
    pub(crate) fn content(&self) -> Vec<u8> {
        let data = self.records.iter().filter(|record| record.kind == DATA);
        data.flat_map(|record| record.content.iter().copied()).collect()
    }

    /// Records of one type.
    pub(crate) fn of(&self, kind: u8) -> impl Iterator<Item = &Opened> {
        self.records.iter().filter(move |record| record.kind == kind)
    }

    /// Fails unless it got the first `len` bytes of the pattern, `close_notify`,
    /// and FIN, and nothing behind them.
    pub(crate) fn expect_all(&self, len: u64) -> Result<(), Failure> {
        self.expect_intact()?;
        let got = self.content().len() as u64;
        ensure!(got == len, "the peer got {got} bytes instead of {len} ({:?})", self.end);
        ensure!(self.end == End::Finished, "the stream ended {:?}", self.end);
        ensure!(self.wire.is_empty(), "{} bytes that are no whole record", self.wire.len());
        let last = self.records.last().map(|record| (record.kind, &*record.content));
        ensure!(last == Some((ALERT, &[1, 0])), "the last record is {last:?}");
        Ok(())
    }

    /// Fails if a byte was not the pattern's, however many there were.
    pub(crate) fn expect_intact(&self) -> Result<(), Failure> {
        let content = self.content();
        let wrong = content.iter().zip(0..).find(|(byte, at)| **byte != pattern::byte(*at));
        match wrong {
            None => Ok(()),
            Some((_, at)) => Err(Failure::new(format!("the peer read a wrong byte at {at}"))),
        }
    }
}
