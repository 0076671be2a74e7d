//! What a stream was like.

use crate::pattern;
use serde::{Deserialize, Serialize};

/// Bytes of a stream, by what they were compared to the pattern.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Account {
    pub(crate) received: u64,
    /// The pattern's complement: what the suite overwrites memory with that is
    /// still the kernel's to read.
    pub(crate) inverted: u64,
    /// Neither the pattern nor its complement.
    pub(crate) wrong: u64,
    /// Whether it ended with a FIN.
    pub(crate) finished: bool,
}

impl Account {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let expected = pattern::bytes(self.received, bytes.len());
        for (got, expected) in bytes.iter().zip(expected) {
            if *got == !expected {
                self.inverted += 1;
            } else if *got != expected {
                self.wrong += 1;
            }
        }
        self.received += bytes.len() as u64;
    }
}
