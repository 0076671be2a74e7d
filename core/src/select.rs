//! Which backend to use, as a pure function of what the kernel can do.

use crate::{Facility, Report, Support, UnknownFacility};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of backend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum BackendKind {
    /// Completion by `io_uring(7)`.
    IoUring,
    /// Readiness by `epoll(7)`, with every socket facility Linux has.
    Epoll,
    /// Portable socket calls only.
    Fallback,
}

impl BackendKind {
    /// Every kind, the preferred first.
    pub const ALL: [Self; 3] = [Self::IoUring, Self::Epoll, Self::Fallback];

    /// The name used in options, logs and `LASTBYTE_BACKEND`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Choice {
    /// The best that works here. Never fails where TCP works.
    #[default]
    Auto,
    /// This one, or an error.
    Only(BackendKind),
}

impl FromStr for Choice {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        if name == "auto" {
            return Ok(Self::Auto);
        }
        BackendKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .map(Self::Only)
            .ok_or_else(|| UnknownBackend { name: name.to_owned() })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(kind) => kind.fmt(f),
        }
    }
}

/// A name that no backend has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownBackend {
    name: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no backend '{}'; known are auto, io_uring, epoll, fallback", self.name)
    }
}

impl std::error::Error for UnknownBackend {}

/// Facilities that the operator or a test switched off.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restrictions {
    disabled: BTreeSet<Facility>,
}

impl Restrictions {
    /// Nothing is switched off.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These, and `facility` too.
    #[must_use]
    pub fn without(mut self, facility: Facility) -> Self {
        self.disabled.insert(facility);
        self
    }

    /// Both restrictions together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.disabled.extend(&other.disabled);
        self
    }

    /// Whether `facility` may be used: neither it nor what it
    /// [rests on](Facility::rests_on) is switched off.
    #[must_use]
    pub fn allow(&self, facility: Facility) -> bool {
        let mut needed = facility.rests_on().iter().chain([&facility]);
        needed.all(|needed| !self.disabled.contains(needed))
    }
}

/// A comma-separated list of facility names, as in
/// `LASTBYTE_DISABLE=zerocopy,timestamps`.
impl FromStr for Restrictions {
    type Err = UnknownFacility;

    fn from_str(list: &str) -> Result<Self, UnknownFacility> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Self { disabled: names.map(str::parse).collect::<Result<_, _>>()? })
    }
}

/// A backend that was chosen by name and cannot be had here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsatisfied {
    /// The backend.
    pub backend: BackendKind,
    /// What it would need, and how that fared; `None` where this build does not
    /// contain it.
    pub lacks: Option<(Facility, Support)>,
}

impl fmt::Display for Unsatisfied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} backend cannot be used: ", self.backend)?;
        match &self.lacks {
            None => f.write_str("this build does not contain it"),
            Some((_, Support::Lack { errno: Some(errno), what })) => {
                write!(f, "{what}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Some((_, Support::Lack { errno: None, what })) => write!(f, "{what} does not work"),
            Some((facility, _)) => write!(f, "{facility} is disabled"),
        }
    }
}

impl std::error::Error for Unsatisfied {}

/// What `io_uring` needs to cost less than `epoll`, as measured (docs/speed.md):
/// without any one of these, each connection takes as many calls as with epoll,
/// and the ring comes on top.
const RING_PAYS_WITH: [Facility; 4] = [
    Facility::UringTaskrun,
    Facility::UringReceive,
    Facility::UringSend,
    Facility::UringTimestamps,
];

/// Why `auto` does not choose `io_uring` on this kernel: the facility that is
/// lacking. `None` if it does.
#[must_use]
pub fn why_not_ring(report: &Report) -> Option<Facility> {
    let stamps = report.has(Facility::Timestamps);
    let needed = |facility: &Facility| stamps || *facility != Facility::UringTimestamps;
    let all = [Facility::IoUring].into_iter().chain(RING_PAYS_WITH).filter(needed);
    all.into_iter().find(|facility| !report.has(*facility))
}

/// Chooses among the `built` backends. `Auto` takes `io_uring` only where that
/// costs less than `epoll`, see [`why_not_ring`].
///
/// # Errors
/// If one was asked for by name and this kernel or this build lacks it. `Auto`
/// cannot fail as long as `built` contains the fallback, which needs nothing.
pub fn select(
    choice: Choice,
    built: &[BackendKind],
    report: &Report,
) -> Result<BackendKind, Unsatisfied> {
    match choice {
        Choice::Only(kind) => usable(kind, built, report).map(|()| kind),
        Choice::Auto => Ok(BackendKind::ALL
            .into_iter()
            .filter(|kind| *kind != BackendKind::IoUring || why_not_ring(report).is_none())
            .find(|&kind| usable(kind, built, report).is_ok())
            .unwrap_or(BackendKind::Fallback)),
    }
}

