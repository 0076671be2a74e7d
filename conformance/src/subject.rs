//! The backend that is to be proved.

use crate::sessions::{Sessions, TurnedDown};
use crate::tls::{Known, Terms, provider};
use crate::{Failure, Lack};
use lastbyte::{
    Backend, BackendKind, Choice, Facility, OffloadWish, Restrictions, Support, TlsCipher,
    TlsVersion, Transport,
};
use lastbyte_backends::tls::{TlsBackend, TlsOptions, TlsProvider};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A backend, and how to get it in other circumstances.
#[derive(Clone)]
pub struct Subject {
    backend: Arc<dyn Backend>,
    /// What was asked for, and what is spoken.
    asked: Transport,
    spoken: Directions,
    /// What the transport lacks here; what is spoken then is user TLS.
    lack: Option<Lack>,
    /// Why the kernel is not given the sessions of these terms.
    turned_down: Option<TurnedDown>,
    /// Those of the case.
    sessions: Sessions,
    /// The backend without TLS.
    inner: Arc<dyn Backend>,
    restrictions: Restrictions,
    opener: Option<Arc<Opener>>,
    receive_buffer: Option<usize>,
    remote_peer: Option<SocketAddr>,
    bulk: u64,
}

/// What seals what is sent, and what opens what is received.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Directions {
    pub(crate) transmit: Transport,
    pub(crate) receive: Transport,
}

impl Directions {
    pub(crate) const fn both(transport: Transport) -> Self {
        Self { transmit: transport, receive: transport }
    }
}

impl fmt::Display for Directions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transmit, receive } = self;
        if transmit == receive {
            write!(f, "{transmit}")
        } else {
            write!(f, "{transmit} out and {receive} in")
        }
    }
}

