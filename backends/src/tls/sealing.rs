//! Payloads into records.

use super::aead::Sealer;
use super::record::{ContentType, MAX_CONTENT};
use crate::sys::pread;
use lastbyte::{FailReason, FileRange, Part, Payload, Pool, PooledBuf};
use smallvec::SmallVec;
use std::io;

/// Records that are handed over at once.
pub(super) const SEGMENT_RECORDS: usize = 16;

/// Records of one transfer, sealed.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) payload: Payload,
    /// Payload bytes in each record.
    pub(super) contents: SmallVec<[u64; SEGMENT_RECORDS]>,
    /// Payload bytes that were copied before they were sealed.
    pub(super) copied: u64,
}

/// Seals what follows the first `offset` bytes of `payload`, into at most
/// `records` records.
pub(super) fn seal(
    sealer: &mut Sealer,
    payload: &Payload,
    offset: u64,
    records: usize,
    pool: &Pool,
) -> Result<Sealed, FailReason> {
    let mut sealed = Sealed { payload: Payload::new(), contents: SmallVec::new(), copied: 0 };
    let mut at = offset;
    while at < payload.len() && sealed.contents.len() < records {
        let mut out = pool.take();
        let (content, copied) = seal_record(sealer, payload, at, &mut out)?;
        at += content;
        sealed.copied += copied;
        sealed.contents.push(content);
        sealed.payload.push(out);
    }
    Ok(sealed)
}

/// Seals one record of what follows the first `at` bytes, and says how much of
/// the payload that was, and how much of it was copied.
///
/// What lies in memory in one piece is encrypted from there. What has to be put
/// together, or read from a file, is put where it is then encrypted. Pieces are
/// only put together where they fit whole: it costs less to send one more record
/// than to copy what need not be.
fn seal_record(
    sealer: &mut Sealer,
    payload: &Payload,
    at: u64,
    out: &mut PooledBuf,
) -> Result<(u64, u64), FailReason> {
    let left = payload.len() - at;
    let (mut len, mut copied) = (0, 0);
    for part in payload.remaining(at) {
        let room = MAX_CONTENT - len;
        match part {
            Part::File { range, offset, len: left } if range.memory().is_none() => {
                let room = &mut out.spare()[sealer.prefix() + len..][..room];
                len += read(range, offset, left, room)?;
            }
            part => {
                let bytes = memory(part);
                if len == 0 && (bytes.len() >= MAX_CONTENT || bytes.len() as u64 == left) {
                    let content = &bytes[..bytes.len().min(MAX_CONTENT)];
                    sealer.seal(ContentType::ApplicationData, content, out)?;
                    return Ok((content.len() as u64, 0));
                }
                if bytes.len() > room {
                    break;
                }
                out.spare()[sealer.prefix() + len..][..bytes.len()].copy_from_slice(bytes);
                len += bytes.len();
                copied += bytes.len() as u64;
            }
        }
        if len == MAX_CONTENT {
            break;
        }
    }
    sealer.seal_in_place(ContentType::ApplicationData, len, out)?;
    Ok((len as u64, copied))
}

/// The bytes of a part that is in memory.
fn memory(part: Part<'_>) -> &[u8] {
    match part {
        Part::Memory(bytes) => bytes,
        Part::File { range, len, .. } => {
            let from = usize::try_from(range.len() - len).unwrap_or(usize::MAX);
            range.memory().and_then(|bytes| bytes.get(from..)).unwrap_or_default()
        }
    }
}

/// Fills `room`, or reads all that is `left` of `range`.
fn read(range: &FileRange, offset: u64, left: u64, room: &mut [u8]) -> Result<usize, FailReason> {
    let want = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let mut got = 0;
    while got < want {
        let at = offset.saturating_add(got as u64);
        match pread::pread(range.source().as_fd(), &mut room[got..want], at) {
            Ok(0) => return Err(FailReason::FileTruncated { missing: left - got as u64 }),
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                return Err(FailReason::System { doing: "pread", errno });
            }
        }
    }
    Ok(got)
}
