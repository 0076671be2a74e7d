//! `kernels run`: the cases on a list of kernels.

use super::accelerator::{self, Wanted};
use super::boot::{Hardware, Prepared, Shown};
use super::machine::{Accelerator, Network, Qemu};
use super::program::{self, HOW_TO_BUILD_RUNNER, Program};
use super::wish::{self, Wish};
use crate::cli::output::{self, Format, Place, Trouble, note, tell};
use crate::cli::restrict::RestrictionList;
use crate::cli::{Contender, called, chosen, that_ask_for_an_end, transports};
use crate::remote::Remote;
use crate::results::{COMMIT, CaseResult, KernelResult, KernelsRun, now};
use signal_hook::flag;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which: a series such as 6.12, a version, a whole release, or 'newest';
    /// with @amd64 the flavour that has every driver.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "5.10,6.1,6.12,6.18,newest",
        conflicts_with = "kernel"
    )]
    kernels: Vec<String>,
    /// A kernel of one's own: its image.
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its modules, a folder such as /lib/modules/RELEASE.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Which backend: its name, 'auto', or 'all'.
    #[arg(long, default_value = "all", value_name = "NAME")]
    backend: String,
    /// What is spoken on its connections, as in `run`.
    #[arg(long, default_value = "all", value_name = "NAME")]
    transport: String,
    /// Mebibytes to send where much is to be sent.
    #[arg(long, default_value_t = 8, value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    bulk: u64,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    filter: String,
    /// What to take away first, as in `run`.
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    restrict: String,
    /// How to tell the result; with anything but text, progress is on standard error.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// A folder for results and the kernels' logs.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Kernels at the same time.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Processors of each guest.
    #[arg(long, value_name = "N", default_value = "1")]
    cpus: NonZeroUsize,
    /// Cases at the same time in each guest.
    #[arg(long, value_name = "N", default_value = "4")]
    case_jobs: NonZeroUsize,
    /// Seconds after which a case counts as hanging.
    #[arg(long, default_value_t = 120, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Seconds after which a guest is killed.
    #[arg(long, default_value_t = 1200, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    deadline: u64,
    /// What executes the guests' instructions.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    accel: Wanted,
    /// The static program that each kernel runs; else this one.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub(super) fn run(options: &Options, contenders: &[Contender]) -> Result<ExitCode, String> {
    let date = now();
    check(options, contenders)?;
    if let Some(out) = &options.out {
        // Now, and not after an hour of work.
        fs::create_dir_all(out)
            .and_then(|()| tempfile::tempfile_in(out))
            .map_err(|error| format!("cannot write to {}: {error}", out.display()))?;
    }
    let qemu = Qemu::find()?;
    let program = match &options.binary {
        Some(path) => program::read(path, HOW_TO_BUILD_RUNNER)?,
        None => program::this(HOW_TO_RUN)?,
    };
    let wishes = match &options.kernel {
        Some(image) => vec![wish::own(image, options.modules.as_deref())?],
        None => wish::wishes(&options.kernels)?,
    };
    let remote = Remote::start().map_err(|error| format!("a peer for the guests: {error}"))?;
    let mut arguments = arguments(options);
    if qemu.network {
        arguments.extend(["--peer".to_owned(), format!("{HOST}:{}", remote.port())]);
    }
    let software = Hardware {
        accelerator: Accelerator::Tcg,
        cpus: options.cpus.get(),
        network: if qemu.network { Network::User } else { Network::None },
        icount: None,
    };
    let interrupted = interruption().map_err(|error| format!("signals: {error}"))?;
    let accelerator = accelerator::decide(options.accel, &software, &interrupted, || {
        trial(&wishes, &program.content)
    })?;
    let work = Work {
        options,
        program: &program,
        hardware: Hardware { accelerator, ..software },
        arguments: &arguments,
        interrupted: &interrupted,
    };
    let kernels = work.on_all(&wishes);
    let all = KernelsRun {
        date,
        commit: COMMIT.to_owned(),
        binary: program.sha256(),
        qemu: qemu.version,
        kernels,
    };
    match options.format {
        Format::Text => tell(&output::kernels_summary(&all)),
        Format::Json | Format::JsonLines => tell(&output::as_json(&all)),
        Format::Junit => tell(&output::places_as_junit(all.kernels.iter().map(place))),
    }
    // Last, for what was told is not lost if this fails.
    if let Some(out) = &options.out {
        write(&out.join("kernels.json"), &output::as_json(&all))?;
    }
    // Of an interrupted run some kernels may have no result at all.
    let whole = all.kernels.len() == wishes.len();
    let well = whole && all.kernels.iter().all(KernelResult::is_well);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn place(kernel: &KernelResult) -> Place<'_> {
    let trouble = match &kernel.broke {
        Some(broke) => Trouble::Failed(broke, &kernel.last_lines),
        None => Trouble::None,
    };
    Place { name: &kernel.name, run: kernel.run.as_ref(), test: "kernel", trouble }
}

/// A kernel that only says hello.
pub(super) fn trial(wishes: &[Wish], program: &[u8]) -> Result<Prepared, String> {
    let unpacked = wishes.iter().find_map(|wish| wish.unpack().ok());
    let unpacked = unpacked.ok_or("there is no kernel to try it with")?;
    let hello = vec!["probe".to_owned(), "--json".to_owned()];
    Prepared::new(unpacked, program, None, hello, TRIAL)
}

