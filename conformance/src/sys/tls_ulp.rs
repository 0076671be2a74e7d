//! What a socket whose records the kernel seals takes (`Documentation/networking/tls.rst`).

use std::io;

/// Whether such a socket takes `MSG_ZEROCOPY`; if not, the kernel's answer.
#[cfg(target_os = "linux")]
pub(crate) fn zero_copy() -> io::Result<()> {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    /// `include/uapi/linux/tcp.h`, `tls.h`, `include/linux/socket.h`.
    const TCP_ULP: libc::c_int = 31;
    const SOL_TLS: libc::c_int = 282;
    const TLS_TX: libc::c_int = 1;
    /// `struct tls12_crypto_info_aes_gcm_128`: version 0x0303, cipher 51, and 36
    /// bytes of IV, key, salt and record number, which may be anything here.
    const KEYS: [u8; 40] = {
        let mut keys = [7; 40];
        [keys[0], keys[1], keys[2], keys[3]] = [3, 3, 51, 0];
        keys
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let _peer = listener.accept()?;
    let set = |level, option, value: &[u8]| {
        let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
        // SAFETY: `value` is readable for `len` bytes; the kernel copies it.
        let failed = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), len)
        };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    set(libc::IPPROTO_TCP, TCP_ULP, b"tls")?;
    set(SOL_TLS, TLS_TX, &KEYS)?;
    set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1_i32.to_ne_bytes())?;
    static BYTE: u8 = 0;
    let flags = libc::MSG_ZEROCOPY | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `BYTE` is readable for one byte, never changes and never goes away,
    // however long the kernel reads it.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const BYTE).cast(), 1, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn zero_copy() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
