//! What the operator is told on standard error.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Display;
use std::io::{self, Write};

/// Says `what` on standard error if that can be written at once: a server goes on
/// though nobody hears what it complains of, and does not wait to be heard.
pub fn complain(what: impl Display) {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    // One write, so that lines of several threads do not mix. A pipe with room at
    // all takes a line as short as these without blocking.
    let line = format!("serve: {what}\n");
    let mut error = io::stderr().lock();
    let is_ready = poll(&mut [PollFd::new(&error, PollFlags::OUT)], Some(&AT_ONCE));
    if is_ready.is_ok_and(|count| count > 0) {
        let _ = error.write_all(line.as_bytes());
    }
}
