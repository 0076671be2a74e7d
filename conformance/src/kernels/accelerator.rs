//! Whether the processor itself can run guests here.

use super::boot::{Booted, Hardware, Prepared};
use super::channel::Ended;
use super::machine::Accelerator;
use crate::cli::output::note;
use clap::ValueEnum;
use std::fs::OpenOptions;
use std::sync::atomic::AtomicBool;

/// What `--accel` asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Wanted {
    /// KVM where a kernel was seen to boot with it in time, else software.
    Auto,
    /// KVM.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// Decides. `trial` makes a kernel ready that only says hello: `/dev/kvm` being
/// there says little, for on nested machines it can hang.
pub(super) fn decide(
    wanted: Wanted,
    hardware: &Hardware,
    interrupted: &AtomicBool,
    trial: impl FnOnce() -> Result<Prepared, String>,
) -> Result<Accelerator, String> {
    match wanted {
        Wanted::Tcg => return Ok(Accelerator::Tcg),
        Wanted::Kvm => {}
        Wanted::Auto => {
            if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
                return Ok(Accelerator::Tcg);
            }
        }
    }
    let with_kvm = Hardware { accelerator: Accelerator::Kvm, ..hardware.clone() };
    let said_hello =
        trial().and_then(|trial| said_hello(trial.boot(&with_kvm, interrupted, &|_| {})));
    match (said_hello, wanted) {
        (Ok(()), _) => Ok(Accelerator::Kvm),
        (Err(why), Wanted::Kvm) => Err(format!("KVM does not work here: {why}")),
        (Err(why), _) => {
            note(&format!("conformance: software emulation, for KVM does not work here: {why}"));
            Ok(Accelerator::Tcg)
        }
    }
}

/// Whether the kernel booted and the program on it ended well. It is not one
/// that has a run to tell of, so `broke` says only why it did not.
fn said_hello(booted: Booted) -> Result<(), String> {
    match booted.ended {
        Some(Ended::Exited(0)) => Ok(()),
        Some(Ended::Exited(code)) => Err(format!("what it ran ended with exit code {code}")),
        _ => Err(booted.broke.unwrap_or_else(|| "what it ran did not end".to_owned())),
    }
}
