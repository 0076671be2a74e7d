//! Children that are told of the signals that would end this process, and that
//! do not outlive it.

#[cfg(target_os = "linux")]
use crate::sys::parent;
use crate::sys::signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Read};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;

/// The signals that ask for an end, but for those that this process was started
/// to ignore.
pub(crate) fn that_ask_for_an_end() -> impl Iterator<Item = i32> {
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| !signal::is_ignored(*number))
}

/// Passes signals on to one child at a time; as long as this exists they do not
/// end this process, which has something to put back or to say afterwards.
pub(super) struct Guardian(Signals);

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The signal that asked for it, if one did.
    pub(super) asked: Option<i32>,
    /// What it wrote to where there were pipes.
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Guardian {
    pub(super) fn new() -> Result<Self, String> {
        let signals = Signals::new(that_ask_for_an_end().chain([SIGCHLD]));
        Ok(Self(signals.map_err(|error| format!("signals: {error}"))?))
    }

    /// Starts this program with other arguments and waits for its end.
    pub(super) fn start_again(
        &mut self,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Ended, String> {
        let start = || {
            let mut command = Command::new(std::env::current_exe()?);
            prepare(&mut command);
            // Not SIGKILL: the child may have children, and settings to give back.
            #[cfg(target_os = "linux")]
            parent::ends_with_this_thread(&mut command, rustix::process::Signal::TERM);
            let child = command.spawn()?;
            self.attend(child)
        };
        start().map_err(|error: io::Error| format!("cannot start itself again: {error}"))
    }

    fn attend(&mut self, mut child: Child) -> io::Result<Ended> {
        let stdout = child.stdout.take().map(gather);
        let stderr = child.stderr.take().map(gather);
        let mut asked = None;
        let status = loop {
            // Each of them in this thread: who has not been waited for keeps its
            // number, so that no signal can go to another.
            if let Some(status) = child.try_wait()? {
                break status;
            }
            for number in self.0.wait().filter(|number| *number != SIGCHLD) {
                asked = Some(number);
                signal::send(&child, number);
            }
        };
        let all = |gathering: Option<thread::JoinHandle<Vec<u8>>>| {
            gathering.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        Ok(Ended { status, asked, stdout: all(stdout), stderr: all(stderr) })
    }
}

fn gather(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What came before an error is what there is.
        drop(from.read_to_end(&mut all));
        all
    })
}

/// The exit code of who ends because of a signal, as shells have it.
pub(super) fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
