//! Network namespaces of a thread.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// A network namespace, which lives as long as this or a socket in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, which the calling thread is in from now on. Only root may.
    pub(crate) fn enter_new() -> io::Result<Self> {
        // SAFETY: changes which network devices this thread sees, and nothing
        // that memory safety rests on: no descriptor changes its meaning.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
    }

    /// Takes the calling thread there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Does `work` in there, on a thread of its own; what that opens or starts
    /// stays there.
    ///
    /// # Errors
    /// If there is no thread to be had, or the kernel does not let it in.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("namespace".into());
            let inside = || self.enter().map(|()| work());
            match thread.spawn_scoped(scope, inside)?.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }
}