fn usable(kind: BackendKind, built: &[BackendKind], report: &Report) -> Result<(), Unsatisfied> {
    if !built.contains(&kind) {
        return Err(Unsatisfied { backend: kind, lacks: None });
    }
    let needs = match kind {
        BackendKind::IoUring => Facility::IoUring,
        BackendKind::Epoll => Facility::Epoll,
        BackendKind::Fallback => return Ok(()),
    };
    match report.support(needs) {
        Support::Have => Ok(()),
        support => Err(Unsatisfied { backend: kind, lacks: Some((needs, support.clone())) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lacking: &[Facility]) -> Report {
        Report::new("test".into(), |facility| {
            if lacking.contains(&facility) {
                Support::Lack { errno: Some(38), what: "trying it" }
            } else {
                Support::Have
            }
        })
    }

    const BUILT: &[BackendKind] = &[BackendKind::Epoll, BackendKind::Fallback];

    #[test]
    fn auto_takes_the_best_that_works() {
        assert_eq!(select(Choice::Auto, BUILT, &report(&[])), Ok(BackendKind::Epoll));
        let without = report(&[Facility::Epoll]);
        assert_eq!(select(Choice::Auto, BUILT, &without), Ok(BackendKind::Fallback));
    }

    #[test]
    fn auto_takes_a_ring_only_where_it_pays() {
        const ALL: &[BackendKind] = &BackendKind::ALL;
        assert_eq!(select(Choice::Auto, ALL, &report(&[])), Ok(BackendKind::IoUring));
        for lack in RING_PAYS_WITH.into_iter().chain([Facility::IoUring]) {
            let report = report(&[lack]);
            assert_eq!(why_not_ring(&report), Some(lack));
            assert_eq!(select(Choice::Auto, ALL, &report), Ok(BackendKind::Epoll));
        }
        // Where there are no stamps at all, nobody misses them on the ring.
        let without = report(&[Facility::Timestamps, Facility::UringTimestamps]);
        assert_eq!(select(Choice::Auto, ALL, &without), Ok(BackendKind::IoUring));
        // By name it is to be had all the same.
        let choice = Choice::Only(BackendKind::IoUring);
        let without = report(&[Facility::UringTimestamps]);
        assert_eq!(select(choice, ALL, &without), Ok(BackendKind::IoUring));
    }

    #[test]
    fn what_rests_on_something_goes_with_it() {
        let allowed = |off: Facility| {
            let restrictions = Restrictions::none().without(off);
            move |facility: &Facility| restrictions.allow(*facility)
        };
        for (off, prefix) in [(Facility::IoUring, "uring-"), (Facility::KernelTls, "tls-")] {
            let all = Facility::ALL.into_iter();
            let resting: Vec<_> = all.filter(|f| f.name().starts_with(prefix)).collect();
            assert!(resting.len() > 5 && !resting.iter().any(allowed(off)), "{off}");
        }
        for facility in Facility::ALL {
            for needed in facility.rests_on() {
                assert!(!needed.rests_on().contains(&facility), "{facility} and {needed}");
                // Complete as it is, for only these are looked at.
                let further = needed.rests_on().iter();
                assert!(further.clone().all(|f| facility.rests_on().contains(f)), "{facility}");
            }
        }
        assert!(allowed(Facility::TlsReceive)(&Facility::TlsRekey), "for the other direction");
    }

    #[test]
    fn a_name_is_meant() {
        let choice = Choice::Only(BackendKind::Epoll);
        let refused = select(choice, BUILT, &report(&[Facility::Epoll])).unwrap_err();
        assert!(refused.to_string().contains("os error 38"), "{refused}");
        let absent = select("io_uring".parse().unwrap(), BUILT, &report(&[])).unwrap_err();
        assert!(absent.to_string().contains("does not contain"), "{absent}");
    }

    #[test]
    fn restrictions_are_read_from_a_list() {
        let list: Restrictions = "zerocopy, timestamps,".parse().unwrap();
        assert!(!list.allow(Facility::ZeroCopy) && !list.allow(Facility::Timestamps));
        assert!(list.allow(Facility::Sendfile));
        assert!("zerocpy".parse::<Restrictions>().unwrap_err().to_string().contains("zerocopy"));
        assert_eq!("".parse(), Ok(Restrictions::none()));
    }
}
