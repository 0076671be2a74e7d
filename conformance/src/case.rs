//! A named proof of one part of the contract, and what came of it.

use crate::sessions::{Given, TurnedDown};
use crate::subject::Directions;
use crate::{Failure, Subject};
use lastbyte::Transport;
use std::fmt;
use std::sync::Arc;

/// One part of the contract, tried on a backend.
#[derive(Clone)]
pub struct Case {
    name: String,
    proves: &'static str,
    over: Over,
    run: Arc<Run>,
}

/// Which transports a case is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    /// What it shows is the same under TLS: it was shown by the other cases.
    Plain,
    /// It means something else under TLS, so it is proved there too.
    Each,
    /// There is nothing to prove without TLS.
    Tls,
}

/// What a case does.
type Run = dyn Fn(&Subject) -> Result<Proof, Failure> + Send + Sync;

impl Case {
    /// The case `name`, which begins with the contract's number (`C05-…`).
    pub fn new(
        name: impl Into<String>,
        proves: &'static str,
        run: impl Fn(&Subject) -> Result<Proof, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), proves, over: Over::Plain, run: Arc::new(run) }
    }

    /// The same, over each transport: TLS changes what it means.
    #[must_use]
    pub fn over_each_transport(self) -> Self {
        Self { over: Over::Each, ..self }
    }

    /// The same, over TLS only.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { over: Over::Tls, ..self }
    }

    /// Whether there is something to prove over this transport.
    #[must_use]
    pub fn is_about(&self, transport: Transport) -> bool {
        match self.over {
            Over::Plain => transport == Transport::Plain,
            Over::Each => true,
            Over::Tls => transport != Transport::Plain,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a backend that passes is known to do.
    #[must_use]
    pub fn proves(&self) -> &'static str {
        self.proves
    }

    /// Carries it out on this thread, without a time limit; see
    /// [`run_case`](crate::run_case).
    ///
    /// # Errors
    /// If the contract is broken.
    pub fn prove(&self, subject: &Subject) -> Result<Proof, Failure> {
        let subject = subject.for_a_case();
        let proof = (self.run)(&subject)?;
        if let Some(lack) = subject.lack() {
            return Ok(proof.in_place_of(lack.clone(), subject.directions()));
        }
        // A version or a cipher may be lacking that this case is all about.
        Ok(match subject.sessions().given() {
            Given::All => proof,
            Given::Some(turned_down, of, why) => proof.with_some(turned_down, of, &why),
            Given::None(TurnedDown { lack, spoken }) => proof.in_place_of(lack, spoken),
        })
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a case that did not fail has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The contract, as named; with what is worth knowing about how.
    Full {
        /// A remark, for example how far a size had to be scaled down.
        note: Option<String>,
    },
    /// Something is lacking here, so the case showed that its substitute
    /// behaves as promised.
    Substitute {
        /// What is lacking.
        lack: Lack,
        /// What was verified instead.
        verified: String,
    },
}

impl Proof {
    /// Shown in full.
    #[must_use]
    pub fn full() -> Self {
        Self::Full { note: None }
    }

    /// Shown in full, with a remark.
    #[must_use]
    pub fn noting(note: impl Into<String>) -> Self {
        Self::Full { note: Some(note.into()) }
    }

    /// The same, shown over what is `spoken` because what was asked for is lacking.
    fn in_place_of(self, lack: Lack, spoken: Directions) -> Self {
        let verified = match self {
            Self::Full { .. } => format!("the same over {spoken}"),
            Self::Substitute { lack, verified } => {
                format!("over {spoken}, which lacks {lack}: {verified}")
            }
        };
        Self::Substitute { lack, verified }
    }

    /// The same, where so many sessions were not what was asked for, `of` so many.
    fn with_some(self, turned_down: usize, of: usize, why: &TurnedDown) -> Self {
        let TurnedDown { lack, spoken } = why;
        let remark = format!("{turned_down} of {of} sessions over {spoken}, for it lacks {lack}");
        match self {
            Self::Full { note: None } => Self::noting(remark),
            Self::Full { note: Some(note) } => Self::noting(format!("{note}; {remark}")),
            substitute @ Self::Substitute { .. } => substitute,
        }
    }

    /// The substitute of what is lacking was shown to work.
    #[must_use]
    pub fn substitute(lack: Lack, verified: impl Into<String>) -> Self {
        Self::Substitute { lack, verified: verified.into() }
    }
}

/// Something that is not to be had here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lack {
    /// What, and how that is known.
    pub what: String,
    /// The kernel's answer, a value of `errno(3)`.
    pub errno: Option<i32>,
}

impl Lack {
    /// `what` is lacking for a reason that is not the kernel's.
    #[must_use]
    pub fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), errno: None }
    }

    /// The kernel refused `what`.
    #[must_use]
    pub fn refused(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self { what: what.into(), errno: error.raw_os_error() }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.errno {
            Some(errno) => write!(f, ": {}", std::io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

/// How a case ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The contract holds.
    Pass {
        /// A remark.
        note: Option<String>,
    },
    /// It cannot be shown here; what stands in for it was.
    NotApplicable {
        /// What is lacking.
        lack: Lack,
        /// What was verified instead.
        substitute: String,
    },
    /// It is broken, or the case hangs.
    Fail(String),
}

impl Verdict {
    /// Whether it counts against the backend.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Fail(_))
    }
}

impl From<Result<Proof, Failure>> for Verdict {
    fn from(result: Result<Proof, Failure>) -> Self {
        match result {
            Ok(Proof::Full { note }) => Self::Pass { note },
            Ok(Proof::Substitute { lack, verified }) => {
                Self::NotApplicable { lack, substitute: verified }
            }
            Err(failure) => Self::Fail(failure.to_string()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass { note: None } => f.write_str("ok"),
            Self::Pass { note: Some(note) } => write!(f, "ok ({note})"),
            Self::NotApplicable { lack, substitute } => {
                write!(f, "n/a: {lack}; substitute verified: {substitute}")
            }
            Self::Fail(message) => write!(f, "FAILED: {message}"),
        }
    }
}
