//! `run`: the cases on this kernel.

use super::contender::{Contender, chosen};
use super::output::{self, Event, Format, Lines, tell};
use super::restrict::RestrictionList;
use crate::results::{BackendResult, CaseResult, Run, Unavailable};
use crate::{Case, OpenFailure, Step, Subject, cases, restrict_machine, restrict_process, run_all};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Which backend: its name, 'auto', or 'all' that this build contains.
    #[arg(long, default_value = "all", value_name = "NAME")]
    backend: String,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    filter: String,
    /// How to tell the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// What to take away first, separated by commas: no-FACILITY;
    /// seccomp-no-CALL of io-uring, epoll, timestamping, zerocopy, tcp-info,
    /// kernel-tls (each also with -enosys); memlock=BYTES; rcvbuf=BYTES; and, as
    /// root, io-uring-disabled=1|2, optmem-max=BYTES.
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    restrict: String,
    /// Seconds after which a case counts as hanging.
    #[arg(long, default_value_t = 60, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Cases at the same time.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Another machine, where `conformance peer` listens, for the cases that
    /// need a path which does not copy.
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer: Option<SocketAddr>,
}

/// Set in the child that runs under restrictions of the whole process.
const CHILD: &str = "LASTBYTE_CONFORMANCE_CHILD";

pub(super) fn run(options: &Options, contenders: &[Contender]) -> Result<ExitCode, String> {
    let restrictions: RestrictionList = options.restrict.parse()?;
    let chosen = chosen(&options.backend, contenders)?;
    let cases: Vec<_> =
        cases().into_iter().filter(|case| case.name().contains(&options.filter)).collect();
    if cases.is_empty() {
        return Err(format!("no case's name contains '{}'", options.filter));
    }
    if restrictions.needs_a_child() {
        if std::env::var_os(CHILD).is_none() {
            return in_child(&restrictions);
        }
        restrict_process(&restrictions.process)
            .map_err(|error| format!("the restriction cannot be imposed here: {error}"))?;
    }
    prove(options, &restrictions, &chosen, &cases)
}

/// Starts this program again, so that what the process gives up is not missed
/// by anything that came before, and what the machine lacks is given back when
/// the child is done, however it ends.
fn in_child(restrictions: &RestrictionList) -> Result<ExitCode, String> {
    let _given_back_when_dropped = restrict_machine(&restrictions.machine)?;
    let run = || {
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(CHILD, "1")
            .status()
    };
    match run() {
        Ok(status) => Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))),
        Err(error) => Err(format!("cannot start itself again: {error}")),
    }
}

fn prove(
    options: &Options,
    restrictions: &RestrictionList,
    chosen: &[&Contender],
    cases: &[Case],
) -> Result<ExitCode, String> {
    let jobs = options.jobs.or(std::thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    let lines = Lines::default();
    let report = lastbyte_backends::report(&restrictions.facilities);
    let mut run = Run::new(&restrictions.names, &report);
    for contender in chosen {
        let subject = match open(contender, options, restrictions) {
            Ok(subject) => subject,
            Err(error) if chosen.len() == 1 => return Err(error.to_string()),
            Err(error) => {
                let unavailable =
                    Unavailable { backend: contender.name().to_owned(), why: error.0 };
                match options.format {
                    Format::Text => tell(&output::unavailable_line(&unavailable)),
                    Format::JsonLines => lines.write(&Event::Unavailable(unavailable.clone())),
                    _ => {}
                }
                run.unavailable.push(unavailable);
                continue;
            }
        };
        let backend = match contender.name() {
            "auto" => subject.backend().kind().to_string(),
            name => name.to_owned(),
        };
        let show = |case: &Case, step: Step<'_>| match (options.format, step) {
            (Format::Text, Step::Ended(outcome)) => {
                let result = CaseResult::new(case, &outcome.verdict, outcome.took);
                tell(&output::line(&backend, &result));
            }
            (Format::JsonLines, Step::Begins) => {
                let name = case.name().to_owned();
                lines.write(&Event::Begin { backend: backend.clone(), name });
            }
            (Format::JsonLines, Step::Ended(outcome)) => {
                let case = CaseResult::new(case, &outcome.verdict, outcome.took);
                lines.write(&Event::End { backend: backend.clone(), case });
            }
            _ => {}
        };
        let outcomes = run_all(cases, &subject, Duration::from_secs(options.timeout), jobs, show);
        let results = cases
            .iter()
            .zip(outcomes)
            .map(|(case, outcome)| CaseResult::new(case, &outcome.verdict, outcome.took));
        run.add(BackendResult { backend: backend.clone(), cases: results.collect() });
    }
    let failed = run.failed > 0;
    match options.format {
        Format::Text => tell(&output::summary(&run)),
        Format::Json => tell(&output::as_json(&run)),
        Format::JsonLines => lines.write(&Event::Done { run: Box::new(run) }),
        Format::Junit => tell(&output::as_junit(&run)),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn open(
    contender: &Contender,
    options: &Options,
    restrictions: &RestrictionList,
) -> Result<Subject, OpenFailure> {
    let mut subject = contender.open(&restrictions.facilities)?;
    if let Some(bytes) = restrictions.receive_buffer {
        subject = subject.with_receive_buffer(bytes);
    }
    if let Some(peer) = options.peer {
        subject = subject.with_remote_peer(peer);
    }
    Ok(subject)
}
