//! Kernel TLS as an upper layer protocol (`Documentation/networking/tls.rst`):
//! so far only whether there is one.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Attaches the `tls` protocol to `throw_away`, which must not be used after
/// that: the protocol cannot be taken off again.
pub(crate) fn probe(throw_away: &TcpStream) -> io::Result<()> {
    let name = *b"tls";
    let len = libc::socklen_t::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: `name` is valid for reads of `len` bytes, which is its size.
    super::check(unsafe {
        libc::setsockopt(
            throw_away.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            name.as_ptr().cast(),
            len,
        )
    })
    .map(drop)
}
