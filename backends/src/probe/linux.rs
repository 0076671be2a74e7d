//! Each facility, tried.

#[path = "kernel_tls.rs"]
mod kernel_tls;
#[path = "ring.rs"]
mod ring;

use crate::sys::message::Options;
use crate::sys::timestamping::Wanted;
use crate::sys::{
    error_queue::{self, Entry},
    message, out_queue, poll,
    sealed_memory::SealedMemory,
    sendfile, tcp_info, timestamping, zero_copy,
};
use lastbyte::{Facility, FileSource, StampOf, Support, TlsCipher};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long a notification may take over loopback. It is there before the call
/// returns, unless the machine is very busy; so the wait costs only where the
/// facility is lacking, while too short a one would lose it for good.
const PATIENCE: Duration = Duration::from_millis(200);

/// A connected loopback pair.
pub(super) struct Pair {
    near: TcpStream,
    /// Kept open, so that the near end stays connected.
    far: TcpStream,
}

pub(super) fn attempt(facility: Facility, pair: &mut Option<Pair>) -> Support {
    let (what, tried): (_, io::Result<bool>) = match facility {
        Facility::Epoll => ("epoll_create1", mio::Poll::new().map(|_| true)),
        Facility::IoUring => ("io_uring_setup and a multishot poll", ring::works()),
        Facility::UringTaskrun => ("IORING_SETUP_DEFER_TASKRUN", ring::defers()),
        Facility::UringAccept => ("a multishot accept", ring::accepts()),
        Facility::UringReceive => {
            ("a multishot receive into provided buffers", connect().and_then(ring::receives))
        }
        Facility::UringSend => ("IORING_OP_SENDMSG", connect().and_then(ring::sends)),
        Facility::UringVectored => {
            ("IORING_OP_SEND of slices", connect().and_then(ring::sends_vectored))
        }
        Facility::UringZeroCopy => {
            ("IORING_OP_SENDMSG_ZC with a report of use", connect().and_then(ring::sends_zero_copy))
        }
        Facility::UringTimestamps => {
            ("SOCKET_URING_OP_TX_TIMESTAMP", connect().and_then(ring::takes_stamps))
        }
        Facility::UringFixedBuffers => (
            "IORING_OP_SENDMSG_ZC out of registered memory",
            connect().and_then(ring::sends_registered),
        ),
        Facility::SealedMemory => ("a sealed memfd", SealedMemory::new(b"x").map(|_| true)),
        Facility::KernelTls => ("TCP_ULP \"tls\"", kernel_tls::exists()),
        Facility::TlsTransmit => ("TLS_TX with AES-128-GCM", kernel_tls::transmits()),
        Facility::TlsReceive => ("TLS_RX with AES-128-GCM", kernel_tls::receives()),
        Facility::TlsRekey => ("a second TLS_TX and TLS_RX", kernel_tls::changes_keys()),
        Facility::TlsAes256 => {
            ("TLS_TX and TLS_RX with AES-256-GCM", kernel_tls::knows(TlsCipher::Aes256Gcm))
        }
        Facility::TlsChaCha20 => (
            "TLS_TX and TLS_RX with CHACHA20-POLY1305",
            kernel_tls::knows(TlsCipher::ChaCha20Poly1305),
        ),
        Facility::TlsEndOfRecord => ("MSG_EOR under TLS_TX", kernel_tls::ends_records()),
        Facility::TlsZeroCopyFiles => ("TLS_TX_ZEROCOPY_RO", kernel_tls::takes_the_promise()),
        Facility::Timestamps => ("SO_TIMESTAMPING on TCP", on(pair, timestamps)),
        Facility::TimestampIdTcp => ("SOF_TIMESTAMPING_OPT_ID_TCP", on(pair, timestamp_id_tcp)),
        Facility::TcpInfo => ("TCP_INFO with bytes_acked", on(pair, tcp_info_works)),
        Facility::OutQueue => ("SIOCOUTQ", on(pair, out_queue_works)),
        Facility::ZeroCopy => ("MSG_ZEROCOPY on TCP", on(pair, zero_copy_works)),
        Facility::Sendfile => ("sendfile to TCP", on(pair, sendfile_works)),
        _ => return Support::Lack { errno: None, what: "this build does not know it, so it" },
    };
    match tried {
        Ok(true) => Support::Have,
        Ok(false) => Support::Lack { errno: None, what },
        Err(error) => Support::Lack { errno: error.raw_os_error(), what },
    }
}

fn on(
    pair: &mut Option<Pair>,
    attempt: impl FnOnce(&TcpStream) -> io::Result<bool>,
) -> io::Result<bool> {
    if pair.is_none() {
        *pair = Some(connect()?);
    }
    pair.as_ref().map_or(Ok(false), |pair| attempt(&pair.near))
}

fn connect() -> io::Result<Pair> {
    let any = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()];
    let listener = TcpListener::bind(&any[..])?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    near.set_nodelay(true)?;
    let (far, _) = listener.accept()?;
    Ok(Pair { near, far })
}

fn timestamps(near: &TcpStream) -> io::Result<bool> {
    timestamping::enable(near.as_fd(), false)?;
    let stamps = Wanted { acked: true, transmitted: false };
    let options = Options { stamps, end_of_record: true, ..Options::PLAIN };
    message::send(near.as_fd(), &[IoSlice::new(b"t")], options)?;
    notified(near, |entry| matches!(entry, Entry::Stamp(s) if s.of == StampOf::Acked))
}

fn timestamp_id_tcp(near: &TcpStream) -> io::Result<bool> {
    timestamping::clear(near.as_fd())?;
    timestamping::enable(near.as_fd(), true).map(|()| true)
}

fn tcp_info_works(near: &TcpStream) -> io::Result<bool> {
    tcp_info::read(near.as_fd()).map(|_| true)
}

fn out_queue_works(near: &TcpStream) -> io::Result<bool> {
    out_queue::unacknowledged(near.as_fd()).map(|_| true)
}

fn zero_copy_works(near: &TcpStream) -> io::Result<bool> {
    /// Static, because the kernel may read it until the peer has it.
    static BYTES: [u8; 64] = [b'z'; 64];
    zero_copy::enable(near.as_fd())?;
    let options = Options { zero_copy: true, ..Options::PLAIN };
    message::send(near.as_fd(), &[IoSlice::new(&BYTES)], options)?;
    notified(near, |entry| matches!(entry, Entry::ZeroCopyDone { first: 0, last: 0, .. }))
}

fn sendfile_works(near: &TcpStream) -> io::Result<bool> {
    let sent = match SealedMemory::new(b"f") {
        Ok(file) => sendfile::sendfile(near.as_fd(), FileSource::as_fd(&file), 0, 1)?,
        Err(_) => {
            let program = std::fs::File::open("/proc/self/exe")?;
            sendfile::sendfile(near.as_fd(), AsFd::as_fd(&program), 0, 1)?
        }
    };
    Ok(sent == 1)
}

/// Whether a notification of this kind comes.
fn notified(near: &TcpStream, wanted: impl Fn(Entry) -> bool) -> io::Result<bool> {
    let started = Instant::now();
    loop {
        while let Some(entry) = error_queue::read(near.as_fd())? {
            if wanted(entry) {
                return Ok(true);
            }
        }
        let left = PATIENCE.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        poll::wait(&mut [poll::Polled::new(near.as_raw_fd())], Some(left))?;
    }
}
