//! The runner for a backend of one's own: everything that `conformance` can do,
//! restrictions, kernels and reports included.
//!
//!     cargo run -p lastbyte-conformance --example own_backend -- run --filter C05

#![forbid(unsafe_code)]

use lastbyte::{Backend, BackendKind, Choice, Restrictions};
use lastbyte_conformance::cli::{self, Contender};
use lastbyte_conformance::{OpenFailure, Subject};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let mine = Contender::new("mine", |restrictions| {
        // With a way to open it again, the cases about restrictions run in full.
        Ok(Subject::new(open(restrictions)?).opened_by(choose))
    });
    cli::main(&[mine])
}

/// What [`Backend::kind`] of yours says: cases that switch something off ask for it by that.
const KIND: BackendKind = BackendKind::Fallback;

/// Opens what is asked for: the backend of one's own, or another one by name.
fn choose(choice: Choice, without: &Restrictions) -> Result<Arc<dyn Backend>, OpenFailure> {
    match choice {
        Choice::Auto => open(without),
        Choice::Only(kind) if kind == KIND => open(without),
        other => {
            lastbyte_backends::open(other, without).map_err(|error| OpenFailure(error.to_string()))
        }
    }
}

/// Opens it without what is switched off. Your backend goes here.
fn open(restrictions: &Restrictions) -> Result<Arc<dyn Backend>, OpenFailure> {
    lastbyte_backends::open(Choice::Only(KIND), restrictions)
        .map_err(|error| OpenFailure(error.to_string()))
}
