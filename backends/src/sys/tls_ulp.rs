//! Kernel TLS, as an upper layer protocol of TCP
//! (`Documentation/networking/tls.rst`).
//!
//! A socket that has the protocol but no key yet sends what it is given as it
//! is. So nothing may be written between [`attach`] and [`set_keys`].

use super::{option, uncancelled};
use lastbyte::{TlsCipher, TlsVersion, TrafficKeys};
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// `include/linux/socket.h`.
const SOL_TLS: libc::c_int = 282;

/// `include/uapi/linux/tls.h`, as is all that follows.
const TLS_TX: libc::c_int = 1;
const TLS_RX: libc::c_int = 2;
const TLS_TX_ZEROCOPY_RO: libc::c_int = 3;
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
const TLS_GET_RECORD_TYPE: libc::c_int = 2;
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;
const TLS_CIPHER_AES_GCM_128: u16 = 51;
const TLS_CIPHER_AES_GCM_256: u16 = 52;
const TLS_CIPHER_CHACHA20_POLY1305: u16 = 54;

/// The longest `struct tls12_crypto_info_…` that is used here.
const LONGEST_INFO: usize = 56;

/// Length of a record's sequence number, which ends every such structure.
const SEQUENCE: usize = 8;

/// Bytes of a 12-byte IV that AES-GCM calls salt.
const SALT: usize = 4;

/// Content type of payload (RFC 8446, section 5.1).
pub(crate) const DATA: u8 = 23;

/// What a receive fails with from the peer's KeyUpdate to the next key.
pub(crate) const NEEDS_KEY: i32 = libc::EKEYEXPIRED;

/// Which records a key is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Transmit,
    Receive,
}

impl Direction {
    const fn option(self) -> libc::c_int {
        match self {
            Self::Transmit => TLS_TX,
            Self::Receive => TLS_RX,
        }
    }
}

/// Attaches the protocol to a connected socket, for good.
pub(crate) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    option::set_bytes(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// Whether this kernel has the protocol. `throw_away` must not be used after
/// that.
pub(crate) fn probe(throw_away: &TcpStream) -> io::Result<()> {
    attach(throw_away.as_fd())
}

/// Gives the kernel the keys of one direction, the first or (TLS 1.3, Linux 6.14)
/// those that follow.
///
/// # Errors
/// `EINVAL` for a cipher it does not know, `ENOENT` for one whose module is not
/// there, `EBUSY` if it cannot change keys.
pub(crate) fn set_keys(
    socket: BorrowedFd<'_>,
    direction: Direction,
    version: TlsVersion,
    cipher: TlsCipher,
    keys: &TrafficKeys,
) -> io::Result<()> {
    let info = CryptoInfo::new(version, cipher, keys)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    option::set_bytes(socket, SOL_TLS, direction.option(), info.bytes())
}

/// Number of the next record that the kernel seals. Records that it has sealed
/// and TCP has not got yet are counted; one that is still open is not.
pub(crate) fn next_record(socket: BorrowedFd<'_>, cipher: TlsCipher) -> io::Result<u64> {
    let unknown = || io::Error::from_raw_os_error(libc::EINVAL);
    let layout = Layout::of(cipher).ok_or_else(unknown)?;
    // The key comes along, and is wiped when this is dropped.
    let mut info = CryptoInfo { bytes: [0; LONGEST_INFO], len: layout.len() };
    let len = option::get_bytes(socket, SOL_TLS, TLS_TX, &mut info.bytes[..layout.len()])?;
    let sequence = info.bytes().get(..len).and_then(|bytes| bytes.last_chunk::<SEQUENCE>());
    sequence.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(unknown)
}

/// Lets a network card that encrypts read files where they are.
pub(crate) fn promise_unchanging_files(socket: BorrowedFd<'_>) -> io::Result<()> {
    option::set(socket, SOL_TLS, TLS_TX_ZEROCOPY_RO, 1_i32)
}

/// Seals and sends one record of this type, behind what is open or deferred.
/// Never blocks.
pub(crate) fn send_record(
    socket: BorrowedFd<'_>,
    content_type: u8,
    content: &[u8],
) -> io::Result<usize> {
    let mut control = TypeMessage::new(content_type);
    let slices = [IoSlice::new(content)];
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = TypeMessage::SPACE as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `IoSlice` has the layout of `iovec`, and the kernel does not write
    // through it. Slices, control message and header outlive the call.
    super::check_len(unsafe { uncancelled::sendmsg(socket, &raw const message, flags) })
}

/// What a receive has yielded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    pub(crate) len: usize,
    /// The type of the records it was in; `None` with the end of the stream.
    pub(crate) content_type: Option<u8>,
}

