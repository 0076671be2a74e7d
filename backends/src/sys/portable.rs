//! The same modules as Linux has, on what every Unix has: enough for the
//! fallback backend. What has no portable form says `Unsupported`, and is never
//! called, because the probe reports it as lacking.

fn unsupported() -> std::io::Error {
    std::io::ErrorKind::Unsupported.into()
}

pub(crate) mod accept {
    use std::io;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok((stream, peer))
    }
}

pub(crate) mod disconnect {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) fn disconnect(_: BorrowedFd<'_>) -> io::Result<()> {
        Err(super::unsupported())
    }
}

pub(crate) mod error_queue {
    use lastbyte::Stamp;
    use std::io;
    use std::os::fd::BorrowedFd;

    #[derive(Debug)]
    #[allow(dead_code, reason = "there is no error queue here, so no entry of one")]
    pub(crate) enum Entry {
        ZeroCopyDone { first: u32, last: u32, copied: bool },
        Stamp(Stamp),
        Other,
    }

    pub(crate) fn read(_: BorrowedFd<'_>) -> io::Result<Option<Entry>> {
        Ok(None)
    }
}

pub(crate) mod input {
    use std::io::{self, Read};
    use std::net::TcpStream;

    pub(crate) fn recv(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        socket.read(buffer)
    }
}

pub(crate) mod message {
    use super::timestamping::Wanted;
    use std::io::{self, IoSlice};
    use std::os::fd::BorrowedFd;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Options {
        pub(crate) stamps: Wanted,
        pub(crate) end_of_record: bool,
        pub(crate) more: bool,
        pub(crate) zero_copy: bool,
    }

    impl Options {
        pub(crate) const PLAIN: Self =
            Self { stamps: Wanted::NONE, end_of_record: false, more: false, zero_copy: false };
    }

    pub(crate) fn send(
        socket: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        _: Options,
    ) -> io::Result<usize> {
        let socket = socket2::SockRef::from(&socket);
        // Systems without the flag have `SO_NOSIGPIPE`, which is set on attach
        // where it exists, or a process that ignores the signal, as Rust's
        // runtime makes it.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        const FLAGS: i32 = libc::MSG_NOSIGNAL;
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        const FLAGS: i32 = 0;
        socket.send_vectored_with_flags(slices, FLAGS)
    }
}

pub(crate) mod out_queue {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) fn unacknowledged(_: BorrowedFd<'_>) -> io::Result<u64> {
        Err(super::unsupported())
    }
}

pub(crate) mod protocol {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) fn expect_tcp(_: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) mod ring {
    use super::message::Options;

    /// Nothing sends from it.
    #[derive(Debug)]
    pub(crate) struct SendMemory;

    impl SendMemory {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn fill<'a>(&mut self, _: impl Iterator<Item = &'a [u8]>, _: Options) -> u64 {
            0
        }
    }
}

pub(crate) mod sealed_memory {
    use lastbyte::FileSource;
    use std::io;
    use std::os::fd::BorrowedFd;

    /// Bytes in a sealed memory file, which this system does not have.
    #[derive(Debug)]
    pub enum SealedMemory {}

    impl SealedMemory {
        /// # Errors
        /// Always: this system has no sealed memory files.
        pub fn new(_: &[u8]) -> io::Result<Self> {
            Err(super::unsupported())
        }

        /// # Errors
        /// Always: this system has no sealed memory files.
        pub fn filled(_: usize, _: &[u8]) -> io::Result<Self> {
            Err(super::unsupported())
        }

        /// # Errors
        /// None: there is no such value.
        pub fn huge_pages(&self) -> io::Result<usize> {
            match *self {}
        }
    }

    impl FileSource for SealedMemory {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }
    }
}

pub(crate) mod sendfile {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) fn sendfile(
        _: BorrowedFd<'_>,
        _: BorrowedFd<'_>,
        _: u64,
        _: u64,
    ) -> io::Result<u64> {
        Err(super::unsupported())
    }
}

pub(crate) mod tcp_info {
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct TcpInfo {
        pub(crate) bytes_acked: u64,
        pub(crate) unacked_segments: u32,
        pub(crate) not_sent: u64,
        pub(crate) half_open: bool,
        pub(crate) rtt: Duration,
    }

    impl TcpInfo {
        pub(crate) fn is_under_way(&self) -> bool {
            false
        }

        pub(crate) fn is_unwritten(&self) -> bool {
            false
        }
    }

    pub(crate) fn read(_: BorrowedFd<'_>) -> io::Result<TcpInfo> {
        Err(super::unsupported())
    }

    pub(crate) fn is_half_open(_: BorrowedFd<'_>) -> bool {
        false
    }
}

pub(crate) mod timestamping {
    use std::io;
    use std::os::fd::BorrowedFd;

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub(crate) struct Wanted {
        pub(crate) acked: bool,
        pub(crate) transmitted: bool,
    }

    impl Wanted {
        pub(crate) const NONE: Self = Self { acked: false, transmitted: false };

        pub(crate) fn any(self) -> bool {
            self.acked || self.transmitted
        }
    }

    pub(crate) fn enable(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn always(_: BorrowedFd<'_>, _: bool, _: Wanted) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn clear(_: BorrowedFd<'_>) -> io::Result<()> {
        Err(super::unsupported())
    }
}

pub(crate) mod tls_ulp {
    use lastbyte::{TlsCipher, TlsVersion, TrafficKeys};
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) const DATA: u8 = 23;
    /// No error has this number.
    pub(crate) const NEEDS_KEY: i32 = i32::MIN;

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub(crate) enum Direction {
        Transmit,
        Receive,
    }

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub(crate) struct Received {
        pub(crate) len: usize,
        pub(crate) content_type: Option<u8>,
    }

    pub(crate) fn attach(_: BorrowedFd<'_>) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn set_keys(
        _: BorrowedFd<'_>,
        _: Direction,
        _: TlsVersion,
        _: TlsCipher,
        _: &TrafficKeys,
    ) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn next_record(_: BorrowedFd<'_>, _: TlsCipher) -> io::Result<u64> {
        Err(super::unsupported())
    }

    pub(crate) fn promise_unchanging_files(_: BorrowedFd<'_>) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn send_record(_: BorrowedFd<'_>, _: u8, _: &[u8]) -> io::Result<usize> {
        Err(super::unsupported())
    }

    pub(crate) fn receive(_: BorrowedFd<'_>, _: &mut [u8]) -> io::Result<Received> {
        Err(super::unsupported())
    }
}

pub(crate) mod fast_open {
    use std::os::fd::BorrowedFd;

    pub(crate) fn is_put_off(_: BorrowedFd<'_>) -> bool {
        false
    }
}

pub(crate) mod zero_copy {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(crate) fn enable(_: BorrowedFd<'_>) -> io::Result<()> {
        Err(super::unsupported())
    }

    pub(crate) fn is_enabled(_: BorrowedFd<'_>) -> io::Result<bool> {
        Err(super::unsupported())
    }
}
