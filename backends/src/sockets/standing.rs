//! Stamps that a socket asks for by itself.
//!
//! A call asks for stamps by a control message, which the kernel has to fetch
//! and look at, and which a ring cannot send without a message header around it.
//! A socket whose own bits ask needs neither, but then every call leaves a
//! stamp, wanted or not. So the bits stay as long as each call wants the same
//! ones: true of a server whose responses are one call each, for which a stamp
//! gets a seventh cheaper (docs/numbers.md).

use crate::sys::timestamping::{self, Wanted};
use std::net::TcpStream;
use std::os::fd::AsFd;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Standing {
    /// No call has wanted any.
    #[default]
    Untried,
    /// Every call gets these.
    Set(Wanted),
    /// Each call has to ask.
    Off,
}

impl Standing {
    /// What a call that wants `stamps` has to ask for by itself. `whole` if it is
    /// to take a whole transfer: what begins with one may go on so.
    pub(super) fn asked(
        &mut self,
        stamps: Wanted,
        whole: bool,
        stream: &TcpStream,
        id_tcp: bool,
    ) -> Wanted {
        match *self {
            Self::Untried if whole && stamps.any() => {
                let set = timestamping::always(stream.as_fd(), id_tcp, stamps).is_ok();
                *self = if set { Self::Set(stamps) } else { Self::Off };
                if set { Wanted::NONE } else { stamps }
            }
            Self::Set(set) if set == stamps => Wanted::NONE,
            Self::Set(_) => {
                // Should that fail, there are stamps too many, each of them true.
                drop(timestamping::enable(stream.as_fd(), id_tcp));
                *self = Self::Off;
                stamps
            }
            Self::Untried | Self::Off => stamps,
        }
    }

    /// What every call gets, which is somebody else's business from now on.
    pub(super) fn hand_over(&mut self) -> Wanted {
        match std::mem::replace(self, Self::Off) {
            Self::Set(stamps) => stamps,
            Self::Untried | Self::Off => Wanted::NONE,
        }
    }
}
