//! Programs that do not outlive whoever started them.

use rustix::process::{Signal, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel kill what `command` starts when the thread that started it
/// ends, however that is.
pub(crate) fn dies_with_this_thread(command: &mut Command) {
    let ask = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe functions may be
    // called; this is one system call, without memory or locks.
    unsafe { command.pre_exec(ask) };
}
