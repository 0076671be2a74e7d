//! The backend that is to be proved.

use crate::Lack;
use lastbyte::{Backend, BackendKind, Choice, Facility, Restrictions, Support};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A backend, and how to get it in other circumstances.
#[derive(Clone)]
pub struct Subject {
    backend: Arc<dyn Backend>,
    restrictions: Restrictions,
    opener: Option<Arc<Opener>>,
    receive_buffer: Option<usize>,
    remote_peer: Option<SocketAddr>,
}

/// Opens a backend by choice under restrictions.
pub type Opener =
    dyn Fn(Choice, &Restrictions) -> Result<Arc<dyn Backend>, OpenFailure> + Send + Sync;

/// Why no backend was opened, in its own words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenFailure(pub String);

impl fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenFailure {}

impl Subject {
    /// Any backend. Cases about the choice among backends have nothing to
    /// choose from and end as n/a.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let restrictions = Restrictions::none();
        Self { backend, restrictions, opener: None, receive_buffer: None, remote_peer: None }
    }

    /// A backend of `lastbyte-backends`, with facilities switched off.
    ///
    /// # Errors
    /// If it cannot be had here.
    pub fn built_in(choice: Choice, restrictions: &Restrictions) -> Result<Self, OpenFailure> {
        let backend = open_built_in(choice, restrictions)?;
        let subject = Self { restrictions: restrictions.clone(), ..Self::new(backend) };
        Ok(subject.opened_by(open_built_in))
    }

    /// The same, with `open` to get backends under other restrictions.
    #[must_use]
    pub fn opened_by(
        mut self,
        open: impl Fn(Choice, &Restrictions) -> Result<Arc<dyn Backend>, OpenFailure>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.opener = Some(Arc::new(open));
        self
    }

    /// The same, on sockets whose receive buffer is `bytes` long.
    #[must_use]
    pub fn with_receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The same, with another machine to send to, where `conformance peer`
    /// listens at this address.
    #[must_use]
    pub fn with_remote_peer(mut self, peer: SocketAddr) -> Self {
        self.remote_peer = Some(peer);
        self
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What is switched off.
    #[must_use]
    pub fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// Length that receive buffers of attached sockets are set to.
    #[must_use]
    pub fn receive_buffer(&self) -> Option<usize> {
        self.receive_buffer
    }

    /// Another machine to send to.
    #[must_use]
    pub fn remote_peer(&self) -> Option<SocketAddr> {
        self.remote_peer
    }

    /// The way to open backends, where there is one.
    #[must_use]
    pub fn opener(&self) -> Option<&Opener> {
        self.opener.as_deref()
    }

    /// This backend with `facility` switched off too, where it can be reopened.
    #[must_use]
    pub fn without(&self, facility: Facility) -> Option<Self> {
        let open = self.opener.as_ref()?;
        let restrictions = self.restrictions.clone().without(facility);
        let backend = open(Choice::Only(self.backend.kind()), &restrictions).ok()?;
        Some(Self { backend, restrictions, ..self.clone() })
    }

    /// Why this backend does not use `facility`; `None` if it has to.
    #[must_use]
    pub fn lacks(&self, facility: Facility) -> Option<Lack> {
        let portable = [Facility::TcpInfo, Facility::OutQueue].contains(&facility);
        match self.backend.report().support(facility) {
            Support::Have if self.backend.kind() == BackendKind::Fallback && !portable => Some(
                Lack::of(format!("{facility}: the fallback backend makes portable calls only")),
            ),
            Support::Have => None,
            Support::Lack { errno, what } => {
                Some(Lack { what: format!("{facility}: {what}"), errno: *errno })
            }
            Support::Disabled => Some(Lack::of(format!("{facility}: disabled"))),
            _ => Some(Lack::of(format!("{facility}: unknown"))),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("backend", &self.backend)
            .field("restrictions", &self.restrictions)
            .finish_non_exhaustive()
    }
}

fn open_built_in(
    choice: Choice,
    restrictions: &Restrictions,
) -> Result<Arc<dyn Backend>, OpenFailure> {
    lastbyte_backends::open(choice, restrictions).map_err(|error| OpenFailure(error.to_string()))
}