/// Finds out what every guest would refuse; what another binary knows of is not
/// known here.
fn check(options: &Options, contenders: &[Contender]) -> Result<(), String> {
    options.restrict.parse::<RestrictionList>()?;
    transports(&options.transport)?;
    if options.binary.is_none() {
        chosen(&options.backend, contenders)?;
        called(&options.filter, &options.transport)?;
    }
    Ok(())
}

/// How this program itself becomes one that a kernel can run.
const HOW_TO_RUN: &str = "cargo kernels run (in this repository), or name a static one with \
                          --binary PATH";

/// Set by the signals that ask for an end, so that guests and folders are not
/// left behind; the second one ends this program at once.
pub(super) fn interruption() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in that_ask_for_an_end() {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// How QEMU's user network calls the machine that it runs on.
const HOST: &str = "10.0.2.2";

/// A kernel that runs on the processor itself boots within seconds.
const TRIAL: Duration = Duration::from_secs(15);

/// The program's arguments in the guest.
fn arguments(options: &Options) -> Vec<String> {
    let pairs = [
        ("--format", "json-lines".to_owned()),
        ("--backend", options.backend.clone()),
        ("--transport", options.transport.clone()),
        ("--bulk", options.bulk.to_string()),
        ("--filter", options.filter.clone()),
        ("--restrict", options.restrict.clone()),
        ("--timeout", options.timeout.to_string()),
        ("--jobs", options.case_jobs.to_string()),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let run = std::iter::once("run".to_owned());
    run.chain(pairs.map(|(name, value)| format!("{name}={value}"))).collect()
}

/// What is the same for every kernel.
struct Work<'w> {
    options: &'w Options,
    program: &'w Program,
    hardware: Hardware,
    arguments: &'w [String],
    interrupted: &'w AtomicBool,
}

impl Work<'_> {
    /// Boots all of them, some at a time; results are in the order of the wishes.
    fn on_all(&self, wishes: &[Wish]) -> Vec<KernelResult> {
        let waiting = Mutex::new(wishes.iter().enumerate().collect::<VecDeque<_>>());
        let done = Mutex::new(Vec::new());
        let jobs = self.options.jobs.or(std::thread::available_parallelism().ok());
        std::thread::scope(|scope| {
            for _ in 0..jobs.map_or(1, NonZeroUsize::get).min(wishes.len()) {
                scope.spawn(|| {
                    loop {
                        let next =
                            waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((n, wish)) = next else { break };
                        if self.interrupted.load(Ordering::SeqCst) {
                            break;
                        }
                        let result = self.on_one(wish);
                        self.show_end(&result);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(n, _)| *n);
        done.into_iter().map(|(_, result)| result).collect()
    }

    fn on_one(&self, wish: &Wish) -> KernelResult {
        let mut result = KernelResult {
            name: wish.name.clone(),
            release: wish.release.clone(),
            packages: wish.packages(),
            accelerator: self.hardware.accelerator.name().to_owned(),
            seconds: 0.0,
            missing_modules: Vec::new(),
            broke: None,
            last_lines: Vec::new(),
            run: None,
        };
        let limit = Duration::from_secs(self.options.deadline);
        let prepared = wish.unpack().and_then(|unpacked| {
            let arguments = self.arguments.to_vec();
            Prepared::new(unpacked, &self.program.content, None, arguments, limit)
        });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(why) => return KernelResult { broke: Some(why), ..result },
        };
        self.progress(&format!("{:<7} boots {}", wish.name, wish.release));
        let booted = prepared.boot(&self.hardware, self.interrupted, &|shown| match shown {
            Shown::Case(backend, case) => self.show_case(&wish.name, backend, case),
            Shown::Printed(line) => {
                self.progress(&format!("{:<7} printed: {line}", wish.name));
            }
        });
        result.release = booted.release.unwrap_or(result.release);
        result.missing_modules = prepared.missing.clone();
        result.seconds = booted.seconds;
        result.broke = booted.broke;
        result.last_lines = booted.last_lines;
        result.run = booted.run;
        self.keep(&result, &prepared.console());
        result
    }

    fn show_case(&self, kernel: &str, backend: &str, case: &CaseResult) {
        self.progress(&format!("{kernel:<7} {}", output::line(backend, case)));
    }

    fn show_end(&self, result: &KernelResult) {
        self.progress(&format!("{:<7} ends after {:.1} s", result.name, result.seconds));
        for line in &result.last_lines {
            self.progress(&format!("{:<7} | {line}", result.name));
        }
    }

    fn progress(&self, line: &str) {
        match self.options.format {
            Format::Text => tell(line),
            _ => note(line),
        }
    }

    /// Writes down what is known of a kernel as soon as it is.
    fn keep(&self, result: &KernelResult, console: &Path) {
        let Some(out) = &self.options.out else { return };
        let kept = write(&out.join(format!("{}.json", result.name)), &output::as_json(result))
            .and_then(|()| {
                let path = out.join(format!("{}.console.txt", result.name));
                let copied = fs::copy(console, &path);
                copied.map(|_| ()).map_err(|error| format!("{}: {error}", path.display()))
            });
        if let Err(why) = kept {
            note(&format!("conformance: {why}"));
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
