//! What the operator is told on standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Says `what` on standard error, if that can be written: a server goes on
/// though nobody hears what it complains of.
pub fn complain(what: impl Display) {
    // One write, so that lines of several threads do not mix.
    let line = format!("serve: {what}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
