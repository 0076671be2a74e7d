//! A peer that does nothing but what a case tells it, in the case's own
//! thread: between two steps nothing moves, so its account is exact.

use super::{End, Seen};
use crate::Failure;
use crate::far_end::{FarEnd, Records};
use crate::sys::tcp;
use std::io::{self, Read};

/// A socket that is read on command only.
#[derive(Debug)]
pub(crate) struct Puppet {
    far: FarEnd,
    pub(crate) seen: Seen,
}

impl Puppet {
    pub(crate) fn new(far: impl Into<FarEnd>) -> io::Result<Self> {
        let far = far.into();
        far.socket().set_nonblocking(true)?;
        Ok(Self { far, seen: Seen::new() })
    }

    /// Reads up to `bytes`, as far as there are any; says how many there were.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<usize, Failure> {
        let mut buffer = vec![0; bytes];
        let mut got = 0;
        while got < bytes && self.seen.end == End::Left {
            match self.far.read(&mut buffer[got..]) {
                Ok(0) => {
                    self.seen.end = End::Finished;
                    break;
                }
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.seen.end = End::of(&error).ok_or(error)?;
                    break;
                }
            }
        }
        self.seen.stream.take(&buffer[..got]);
        Ok(got)
    }

    /// Every byte of the wire that its kernel has ever had, and so the most
    /// that it can have acknowledged.
    pub(crate) fn held(&self) -> Result<u64, Failure> {
        Ok(self.far.records().wire_read() + tcp::unread(self.far.socket())?)
    }

    /// What it read, in the stream's bytes and in the wire's.
    pub(crate) fn records(&self) -> &Records {
        self.far.records()
    }

    pub(crate) fn into_far_end(self) -> FarEnd {
        self.far
    }
}
