//! Network namespaces of a thread.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// A network namespace, which lives as long as this or a socket in it.
#[derive(Debug)]
pub(crate) struct Namespace {
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

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }
}
