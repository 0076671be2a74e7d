//! Real kernels, booted under QEMU, each running this very program.
//!
//! `apt` says which kernels there are and `cache` keeps their packages by
//! content; `modules` and `initramfs` make a root that holds nothing but this
//! binary and the modules it wants; `machine` runs QEMU; `guest` is the first
//! process in there; `channel` is what the two talk over; `run` gathers.

mod accelerator;
mod apt;
mod boot;
mod cache;
mod channel;
mod choose;
mod console;
mod cpio;
mod exec;
mod guest;
mod image;
mod initramfs;
mod list;
mod machine;
mod modules;
mod program;
mod run;
mod tools;
mod unpack;
mod wish;

pub(crate) use guest::guest;

use crate::cli::Contender;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Show which kernels there are, from the archive that this system's apt uses.
    List(list::Options),
    /// Boot kernels and run the cases in each.
    Run(Box<run::Options>),
    /// Boot one kernel and run another static program in it; what it prints is
    /// this program's output.
    Exec(Box<exec::Options>),
}

pub(crate) fn act(action: &Action, contenders: &[Contender]) -> Result<ExitCode, String> {
    match action {
        Action::List(options) => list::list(options),
        Action::Run(options) => run::run(options, contenders),
        Action::Exec(options) => exec::run(options),
    }
}
