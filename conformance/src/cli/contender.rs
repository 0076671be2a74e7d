//! The backends that a runner knows by name.

use crate::{OpenFailure, Subject};
use lastbyte::{BackendKind, Choice, Restrictions, Transport};
use std::fmt;
use std::sync::Arc;

/// A backend that `run --backend` knows by name.
#[derive(Clone)]
pub struct Contender {
    name: String,
    in_all: bool,
    open: Arc<Open>,
}

type Open = dyn Fn(&Restrictions) -> Result<Subject, OpenFailure> + Send + Sync;

impl Contender {
    /// The backend `name`, which `open` opens with facilities switched off.
    pub fn new(
        name: impl Into<String>,
        open: impl Fn(&Restrictions) -> Result<Subject, OpenFailure> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), in_all: true, open: Arc::new(open) }
    }

    /// The backends of `lastbyte-backends`, and `auto`.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let known = BackendKind::ALL.map(Choice::Only).into_iter();
        let contenders = known.chain([Choice::Auto]).map(|choice| {
            let open = move |restrictions: &Restrictions| Subject::built_in(choice, restrictions);
            // A name that this build does not contain is known, and an error
            // that says so.
            let in_all = match choice {
                Choice::Only(kind) => lastbyte_backends::BUILT.contains(&kind),
                Choice::Auto => false,
            };
            Self { in_all, ..Self::new(choice.to_string(), open) }
        });
        contenders.collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn open(&self, restrictions: &Restrictions) -> Result<Subject, OpenFailure> {
        (self.open)(restrictions)
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What `--backend` means: one name, or 'all'.
pub(crate) fn chosen<'c>(
    name: &str,
    contenders: &'c [Contender],
) -> Result<Vec<&'c Contender>, String> {
    if name == "all" {
        return Ok(contenders.iter().filter(|contender| contender.in_all).collect());
    }
    let found = contenders.iter().find(|contender| contender.name == name);
    found.map(|contender| vec![contender]).ok_or_else(|| {
        let known: Vec<_> = contenders.iter().map(Contender::name).collect();
        format!("there is no backend '{name}'; known are {}, and 'all'", known.join(", "))
    })
}

/// Every transport, in the order in which they are tried.
pub(super) const TRANSPORTS: [Transport; 3] =
    [Transport::Plain, Transport::UserTls, Transport::KernelTls];

/// What `--transport` means: one name, or 'all'.
pub(crate) fn transports(name: &str) -> Result<Vec<Transport>, String> {
    if name == "all" {
        return Ok(TRANSPORTS.to_vec());
    }
    let found = TRANSPORTS.into_iter().find(|transport| transport.to_string() == name);
    found.map(|transport| vec![transport]).ok_or_else(|| {
        let known = TRANSPORTS.map(|transport| transport.to_string()).join(", ");
        format!("there is no transport '{name}'; known are {known}, and 'all'")
    })
}

/// How results name a backend over a transport.
pub(super) fn label(backend: &str, transport: Transport) -> String {
    match transport {
        Transport::Plain => backend.to_owned(),
        other => format!("{backend}/{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_chosen_by_name() {
        let contenders = Contender::built_in();
        let all = chosen("all", &contenders).unwrap();
        assert_eq!(all.len(), lastbyte_backends::BUILT.len());
        assert_eq!(chosen("fallback", &contenders).unwrap()[0].name(), "fallback");
        let error = chosen("apoll", &contenders).unwrap_err();
        assert!(error.contains("apoll") && error.contains("epoll, fallback"), "{error}");
    }

    #[test]
    fn transports_are_chosen_by_name() {
        assert_eq!(transports("all").unwrap(), TRANSPORTS);
        assert_eq!(transports("user-tls").unwrap(), [Transport::UserTls]);
        let error = transports("tls").unwrap_err();
        assert!(error.contains("'tls'") && error.contains("plain, user-tls"), "{error}");
        assert_eq!(label("epoll", Transport::Plain), "epoll");
        assert_eq!(label("epoll", Transport::KernelTls), "epoll/kernel-tls");
    }
}
