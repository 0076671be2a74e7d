//! The contract of [`lastbyte`], C1 to C15, as named cases that any backend can
//! be proved with.
//!
//! A case gets a backend as a trait object and real TCP peers: ones that read,
//! stall, reset, half-close, flood, read a byte at a time, or sit behind a slow
//! and lossy link. It passes, fails, or finds that a facility is lacking here,
//! and then shows that the substitute behaves as promised: nothing is skipped
//! in silence.
//!
//! ```no_run
//! use lastbyte_conformance::{Subject, cases, run_case};
//! use std::time::Duration;
//! # fn mine() -> std::sync::Arc<dyn lastbyte::Backend> {
//! #     let restrictions = lastbyte::Restrictions::none();
//! #     lastbyte_backends::open(lastbyte::Choice::Auto, &restrictions).expect("auto always opens")
//! # }
//! let subject = Subject::new(mine());
//! for case in cases().iter().filter(|case| case.is_about(subject.transport())) {
//!     let outcome = run_case(case, &subject, Duration::from_secs(60));
//!     println!("{} {}", case.name(), outcome.verdict);
//! }
//! ```

#![deny(unsafe_code)]
// They panic where nobody listens; `cli::output` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod canary;
mod case;
mod cases;
pub mod cli;
mod dial;
mod failure;
mod far_end;
#[cfg(target_os = "linux")]
mod kernels;
mod link;
mod material;
mod pattern;
mod peers;
mod record;
mod remote;
mod report;
mod results;
mod rig;
mod run;
mod sessions;
mod subject;
mod sys;
mod tls;
mod wire;
mod witness;

pub use case::{Case, Lack, Proof, Verdict};
pub use cases::cases;
pub use failure::Failure;
#[cfg(target_os = "linux")]
pub use link::{Apart, LinkOptions, Wire};
pub use results::COMMIT;
pub use run::{Outcome, Step, run_all, run_case};
pub use subject::{OpenFailure, Opener, Subject};
#[cfg(target_os = "linux")]
pub use sys::namespace::Namespace;
pub use sys::process::{ProcessRestriction, Refusable, UnknownRestriction, restrict_process};
pub use sys::sysctl::{MachineRestriction, Restricted, restrict_machine};
