//! The list after `--restrict`.

use crate::sys::process::number;
use crate::{MachineRestriction, ProcessRestriction};
use lastbyte::{Facility, Restrictions};
use std::str::FromStr;

/// What is to be taken away.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestrictionList {
    /// As given.
    pub(crate) names: Vec<String>,
    /// By not using it.
    pub(crate) facilities: Restrictions,
    /// By having the kernel refuse it to the process.
    pub(crate) process: Vec<ProcessRestriction>,
    /// By having it refused to everyone.
    pub(crate) machine: Vec<MachineRestriction>,
    /// By shortening the receive buffers of attached sockets.
    pub(crate) receive_buffer: Option<usize>,
}

impl RestrictionList {
    /// Whether it cannot be had in this process.
    pub(crate) fn needs_a_child(&self) -> bool {
        !self.process.is_empty() || !self.machine.is_empty()
    }
}

impl FromStr for RestrictionList {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            parsed.names.push(name.to_owned());
            if let Some(facility) = name.strip_prefix("no-") {
                let facility: Facility = facility
                    .parse()
                    .map_err(|error: lastbyte::UnknownFacility| error.to_string())?;
                parsed.facilities = parsed.facilities.without(facility);
            } else if let Some(bytes) = name.strip_prefix("rcvbuf=") {
                // The kernel takes an `int` (net/core/sock.c, sk_setsockopt).
                let bytes = number(name, bytes, i32::MAX.unsigned_abs().into())?;
                parsed.receive_buffer = usize::try_from(bytes).ok();
            } else if let Some(restriction) = MachineRestriction::named(name) {
                parsed.machine.push(restriction?);
            } else {
                let restriction = name.parse();
                parsed
                    .process
                    .push(restriction.map_err(|error: <ProcessRestriction as FromStr>::Err| {
                        error.to_string()
                    })?);
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_ends_up_where_it_belongs() {
        let list = "no-zerocopy, memlock=65536,rcvbuf=4096,seccomp-no-epoll";
        let list: RestrictionList = list.parse().unwrap();
        assert!(!list.facilities.allow(Facility::ZeroCopy));
        assert_eq!((list.process.len(), list.receive_buffer), (2, Some(4096)));
        assert_eq!(list.names.len(), 4);
    }

    #[test]
    fn what_is_unknown_is_named() {
        for wrong in ["no-sugar", "rcvbuf=x", "memlock=", "optmem-max=many", "sugar"] {
            let error = wrong.parse::<RestrictionList>().unwrap_err();
            assert!(error.contains(wrong.trim_start_matches("no-")), "{error}");
        }
    }
}
