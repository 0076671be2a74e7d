//! Payloads into records.

use super::aead::Sealer;
use super::record::{ContentType, MAX_CONTENT};
use crate::sys::{pread, preadv};
use lastbyte::{FailReason, FileRange, Part, Payload, Pool, PooledBuf};
use smallvec::SmallVec;
use std::io::{self, IoSliceMut};

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
/// `records` records. It fails only before the first of them: what is sealed has its
/// number, and the peer cannot open what comes after it, as an alert does, without it.
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
        let room = records - sealed.contents.len();
        match seal_next(sealer, payload, at, room, pool, &mut sealed) {
            Ok(content) => at += content,
            Err(reason) if sealed.contents.is_empty() => return Err(reason),
            // The next call meets it again.
            Err(_) => break,
        }
    }
    Ok(sealed)
}

/// Seals one record more, or several of a file, and says how much of the payload that
/// was.
fn seal_next(
    sealer: &mut Sealer,
    payload: &Payload,
    at: u64,
    room: usize,
    pool: &Pool,
    sealed: &mut Sealed,
) -> Result<u64, FailReason> {
    match payload.remaining(at).next() {
        Some(Part::File { range, offset, len }) if range.memory().is_none() => {
            let is_last = len == payload.len() - at;
            let contents = contents(len, is_last, room.min(SEGMENT_RECORDS));
            if contents.len() > 1 {
                seal_file(sealer, (range, offset, len), &contents, pool, sealed)?;
                return Ok(contents.iter().map(|len| *len as u64).sum());
            }
        }
        _ => {}
    }
    let mut out = pool.take();
    let (content, copied) = seal_record(sealer, payload, at, &mut out)?;
    sealed.copied += copied;
    sealed.contents.push(content);
    sealed.payload.push(out);
    Ok(content)
}

/// How `len` bytes are cut into records: as many as there may be, and a short
/// one only at the end of a payload.
fn contents(len: u64, is_last: bool, records: usize) -> SmallVec<[usize; SEGMENT_RECORDS]> {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    let mut contents = SmallVec::new();
    while contents.len() < records && left > 0 && (left >= MAX_CONTENT || is_last) {
        contents.push(left.min(MAX_CONTENT));
        left -= left.min(MAX_CONTENT);
    }
    contents
}

/// Reads the start of a file part into the buffers of several records by one
/// call, where it is then encrypted.
fn seal_file(
    sealer: &mut Sealer,
    (range, offset, left): (&FileRange, u64, u64),
    contents: &[usize],
    pool: &Pool,
    sealed: &mut Sealed,
) -> Result<(), FailReason> {
    let prefix = sealer.prefix();
    let mut buffers: SmallVec<[PooledBuf; SEGMENT_RECORDS]> =
        contents.iter().map(|_| pool.take()).collect();
    let mut got = 0;
    loop {
        let mut skip = got;
        let places = buffers.iter_mut().zip(contents).filter_map(|(buffer, &len)| {
            let skipped = skip.min(len);
            skip -= skipped;
            let place = &mut buffer.spare()[prefix..][skipped..len];
            (!place.is_empty()).then(|| IoSliceMut::new(place))
        });
        let mut places: SmallVec<[IoSliceMut<'_>; SEGMENT_RECORDS]> = places.collect();
        if places.is_empty() {
            break;
        }
        let at = offset.saturating_add(got as u64);
        got += checked(preadv::preadv(range.source().as_fd(), &mut places, at), left - got as u64)?;
    }
    for (mut out, &len) in buffers.into_iter().zip(contents) {
        sealer.seal_in_place(ContentType::ApplicationData, len, &mut out)?;
        sealed.contents.push(len as u64);
        sealed.payload.push(out);
    }
    Ok(())
}

/// Seals one record of what follows the first `at` bytes, and says how much of
/// the payload that was, and how much of it was copied.
///
/// What lies in memory in one piece is encrypted from there. What has to be put
/// together, or read from a file, is put where it is then encrypted. Pieces are
/// only put together where they fit whole: it costs less to send one more record
/// than to copy what need not be, or to read a file in more calls.
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
        if len > 0 && part.len() > room as u64 {
            break;
        }
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
        got += checked(
            pread::pread(range.source().as_fd(), &mut room[got..want], at),
            left - got as u64,
        )?;
    }
    Ok(got)
}

/// What a read of a file part that has `left` bytes to go yields.
fn checked(result: io::Result<usize>, left: u64) -> Result<usize, FailReason> {
    match result {
        Ok(0) => Err(FailReason::FileTruncated { missing: left }),
        Ok(n) => Ok(n),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            Err(FailReason::System { doing: "pread", errno })
        }
    }
}
