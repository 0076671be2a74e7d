//! The calls of the hot path, made directly.
//!
//! C libraries make calls that can block points of thread cancellation
//! (pthreads(7)), which in a process of several threads costs two atomic
//! operations a call (glibc up to 2.40). Rust cancels no threads, and these
//! calls never block.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `sendmsg(2)`.
///
/// # Safety
/// As for the system call: `message` is valid, and so is all it points to.
pub(super) unsafe fn sendmsg(
    fd: BorrowedFd<'_>,
    message: *const libc::msghdr,
    flags: libc::c_int,
) -> isize {
    // SAFETY: the caller's promise is the system call's demand; `libc::msghdr`
    // has the kernel's layout, and the kernel does not write through it.
    unsafe { libc::syscall(libc::SYS_sendmsg, fd.as_raw_fd(), message, flags) as isize }
}

/// `recvmsg(2)`.
///
/// # Safety
/// As for the system call: `message` is valid for writes, and so is all it
/// points to.
pub(super) unsafe fn recvmsg(
    fd: BorrowedFd<'_>,
    message: *mut libc::msghdr,
    flags: libc::c_int,
) -> isize {
    // SAFETY: the caller's promise is the system call's demand; `libc::msghdr`
    // has the kernel's layout.
    unsafe { libc::syscall(libc::SYS_recvmsg, fd.as_raw_fd(), message, flags) as isize }
}

/// `recv(2)` into `buffer`.
pub(super) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> isize {
    let (none, len) = (std::ptr::null_mut::<libc::c_void>(), buffer.len());
    let into = buffer.as_mut_ptr();
    // SAFETY: `buffer` is valid for writes of `len` bytes, and a null address
    // asks for none to be written.
    unsafe {
        libc::syscall(libc::SYS_recvfrom, fd.as_raw_fd(), into, len, flags, none, none) as isize
    }
}
