//! Choosing a backend.

use crate::epoll::epoll;
use crate::fallback::fallback;
use crate::probe;
use lastbyte::{
    Backend, BackendKind, Choice, Restrictions, UnknownBackend, UnknownFacility, Unsatisfied,
    select,
};
use std::env;
use std::fmt;
use std::sync::Arc;

/// The backends that this build contains.
#[cfg(all(target_os = "linux", not(lastbyte_portable)))]
pub const BUILT: &[BackendKind] =
    &[BackendKind::IoUring, BackendKind::Epoll, BackendKind::Fallback];
/// The backends that this build contains.
#[cfg(not(all(target_os = "linux", not(lastbyte_portable))))]
pub const BUILT: &[BackendKind] = &[BackendKind::Fallback];

/// The variable that names a backend: `auto`, `io_uring`, `epoll`, `fallback`.
pub const BACKEND_VARIABLE: &str = "LASTBYTE_BACKEND";

/// The variable that lists facilities not to use, by the names in the report:
/// `LASTBYTE_DISABLE=zerocopy,timestamps`.
pub const DISABLE_VARIABLE: &str = "LASTBYTE_DISABLE";

/// Probes this kernel and opens the backend that `choice` and `restrictions`
/// lead to. Does not read the environment: see [`choice_from_env`].
///
/// # Errors
/// If a backend that was asked for by name cannot be had here. `Auto` cannot
/// fail.
pub fn open(choice: Choice, restrictions: &Restrictions) -> Result<Arc<dyn Backend>, Unsatisfied> {
    let report = probe::report(restrictions);
    Ok(match select(choice, BUILT, &report)? {
        #[cfg(all(target_os = "linux", not(lastbyte_portable)))]
        BackendKind::IoUring => Arc::new(crate::ring::io_uring(report)),
        BackendKind::Epoll => Arc::new(epoll(report)),
        _ => Arc::new(fallback(report)),
    })
}

/// The backend that [`BACKEND_VARIABLE`] names, `None` if it is not set.
///
/// # Errors
/// If it names none.
pub fn choice_from_env() -> Result<Option<Choice>, EnvError> {
    read(BACKEND_VARIABLE)?
        .map(|value| value.parse())
        .transpose()
        .map_err(|error| EnvError { variable: BACKEND_VARIABLE, wrong: Wrong::Backend(error) })
}

/// The restrictions that [`DISABLE_VARIABLE`] lists.
///
/// # Errors
/// If it lists something that is no facility.
pub fn restrictions_from_env() -> Result<Restrictions, EnvError> {
    read(DISABLE_VARIABLE)?
        .unwrap_or_default()
        .parse()
        .map_err(|error| EnvError { variable: DISABLE_VARIABLE, wrong: Wrong::Facility(error) })
}

fn read(variable: &'static str) -> Result<Option<String>, EnvError> {
    match env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(EnvError { variable, wrong: Wrong::NotUnicode }),
    }
}

/// An environment variable has a value that means nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnvError {
    variable: &'static str,
    wrong: Wrong,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Wrong {
    NotUnicode,
    Backend(UnknownBackend),
    Facility(UnknownFacility),
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.variable)?;
        match &self.wrong {
            Wrong::NotUnicode => f.write_str("the value is not Unicode"),
            Wrong::Backend(error) => error.fmt(f),
            Wrong::Facility(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnvError {}
