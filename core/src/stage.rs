//! The stages of a transfer, and which of them a user wants to hear of.

use std::fmt;
use std::ops::BitOr;

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Stage {
    /// The kernel holds every byte.
    Queued,
    /// The last byte was handed to the network device.
    Transmitted,
    /// The peer's TCP acknowledged the last byte: the peer's *kernel* has it,
    /// which does not say that its application has read it.
    Acked,
    /// Nobody references the payload's memory any more; it comes back.
    Released,
    /// The transfer ended before its last watched stage.
    Failed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Transmitted => "transmitted",
            Self::Acked => "acked",
            Self::Released => "released",
            Self::Failed => "failed",
        })
    }
}

/// The stages a user wants to hear of. [`Stage::Released`] and
/// [`Stage::Failed`] are always told: they carry ownership.
///
/// Ask for no more than is used: [`Watch::TRANSMITTED`] costs a second kernel
/// notification a transfer.
///
/// ```
/// use lastbyte::Watch;
/// let watch = Watch::QUEUED | Watch::ACKED;
/// assert!(watch.contains(Watch::ACKED) && !watch.contains(Watch::TRANSMITTED));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Watch(u8);

impl Watch {
    /// Only what is always told.
    pub const NONE: Self = Self(0);
    /// [`Stage::Queued`].
    pub const QUEUED: Self = Self(1);
    /// [`Stage::Transmitted`].
    pub const TRANSMITTED: Self = Self(2);
    /// [`Stage::Acked`].
    pub const ACKED: Self = Self(4);
    /// Every stage.
    pub const ALL: Self = Self(7);

    /// Whether every stage of `other` is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The stages in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Watch {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}
