//! Stamps that a socket asks for by itself.
//!
//! A call asks for stamps by a control message, which takes a message header:
//! both have to be fetched and looked at. A socket whose own bits ask needs
//! neither, but then every call leaves a stamp, wanted or not. So the bits stay
//! as long as each call wants the same ones: true of a server whose responses
//! are one call each, where it saves 3 % of the CPU time (docs/speed.md).

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
    /// Has the socket ask, if no call before has.
    pub(super) fn begin(&mut self, stamps: Wanted, stream: &TcpStream, id_tcp: bool) {
        if *self == Self::Untried && stamps.any() {
            let set = timestamping::always(stream.as_fd(), id_tcp, stamps).is_ok();
            *self = if set { Self::Set(stamps) } else { Self::Off };
        }
    }

    /// Whether the next call gets the stamps that it wants without asking; if it
    /// would get others, none does any more.
    pub(super) fn covers(&mut self, stamps: Wanted, stream: &TcpStream, id_tcp: bool) -> bool {
        let Self::Set(set) = *self else { return false };
        if set == stamps {
            return true;
        }
        // Should that fail, there are stamps too many, each of them true.
        drop(timestamping::enable(stream.as_fd(), id_tcp));
        *self = Self::Off;
        false
    }

    /// What every call gets, which is somebody else's business from now on.
    pub(super) fn hand_over(&mut self) -> Wanted {
        match std::mem::replace(self, Self::Off) {
            Self::Set(stamps) => stamps,
            Self::Untried | Self::Off => Wanted::NONE,
        }
    }
}
