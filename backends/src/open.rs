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

/// The variable that says from how many bytes on zero copy is tried, for
/// [`DriverConfig::zero_copy_threshold`](lastbyte::DriverConfig::zero_copy_threshold).
pub const ZERO_COPY_THRESHOLD_VARIABLE: &str = "LASTBYTE_ZERO_COPY_THRESHOLD";

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

/// The backend that [`BACKEND_VARIABLE`] names, `None` if it is not set or empty.
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

/// The threshold that [`ZERO_COPY_THRESHOLD_VARIABLE`] holds, `None` if it is not
/// set or empty. `bench zerocopy` finds out what it should be on a machine.
///
/// # Errors
/// If it holds no number of bytes.
pub fn zero_copy_threshold_from_env() -> Result<Option<u64>, EnvError> {
    let variable = ZERO_COPY_THRESHOLD_VARIABLE;
    let parse = |value: String| {
        value.parse().map_err(|_| EnvError { variable, wrong: Wrong::NoNumber(value) })
    };
    read(variable)?.map(parse).transpose()
}

/// A variable that is set to nothing says nothing, as where a unit file lists it
/// without a value.
fn read(variable: &'static str) -> Result<Option<String>, EnvError> {
    match env::var(variable) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
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
    NoNumber(String),
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.variable)?;
        match &self.wrong {
            Wrong::NotUnicode => f.write_str("the value is not Unicode"),
            Wrong::NoNumber(value) => write!(f, "'{value}' is no number of bytes"),
            Wrong::Backend(error) => error.fmt(f),
            Wrong::Facility(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnvError {}
