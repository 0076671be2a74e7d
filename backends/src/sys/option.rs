//! Socket options as plain values.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A type the kernel may read and write as bytes: no padding that matters, and
/// every bit pattern is a value.
///
/// # Safety
/// Only for C integers and `repr(C)` structs of them.
pub(super) unsafe trait OptionValue: Copy {}

// SAFETY: a C integer.
unsafe impl OptionValue for libc::c_int {}

pub(super) fn set<T: OptionValue>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for reads of `len` bytes, which is its size.
    let returned =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    super::check(returned).map(drop)
}

/// Sets an option whose value is a string of bytes.
pub(super) fn set_bytes(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for reads of `len` bytes, which is its size.
    let returned =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    super::check(returned).map(drop)
}

/// Reads an option whose value is a string of bytes, and says how many.
pub(super) fn get_bytes(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let into = value.as_mut_ptr().cast();
    // SAFETY: `value` is valid for writes of `len` bytes, which is its size.
    let returned = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, into, &raw mut len) };
    super::check(returned)?;
    Ok(len as usize)
}

/// Reads an option into `value` and says how many bytes the kernel knew.
pub(super) fn get<T: OptionValue>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for writes of `len` bytes, and any bytes make a
    // valid `OptionValue`.
    let returned = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    super::check(returned)?;
    Ok(len as usize)
}
