//! The socket error queue: stamps, zero-copy notifications and network errors
//! all come through it, so it has one reader.

use super::uncancelled;
use lastbyte::{Stamp, StampOf, UnixTime};
use std::io;
use std::os::fd::BorrowedFd;

/// `include/uapi/linux/errqueue.h`.
const SO_EE_ORIGIN_TIMESTAMPING: u8 = 4;
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;
const SCM_TSTAMP_SND: u32 = 0;
const SCM_TSTAMP_ACK: u32 = 2;

/// One entry of the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    /// The kernel is done with the memory of these zero-copy calls.
    ZeroCopyDone { first: u32, last: u32, copied: bool },
    /// The kernel has dated a byte.
    Stamp(Stamp),
    /// Something else: a network error, or a stamp nobody here asked for.
    Other,
}

/// Room for the control messages of one entry: `scm_timestamping` (48 bytes),
/// `sock_extended_err` with an IPv6 address (44), their headers, and spare.
const CONTROL: usize = 256;

/// Aligned as control messages are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Takes the oldest entry, or `None` if there is none. Never blocks.
pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<Option<Entry>> {
    let mut control = Control([0; CONTROL]);
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: `control` is valid for writes of `CONTROL` bytes; there is no
    // other buffer, for `OPT_TSONLY` and zero-copy entries carry no payload and
    // any other payload is not wanted.
    let received = super::check_len(unsafe {
        uncancelled::recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    });
    match received {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs among C libraries")]
    let len = (message.msg_controllen as usize).min(CONTROL);
    Ok(Some(decode(&control.0[..len])))
}

/// Reads an entry out of its control messages, whatever they are.
fn decode(control: &[u8]) -> Entry {
    let mut stamped_at = None;
    let mut error = None;
    for (level, kind, data) in (ControlMessages { rest: control }) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => stamped_at = software_stamp(data),
            // A kernel TLS receiver says IP also on an IPv6 socket.
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                error = ExtendedError::decode(data);
            }
            _ => {}
        }
    }
    match (error, stamped_at) {
        (Some(error), _) if error.origin == SO_EE_ORIGIN_ZEROCOPY && error.errno == 0 => {
            Entry::ZeroCopyDone {
                first: error.info,
                last: error.data,
                copied: error.code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
            }
        }
        (Some(error), Some(at)) if error.origin == SO_EE_ORIGIN_TIMESTAMPING => {
            let of = match error.info {
                SCM_TSTAMP_SND => StampOf::Transmitted,
                SCM_TSTAMP_ACK => StampOf::Acked,
                _ => return Entry::Other,
            };
            Entry::Stamp(Stamp { of, key: error.data, at })
        }
        _ => Entry::Other,
    }
}

/// `struct sock_extended_err`.
struct ExtendedError {
    errno: u32,
    origin: u8,
    code: u8,
    info: u32,
    data: u32,
}

impl ExtendedError {
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            errno: word(bytes, 0)?,
            origin: *bytes.get(4)?,
            code: *bytes.get(6)?,
            info: word(bytes, 8)?,
            data: word(bytes, 12)?,
        })
    }
}

/// The first of the three `timespec`s of `struct scm_timestamping`.
fn software_stamp(bytes: &[u8]) -> Option<UnixTime> {
    let half = size_of::<libc::timespec>() / 2;
    let seconds = integer(bytes.get(..half)?)?;
    let nanos = integer(bytes.get(half..2 * half)?)?;
    let at = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    (at > 0).then_some(UnixTime::from_nanos(at))
}

/// A non-negative integer in the machine's byte order.
fn integer(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => word(bytes, 0).map(u64::from),
        8 => u64::try_from(i64::from_ne_bytes(bytes.try_into().ok()?)).ok(),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Walks control messages as `CMSG_NXTHDR(3)` does, within bounds.
struct ControlMessages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const WORD: usize = size_of::<usize>();
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let message = self.rest;
        let len = usize::from_ne_bytes(message.get(..WORD)?.try_into().ok()?);
        let level = word(message, WORD)?.cast_signed();
        let kind = word(message, WORD + 4)?.cast_signed();
        let data = message.get(HEADER..len)?;
        self.rest = message.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(size_of::<libc::cmsghdr>() + data.len()).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    fn extended(errno: u32, origin: u8, code: u8, info: u32, data: u32) -> Vec<u8> {
        let mut bytes = errno.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[origin, 0, code, 0]);
        bytes.extend_from_slice(&info.to_ne_bytes());
        bytes.extend_from_slice(&data.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_ack_stamp_is_read_on_either_address_family() {
        let mut times = 7_i64.to_ne_bytes().to_vec();
        times.extend_from_slice(&9_i64.to_ne_bytes());
        times.resize(48, 0);
        for (level, kind) in
            [(libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)]
        {
            let mut control = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPING, &times);
            control.extend(message(level, kind, &extended(42, 4, 0, SCM_TSTAMP_ACK, 99)));
            let at = UnixTime::from_nanos(7_000_000_009);
            let expected = Stamp { of: StampOf::Acked, key: 99, at };
            assert_eq!(decode(&control), Entry::Stamp(expected));
        }
    }

    #[test]
    fn a_zero_copy_range_is_read() {
        let control = message(libc::SOL_IP, libc::IP_RECVERR, &extended(0, 5, 1, u32::MAX, 2));
        let expected = Entry::ZeroCopyDone { first: u32::MAX, last: 2, copied: true };
        assert_eq!(decode(&control), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_something(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _: Entry = decode(&bytes);
        }

        #[test]
        fn a_cut_message_is_no_more_than_other(cut in 0_usize..24) {
            let whole = message(libc::SOL_IP, libc::IP_RECVERR, &extended(0, 5, 0, 1, 1));
            prop_assert_eq!(decode(&whole[..cut]), Entry::Other);
        }
    }
}