/// Takes content of records of one type, of several if they are payload, of one
/// if not. Never blocks.
///
/// # Errors
/// `EBADMSG`, `EMSGSIZE` and `EINVAL` speak of the peer's record;
/// `EKEYEXPIRED` wants the next key first.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = TypeMessage::new(0);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = TypeMessage::SPACE as _;
    // SAFETY: `slice` and `control` are valid for writes of the lengths that the
    // header gives, and outlive the call.
    let len = super::check_len(unsafe {
        uncancelled::recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT)
    })?;
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs among C libraries")]
    let has_control = message.msg_controllen as usize >= TypeMessage::LEN;
    let is_type = has_control
        && control.header.cmsg_level == SOL_TLS
        && control.header.cmsg_type == TLS_GET_RECORD_TYPE;
    let content_type = is_type.then_some(control.content_type);
    // Payload of no length is passed over by the kernel, so that this is the end.
    let is_end = len == 0 && content_type.is_none_or(|kind| kind == DATA);
    Ok(Received { len, content_type: content_type.filter(|_| !is_end) })
}

/// A control message that holds a record's type.
#[repr(C)]
struct TypeMessage {
    header: libc::cmsghdr,
    content_type: u8,
    padding: [u8; size_of::<usize>() - 1],
}

impl TypeMessage {
    /// `CMSG_LEN(1)`, `CMSG_SPACE(1)`.
    const LEN: usize = size_of::<libc::cmsghdr>() + 1;
    const SPACE: usize = size_of::<libc::cmsghdr>() + size_of::<usize>();

    fn new(content_type: u8) -> Self {
        // SAFETY: all-zero bytes are a valid `cmsghdr`: it is integers only.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_level = SOL_TLS;
        header.cmsg_type = TLS_SET_RECORD_TYPE;
        header.cmsg_len = Self::LEN as _;
        Self { header, content_type, padding: [0; size_of::<usize>() - 1] }
    }
}

/// Where a `struct tls12_crypto_info_…` has what: version, cipher, then these.
struct Layout {
    cipher: u16,
    iv: usize,
    key: usize,
    salt: usize,
}

/// Version and cipher, two bytes each.
const INFO_HEADER: usize = 4;

impl Layout {
    fn of(cipher: TlsCipher) -> Option<Self> {
        Some(match cipher {
            TlsCipher::Aes128Gcm => {
                Self { cipher: TLS_CIPHER_AES_GCM_128, iv: 8, key: 16, salt: SALT }
            }
            TlsCipher::Aes256Gcm => {
                Self { cipher: TLS_CIPHER_AES_GCM_256, iv: 8, key: 32, salt: SALT }
            }
            TlsCipher::ChaCha20Poly1305 => {
                Self { cipher: TLS_CIPHER_CHACHA20_POLY1305, iv: 12, key: 32, salt: 0 }
            }
            _ => return None,
        })
    }

    const fn len(&self) -> usize {
        INFO_HEADER + self.iv + self.key + self.salt + SEQUENCE
    }
}

/// A `struct tls12_crypto_info_…`, wiped when dropped.
struct CryptoInfo {
    bytes: [u8; LONGEST_INFO],
    len: usize,
}

