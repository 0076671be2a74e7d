//! Signals: whether one is ignored, and sending one.

use std::process::Child;

/// Whether this process ignores `signal`, as `nohup` has it do with SIGHUP.
pub(crate) fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and `action` has room for what is.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a valid `sigaction`, and so is what the call wrote.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Sends `signal` to `child`, which nobody has waited for yet: until then the
/// number is its own.
pub(crate) fn send(child: &Child, signal: libc::c_int) {
    let Ok(id) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: a system call without memory. It fails if the child has ended,
    // which is what is seen next.
    unsafe { libc::kill(id, signal) };
}
