//! Which sessions of a case the kernel was given.

use crate::Lack;
use crate::subject::Directions;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the sessions of a case; its clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<Counted>>);

#[derive(Clone, Debug, Default)]
struct Counted {
    /// What was to be the kernel's, and was, or was kept from it on purpose.
    given: usize,
    turned_down: usize,
    first: Option<TurnedDown>,
}

/// Why the kernel was not given a session, and what was spoken instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TurnedDown {
    pub(crate) lack: Lack,
    pub(crate) spoken: Directions,
}

/// What the kernel was given of those that it was to have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Given {
    /// Each one, or there was none.
    All,
    /// So many were turned down, of so many, and the first one for this.
    Some(usize, usize, TurnedDown),
    /// Not one, and the first one for this.
    None(TurnedDown),
}

impl Sessions {
    /// Counts one that was established.
    pub(crate) fn count(&self, turned_down: Option<&TurnedDown>) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match turned_down {
            None => counted.given += 1,
            Some(why) => {
                counted.turned_down += 1;
                counted.first.get_or_insert_with(|| why.clone());
            }
        }
    }

    pub(crate) fn given(&self) -> Given {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Counted { given, turned_down, first } = counted;
        match first {
            None => Given::All,
            Some(why) if given == 0 => Given::None(why),
            Some(why) => Given::Some(turned_down, given + turned_down, why),
        }
    }
}