impl CryptoInfo {
    /// `None` if the keys do not fit the cipher.
    fn new(version: TlsVersion, cipher: TlsCipher, keys: &TrafficKeys) -> Option<Self> {
        let layout = Layout::of(cipher)?;
        let number = match version {
            TlsVersion::Tls12 => TLS_1_2,
            TlsVersion::Tls13 => TLS_1_3,
            _ => return None,
        };
        if keys.key().len() != layout.key || keys.iv().len() != layout.salt + layout.iv {
            return None;
        }
        let (salt, iv) = keys.iv().split_at(layout.salt);
        let mut iv: [u8; 12] = {
            let mut whole = [0; 12];
            whole[..iv.len()].copy_from_slice(iv);
            whole
        };
        if version == TlsVersion::Tls12 && layout.salt > 0 {
            let base = u64::from_be_bytes(*iv.first_chunk()?);
            iv[..8].copy_from_slice(&first_nonce(base, keys.sequence()).to_be_bytes());
        }
        let mut info = Self { bytes: [0; LONGEST_INFO], len: layout.len() };
        let mut at = 0;
        for field in [
            &number.to_ne_bytes()[..],
            &layout.cipher.to_ne_bytes(),
            &iv[..layout.iv],
            keys.key(),
            salt,
            &keys.sequence().to_be_bytes(),
        ] {
            info.bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        Some(info)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for CryptoInfo {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // The read keeps the compiler from dropping the write above.
        std::hint::black_box(&self.bytes);
    }
}

/// The explicit nonce from which the kernel may count upwards (`net/tls/tls.h`,
/// `tls_advance_record_sn`) in TLS 1.2 AES-GCM, after `sealed` records whose
/// nonces were `base` xor their number.
///
/// Those lie in the block of numbers that share all but their low bits with
/// `base`, as many bits as tell `sealed` numbers apart. The first one behind
/// that block was not used, and counting comes to the block only when it has
/// been through all others. The xor itself would do neither: counting from 1
/// xor an odd base meets 0 xor that base at once.
fn first_nonce(base: u64, sealed: u64) -> u64 {
    match sealed {
        0 => base,
        _ => (base | (sealed.checked_next_power_of_two().unwrap_or(0)).wrapping_sub(1))
            .wrapping_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No nonce that was used in user space is used again by the kernel.
        #[test]
        fn nonces_never_repeat(base: u64, sealed in 0_u64..300, counted in 0_u64..1000) {
            let used: Vec<u64> = (0..sealed).map(|number| base ^ number).collect();
            let first = first_nonce(base, sealed);
            prop_assert!(!used.contains(&first.wrapping_add(counted)));
        }

        /// And not by coming round from the other side either, for 2^63 records.
        #[test]
        fn counting_comes_round_late(base: u64, sealed in 1_u64..1 << 62, far in 0_u64..1 << 62) {
            let nonce = first_nonce(base, sealed).wrapping_add(far);
            prop_assert!(nonce ^ base >= sealed);
        }
    }

    #[test]
    fn the_structures_are_the_kernels() {
        let keys = TrafficKeys::new((0..16).collect(), (100..112).collect(), 0x0102);
        let info = CryptoInfo::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm, &keys).unwrap();
        let mut expected = Vec::new();
        expected.extend(0x0304_u16.to_ne_bytes());
        expected.extend(51_u16.to_ne_bytes());
        expected.extend(104..112);
        expected.extend(0..16);
        expected.extend(100..104);
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(info.bytes(), expected);
        assert_eq!(info.len, size_of::<libc::tls12_crypto_info_aes_gcm_128>());
        let long = |cipher| {
            let keys = TrafficKeys::new(vec![7; 32], vec![8; 12], 0);
            CryptoInfo::new(TlsVersion::Tls12, cipher, &keys).unwrap().len
        };
        let chacha = size_of::<libc::tls12_crypto_info_chacha20_poly1305>();
        assert_eq!(long(TlsCipher::Aes256Gcm), size_of::<libc::tls12_crypto_info_aes_gcm_256>());
        assert_eq!(long(TlsCipher::ChaCha20Poly1305), chacha);
        assert!(CryptoInfo::new(TlsVersion::Tls13, TlsCipher::Aes256Gcm, &keys).is_none());
    }

    /// Where there is no kernel TLS, the record types have nobody to speak of.
    #[test]
    fn what_comes_is_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut &far, b"plain").unwrap();
        let mut buffer = [0; 8];
        let received = receive(near.as_fd(), &mut buffer).unwrap();
        assert_eq!(received, Received { len: 5, content_type: None });
    }
}