/// Enough to leave every buffer on the way many times over.
const BULK: u64 = 64 << 20;

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
        Self {
            inner: Arc::clone(&backend),
            asked: Transport::Plain,
            spoken: Directions::both(Transport::Plain),
            lack: None,
            turned_down: None,
            sessions: Sessions::default(),
            backend,
            restrictions,
            opener: None,
            receive_buffer: None,
            remote_peer: None,
            bulk: BULK,
        }
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

    /// The same, sending `bytes` where much is to be sent.
    #[must_use]
    pub fn with_bulk(mut self, bytes: u64) -> Self {
        self.bulk = bytes;
        self
    }

    /// The same backend over another transport. Kernel TLS is asked for where it
    /// can be had; where it cannot, each case shows that user TLS stands in.
    ///
    /// # Errors
    /// If it cannot be had at all.
    pub fn over(&self, transport: Transport) -> Result<Self, OpenFailure> {
        let plain = Self {
            asked: transport,
            spoken: Directions::both(Transport::Plain),
            lack: None,
            turned_down: None,
            backend: Arc::clone(&self.inner),
            ..self.clone()
        };
        if transport == Transport::Plain {
            return Ok(plain);
        }
        let lack = (transport == Transport::KernelTls).then(|| self.lacks(Facility::KernelTls));
        let subject = Self { lack: lack.flatten(), ..plain };
        let terms = subject.usual_terms();
        subject.agreeing_to(terms).map_err(|error| OpenFailure(error.to_string()))
    }

    /// The same, agreeing to these terms only.
    pub(crate) fn agreeing_to(&self, terms: Terms) -> Result<Self, Failure> {
        Ok(self.speaking(provider(terms)?, terms, |_| {}))
    }

    /// The same, by handshakes whose keys the case knows.
    pub(crate) fn knowing(&self, known: &Known) -> Self {
        let terms = Terms { version: Some(known.version), cipher: Some(known.cipher) };
        self.speaking(Arc::new(known.clone()), terms, |_| {})
    }

    /// The same with this wish for kernel TLS, which the case sees to that it is
    /// not fulfilled.
    pub(crate) fn declined(&self, known: &Known, wish: OffloadWish) -> Self {
        let terms = Terms { version: Some(known.version), cipher: Some(known.cipher) };
        let subject =
            self.speaking(Arc::new(known.clone()), terms, |options| options.offload = wish);
        let spoken = Directions::both(Transport::UserTls);
        let turned_down = subject.turned_down.clone().map(|why| TurnedDown { spoken, ..why });
        Self { spoken, turned_down, ..subject }
    }

    /// By handshakes whose keys the case knows, which the kernel is given for both
    /// directions or for none: for cases that refuse it a step.
    pub(crate) fn knowing_whole(&self, known: &Known) -> Self {
        let subject = self.knowing(known);
        if subject.spoken == Directions::both(subject.transport()) {
            return subject;
        }
        self.declined(known, OffloadWish::Never)
    }

    /// The same, with other options.
    pub(crate) fn adjusted(&self, adjust: impl FnOnce(&mut TlsOptions)) -> Result<Self, Failure> {
        let terms = self.usual_terms();
        Ok(self.speaking(provider(terms)?, terms, adjust))
    }

    /// The same over the same transport, with handshakes of another kind, which
    /// end in these terms.
    pub(crate) fn speaking(
        &self,
        provider: Arc<dyn TlsProvider>,
        terms: Terms,
        adjust: impl FnOnce(&mut TlsOptions),
    ) -> Self {
        let spoken = self.spoken(terms);
        let mut options = TlsOptions::default();
        options.offload = match (self.asked, spoken.transmit, spoken.receive) {
            (Transport::KernelTls, Transport::KernelTls, Transport::KernelTls) => {
                OffloadWish::Require
            }
            // Cannot be had, at least not both ways; what comes of the wish there
            // is user TLS.
            (Transport::KernelTls, ..) => OffloadWish::Prefer,
            _ => OffloadWish::Never,
        };
        adjust(&mut options);
        let backend = TlsBackend::new(Arc::clone(&self.inner), provider, options);
        let turned_down = self.turned_down(terms, spoken);
        Self { backend: Arc::new(backend), spoken, turned_down, ..self.clone() }
    }

    /// For cases to which neither matters.
    fn usual_terms(&self) -> Terms {
        Terms { version: Some(self.version()), cipher: Some(TlsCipher::Aes128Gcm) }
    }

    /// The protocol version for cases to which it does not matter: the newest,
    /// but for kernels that are not given that.
    pub(crate) fn version(&self) -> TlsVersion {
        let by_kernel = self.asked == Transport::KernelTls && self.lack.is_none();
        if by_kernel && self.lacks(Facility::TlsRekey).is_some() {
            TlsVersion::Tls12
        } else {
            TlsVersion::Tls13
        }
    }

    /// What connections with these terms have to be.
    fn spoken(&self, terms: Terms) -> Directions {
        if self.asked != Transport::KernelTls {
            return Directions::both(self.asked);
        }
        let by = |lack: Option<Lack>| match lack {
            None => Transport::KernelTls,
            Some(_) => Transport::UserTls,
        };
        Directions {
            transmit: by(self.lacks_to_transmit(terms)),
            receive: by(self.lacks_to_receive(terms)),
        }
    }

    /// Why the kernel is not given sessions of these terms, or one direction of
    /// them only; `None` where nobody asked for that.
    fn turned_down(&self, terms: Terms, spoken: Directions) -> Option<TurnedDown> {
        if self.asked != Transport::KernelTls {
            return None;
        }
        let lack = self.lacks_to_transmit(terms).or_else(|| self.lacks_to_receive(terms))?;
        Some(TurnedDown { lack, spoken })
    }

    /// Why the kernel does not seal what is sent in sessions of these terms.
    fn lacks_to_transmit(&self, terms: Terms) -> Option<Lack> {
        // A call may return before TCP has the bytes, and only both accounts of
        // the socket together tell when it has them.
        let needed = [Facility::TlsTransmit, Facility::TcpInfo, Facility::OutQueue];
        self.kernel_lacks(&needed, terms)
    }

    /// Why the kernel does not open what is received in them.
    fn lacks_to_receive(&self, terms: Terms) -> Option<Lack> {
        self.kernel_lacks(&[Facility::TlsReceive], terms)
    }

    /// The first of what is `needed` for kernel TLS with these terms and is lacking.
    fn kernel_lacks(&self, needed: &[Facility], terms: Terms) -> Option<Lack> {
        // Its keys may have to be changed (RFC 8446, section 4.6.3).
        let version = (terms.version != Some(TlsVersion::Tls12)).then_some(Facility::TlsRekey);
        let cipher = match terms.cipher {
            Some(TlsCipher::Aes256Gcm) => Some(Facility::TlsAes256),
            Some(TlsCipher::ChaCha20Poly1305) => Some(Facility::TlsChaCha20),
            _ => None,
        };
        let needed = [Facility::KernelTls].into_iter().chain(needed.iter().copied());
        needed.chain(version).chain(cipher).find_map(|facility| self.lacks(facility))
    }

    /// What is spoken on its connections: kernel TLS only where it is that in both
    /// directions.
    #[must_use]
    pub fn transport(&self) -> Transport {
        let Directions { transmit, receive } = self.spoken;
        if transmit == receive { transmit } else { Transport::UserTls }
    }

    /// The same, of each direction.
    pub(crate) fn directions(&self) -> Directions {
        self.spoken
    }

    /// The same, for a case whose sessions are counted from here on.
    pub(crate) fn for_a_case(&self) -> Self {
        Self { sessions: Sessions::default(), ..self.clone() }
    }

    /// The sessions of this case.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Why those that are established with it are not the kernel's, as was asked.
    pub(crate) fn why_turned_down(&self) -> Option<&TurnedDown> {
        self.turned_down.as_ref()
    }

    /// Why another transport is spoken than was asked for.
    pub(crate) fn lack(&self) -> Option<&Lack> {
        self.lack.as_ref()
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

    /// What to send where much is to be sent, in bytes.
    #[must_use]
    pub fn bulk(&self) -> u64 {
        self.bulk
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
        let inner = open(Choice::Only(self.inner.kind()), &restrictions).ok()?;
        Self { inner, restrictions, ..self.clone() }.over(self.asked).ok()
    }

    /// Why this backend does not use `facility`; `None` if it has to.
    #[must_use]
    pub fn lacks(&self, facility: Facility) -> Option<Lack> {
        // The kernel tells of the end of these by notices that can be lost, and
        // only a look at the socket's account makes up for that.
        let told = [Facility::Timestamps, Facility::ZeroCopy, Facility::Sendfile];
        let look = || Some((self.lacks(Facility::TcpInfo)?, self.lacks(Facility::OutQueue)?));
        let blind = || told.contains(&facility).then(look).flatten().map(|(lack, _)| lack);
        // Whether a socket was lent memory before is in its account, and the names
        // of calls count from there; those of a ring's operations do not.
        let unnamed = || {
            let by_call = facility == Facility::ZeroCopy && !self.lends_by_ring();
            by_call.then(|| self.lacks_itself(Facility::TcpInfo)).flatten()
        };
        self.lacks_itself(facility).or_else(blind).or_else(unnamed)
    }

    fn lends_by_ring(&self) -> bool {
        self.backend.kind() == BackendKind::IoUring
            && self.lacks_itself(Facility::UringZeroCopy).is_none()
    }

    fn lacks_itself(&self, facility: Facility) -> Option<Lack> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::{CompletionSink, Driver, DriverConfig, DriverError, Report};
    use std::io::ErrorKind::Unsupported;

    /// It says what it can do, and does nothing.
    #[derive(Debug)]
    struct Says(Report);

    impl Backend for Says {
        fn kind(&self) -> BackendKind {
            BackendKind::Epoll
        }

        fn report(&self) -> &Report {
            &self.0
        }

        fn driver(
            &self,
            _: &DriverConfig,
            _: Box<dyn CompletionSink>,
        ) -> Result<Box<dyn Driver>, DriverError> {
            Err(DriverError::new("nothing", &Unsupported.into()))
        }

        fn movable_driver(
            &self,
            _: &DriverConfig,
            _: Box<dyn CompletionSink + Send>,
        ) -> Result<Box<dyn Driver + Send>, DriverError> {
            Err(DriverError::new("nothing", &Unsupported.into()))
        }
    }

    /// Kernel TLS on a kernel that has everything but this.
    fn without(lacking: Facility) -> Subject {
        let report = Report::new("test".into(), |facility| {
            let what = "trying it";
            let lack = Support::Lack { errno: Some(libc::EBUSY), what };
            if facility == lacking { lack } else { Support::Have }
        });
        Subject::new(Arc::new(Says(report))).over(Transport::KernelTls).unwrap()
    }

    #[test]
    fn each_direction_is_the_kernels_where_it_has_what_that_takes() {
        use Transport::{KernelTls, UserTls};
        for (lacking, transmit, receive) in [
            (Facility::Sendfile, KernelTls, KernelTls),
            (Facility::TcpInfo, UserTls, KernelTls),
            (Facility::OutQueue, UserTls, KernelTls),
            (Facility::TlsTransmit, UserTls, KernelTls),
            (Facility::TlsReceive, KernelTls, UserTls),
            (Facility::KernelTls, UserTls, UserTls),
        ] {
            let subject = without(lacking);
            assert_eq!(subject.directions(), Directions { transmit, receive }, "{lacking}");
            let both = transmit == KernelTls && receive == KernelTls;
            assert_eq!(subject.transport() == KernelTls, both, "{lacking}");
        }
        // The usual version is one that is the kernel's.
        assert_eq!(without(Facility::TlsRekey).version(), TlsVersion::Tls12);
        assert_eq!(without(Facility::TcpInfo).version(), TlsVersion::Tls13);
        let terms = Terms { version: None, cipher: Some(TlsCipher::ChaCha20Poly1305) };
        let subject = without(Facility::TlsChaCha20).agreeing_to(terms).unwrap();
        assert_eq!(subject.directions(), Directions::both(UserTls));
    }

    #[test]
    fn what_needs_a_look_is_lacking_without_any() {
        let report = |lacking: &[Facility]| {
            let lack = Support::Lack { errno: Some(libc::EPERM), what: "trying it" };
            let support = |facility| {
                if lacking.contains(&facility) { lack.clone() } else { Support::Have }
            };
            Subject::new(Arc::new(Says(Report::new("test".into(), support))))
        };
        let blind = report(&[Facility::TcpInfo, Facility::OutQueue]);
        let one_eyed = report(&[Facility::TcpInfo]);
        for facility in [Facility::ZeroCopy, Facility::Sendfile, Facility::Timestamps] {
            let lack = blind.lacks(facility).unwrap();
            assert_eq!(lack.errno, Some(libc::EPERM));
            assert!(lack.what.contains("tcp-info"), "{lack}");
            let copies = facility == Facility::ZeroCopy;
            assert_eq!(one_eyed.lacks(facility).is_some(), copies, "{facility}");
        }
        assert_eq!(blind.lacks(Facility::Epoll), None);
    }

    /// What comes of a case on a kernel that does not change keys, if it has
    /// sessions of these versions.
    fn proof_of(versions: &'static [TlsVersion]) -> crate::Proof {
        let case = crate::Case::new("C11-sessions", "", move |subject| {
            for version in versions {
                let terms = Terms { version: Some(*version), cipher: None };
                let subject = subject.agreeing_to(terms)?;
                subject.sessions().count(subject.why_turned_down());
            }
            Ok(crate::Proof::full())
        });
        let subject = without(Facility::TlsRekey);
        // What one case has counted is not the next one's.
        drop(case.prove(&subject));
        case.prove(&subject).unwrap()
    }

    #[test]
    fn what_the_kernel_was_not_given_is_not_shown_of_it() {
        use TlsVersion::{Tls12, Tls13};
        assert_eq!(proof_of(&[]), crate::Proof::full());
        assert_eq!(proof_of(&[Tls12, Tls12]), crate::Proof::full());
        let lack = Lack { what: "tls-rekey: trying it".into(), errno: Some(libc::EBUSY) };
        let instead = crate::Proof::substitute(lack, "the same over user-tls");
        assert_eq!(proof_of(&[Tls13]), instead);
        let some = proof_of(&[Tls13, Tls12, Tls13]);
        let crate::Proof::Full { note: Some(note) } = some else { panic!("{some:?}") };
        assert!(note.starts_with("2 of 3 sessions over user-tls"), "{note}");
        assert!(note.contains("tls-rekey"), "{note}");
    }
}
