//! A build for another system than Linux.

use lastbyte::{Facility, Support};

/// There is nothing to keep.
pub(super) type Pair = ();

pub(super) fn attempt(_: Facility, _: &mut Option<Pair>) -> Support {
    Support::Lack { errno: None, what: "this build is for portable calls only, so it" }
}
