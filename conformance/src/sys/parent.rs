//! Programs that do not outlive whoever started them.

use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel send `signal` to what `command` starts when the thread that
/// started it ends, however that is.
pub(crate) fn ends_with_this_thread(command: &mut Command, signal: Signal) {
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(signal))?;
        // Whose parent had ended before this is not told (prctl(2)).
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be
    // called; these are two system calls, without memory or locks.
    unsafe { command.pre_exec(ask) };
}
