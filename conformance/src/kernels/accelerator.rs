//! Whether the processor itself can run guests here.

use super::boot::{Hardware, Prepared};
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
    let broke = match trial() {
        Ok(trial) => trial.boot(&with_kvm, interrupted, &|_| {}).broke,
        Err(why) => Some(why),
    };
    match (broke, wanted) {
        (None, _) => Ok(Accelerator::Kvm),
        (Some(why), Wanted::Kvm) => Err(format!("KVM does not work here: {why}")),
        (Some(why), _) => {
            note(&format!("conformance: software emulation, for KVM does not work here: {why}"));
            Ok(Accelerator::Tcg)
        }
    }
}
