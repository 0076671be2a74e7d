//! `kernels exec`: another program on a kernel.

use super::accelerator::{self, Wanted};
use super::boot::{Booted, Hardware, Prepared, Shown};
use super::channel::Ended;
use super::machine::{Accelerator, Network, Qemu};
use super::program;
use super::run::{interruption, trial};
use super::wish;
use crate::cli::output::{note, tell};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which kernel, as in `kernels run`.
    #[arg(long, value_name = "NAME", default_value = "newest", conflicts_with = "kernel")]
    on: String,
    /// A kernel of one's own: its image.
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its modules, a folder such as /lib/modules/RELEASE.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value = "1")]
    cpus: NonZeroUsize,
    /// Seconds after which it is killed.
    #[arg(long, default_value_t = 600, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    deadline: u64,
    /// What executes the guest's instructions.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    accel: Wanted,
    /// Have the guest's clock count instructions, each as 2^N nanoseconds, in
    /// software and with one processor: what it then calls CPU time does not
    /// depend on this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=10))]
    icount: Option<u8>,
    /// Connect the guest (10.0.2.15) to this TAP device instead of QEMU's own
    /// network, in which 10.0.2.2 is this machine.
    #[arg(long, value_name = "DEVICE")]
    tap: Option<String>,
    /// The static program, and its arguments behind `--`.
    #[arg(value_name = "PROGRAM")]
    program: PathBuf,
    /// Its arguments.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// How to build the program that is to be run.
const HOW_TO_BUILD: &str = "one that is linked statically, such as by RUSTFLAGS='-C \
                            target-feature=+crt-static' cargo build --target \
                            x86_64-unknown-linux-gnu";
/// How to get a runner that can be the first process.
const HOW_TO_EXEC: &str = "cargo kernels exec (in this repository), which builds a static one";

pub(super) fn run(options: &Options) -> Result<ExitCode, String> {
    if options.icount.is_some() && options.cpus.get() > 1 {
        return Err("--icount counts for one processor only: --cpus 1".to_owned());
    }
    if options.icount.is_some() && options.accel == Wanted::Kvm {
        return Err("--icount counts in software only, which --accel kvm is not".to_owned());
    }
    let other = program::read(&options.program, HOW_TO_BUILD)?;
    let own = program::this(HOW_TO_EXEC)?;
    let qemu = Qemu::find()?;
    let wishes = match &options.kernel {
        Some(image) => vec![wish::own(image, options.modules.as_deref())?],
        None => wish::wishes(std::slice::from_ref(&options.on))?,
    };
    let wish = wishes.first().ok_or("there is no such kernel")?;
    let network = match &options.tap {
        Some(name) => Network::Tap(name.clone()),
        None if qemu.network => Network::User,
        None => Network::None,
    };
    let software = Hardware {
        accelerator: Accelerator::Tcg,
        cpus: options.cpus.get(),
        network,
        icount: options.icount,
    };
    let interrupted = interruption().map_err(|error| format!("signals: {error}"))?;
    let accelerator = match options.icount {
        Some(_) => Accelerator::Tcg,
        None => accelerator::decide(options.accel, &software, &interrupted, || {
            trial(&wishes, &own.content)
        })?,
    };
    let hardware = Hardware { accelerator, ..software };
    let limit = Duration::from_secs(options.deadline);
    let arguments = options.arguments.clone();
    let prepared =
        Prepared::new(wish.unpack()?, &own.content, Some(&other.content), arguments, limit)?;
    let booted = prepared.boot(&hardware, &interrupted, &|shown| {
        if let Shown::Printed(line) = shown {
            note(line);
        }
    });
    for line in &booted.output {
        tell(line);
    }
    let code = exit_code(&booted);
    if !matches!(booted.ended, Some(Ended::Exited(_))) {
        for line in &booted.last_lines {
            note(&format!("| {line}"));
        }
    }
    code.map(ExitCode::from)
}

/// The program's own, where all that it printed is here.
fn exit_code(booted: &Booted) -> Result<u8, String> {
    match (&booted.ended, &booted.broke) {
        // Whoever reads the output cannot see that some of it is missing.
        (Some(Ended::Exited(code)), _) if booted.damaged > 0 => Err(format!(
            "the program ended with exit code {code}, but {} of the lines that came from the \
             guest were damaged on the way",
            booted.damaged
        )),
        (Some(Ended::Exited(code)), _) => Ok(u8::try_from(*code).unwrap_or(1)),
        (_, Some(broke)) => Err(broke.clone()),
        (_, None) => Err("the program did not end".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_is_missing_is_not_success() {
        let ended = Some(Ended::Exited(0));
        let mut booted = Booted { ended, ..Booted::default() };
        assert_eq!(exit_code(&booted), Ok(0));
        booted.damaged = 2;
        let why = exit_code(&booted).unwrap_err();
        assert!(why.contains("2 of the lines") && why.contains("damaged"), "{why}");
        assert_eq!(why.lines().count(), 1);
    }
}
