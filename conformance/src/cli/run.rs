//! `run`: the cases on this kernel.

use super::child::{Guardian, ended_by};
use super::contender::{Contender, chosen, label, transports};
use super::output::{self, Event, Format, Lines, note, tell};
use super::restrict::RestrictionList;
use crate::results::{BackendResult, CaseResult, Run, Unavailable};
use crate::{Case, OpenFailure, Step, Subject, cases, restrict_machine, restrict_process, run_all};
use lastbyte::Transport;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::process::parent_id;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Which backend: its name, 'auto', or 'all' that this build contains.
    #[arg(long, default_value = "all", value_name = "NAME")]
    backend: String,
    /// What is spoken on its connections: 'plain', 'user-tls', 'kernel-tls', or
    /// 'all'; over TLS only the cases that it gives another meaning.
    #[arg(long, default_value = "all", value_name = "NAME")]
    transport: String,
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
    /// Mebibytes to send where much is to be sent.
    #[arg(long, default_value_t = 1024, value_name = "MIB",
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    bulk: u64,
    /// Another machine, where `conformance peer` listens, for the cases that
    /// need a path which does not copy.
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer: Option<SocketAddr>,
}

/// The cases that `filter` and `transport` ask for, of which there is one at least.
pub(crate) fn called(filter: &str, transport: &str) -> Result<Vec<Case>, String> {
    let transports = transports(transport)?;
    let cases: Vec<_> = cases().into_iter().filter(|case| case.name().contains(filter)).collect();
    let is_tried = |case: &Case| transports.iter().any(|transport| case.is_about(*transport));
    if cases.iter().any(is_tried) {
        Ok(cases)
    } else {
        Err(format!("no case over '{transport}' has a name that contains '{filter}'"))
    }
}

/// Set in the child that runs under restrictions of the whole process: the id of
/// its parent, so that whoever inherits it further on is not taken for that child.
const CHILD: &str = "LASTBYTE_CONFORMANCE_CHILD";

pub(super) fn run(options: &Options, contenders: &[Contender]) -> Result<ExitCode, String> {
    let restrictions: RestrictionList = options.restrict.parse()?;
    let chosen = chosen(&options.backend, contenders)?;
    let transports = transports(&options.transport)?;
    let cases = called(&options.filter, &options.transport)?;
    if restrictions.needs_a_child() {
        if !is_the_child() {
            return in_child(&restrictions);
        }
        restrict_process(&restrictions.process)
            .map_err(|error| format!("the restriction cannot be imposed here: {error}"))?;
    }
    prove(options, &restrictions, &chosen, &transports, &cases)
}

fn is_the_child() -> bool {
    std::env::var(CHILD).is_ok_and(|parent| parent == parent_id().to_string())
}

/// Starts this program again, so that what the process gives up is not missed
/// by anything that came before, and what the machine lacks is given back when
/// the child is done, however it ends.
fn in_child(restrictions: &RestrictionList) -> Result<ExitCode, String> {
    // First, so that no signal is lost between the two.
    let mut guardian = Guardian::new()?;
    let _given_back_when_dropped = restrict_machine(&restrictions.machine)?;
    let ended = guardian.start_again(|command| {
        command.args(std::env::args_os().skip(1)).env(CHILD, std::process::id().to_string());
    })?;
    match (ended.status.code().map(u8::try_from), ended.asked) {
        (Some(Ok(code)), _) => Ok(ExitCode::from(code)),
        (_, Some(signal)) => Ok(ended_by(signal)),
        _ => {
            note(&format!("conformance: the process of the cases broke: {}", ended.status));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn prove(
    options: &Options,
    restrictions: &RestrictionList,
    chosen: &[&Contender],
    transports: &[Transport],
    cases: &[Case],
) -> Result<ExitCode, String> {
    let jobs = options.jobs.or(std::thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    let limit = Duration::from_secs(options.timeout);
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
        for transport in transports {
            let subject = subject.over(*transport).map_err(|error| error.to_string())?;
            let about: Vec<_> =
                cases.iter().filter(|case| case.is_about(*transport)).cloned().collect();
            if about.is_empty() {
                continue;
            }
            let name = label(&backend, *transport);
            let show =
                |case: &Case, step: Step<'_>| show(options.format, &lines, &name, case, step);
            let outcomes = run_all(&about, &subject, limit, jobs, show);
            let results = about
                .iter()
                .zip(outcomes)
                .map(|(case, outcome)| CaseResult::new(case, &outcome.verdict, outcome.took));
            run.add(BackendResult { backend: name.clone(), cases: results.collect() });
        }
    }
    if !run.unavailable.is_empty() && run.unavailable.len() == chosen.len() {
        return Err("none of the backends can be had here".to_owned());
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

/// Says how far a case is, in the formats that follow a run.
fn show(format: Format, lines: &Lines, backend: &str, case: &Case, step: Step<'_>) {
    let result = |outcome: &crate::Outcome| CaseResult::new(case, &outcome.verdict, outcome.took);
    let backend = backend.to_owned();
    match (format, step) {
        (Format::Text, Step::Ended(outcome)) => tell(&output::line(&backend, &result(outcome))),
        (Format::JsonLines, Step::Begins) => {
            lines.write(&Event::Begin { backend, name: case.name().to_owned() });
        }
        (Format::JsonLines, Step::Ended(outcome)) => {
            lines.write(&Event::End { backend, case: result(outcome) });
        }
        _ => {}
    }
}

fn open(
    contender: &Contender,
    options: &Options,
    restrictions: &RestrictionList,
) -> Result<Subject, OpenFailure> {
    let mut subject = contender.open(&restrictions.facilities)?.with_bulk(options.bulk << 20);
    if let Some(bytes) = restrictions.receive_buffer {
        subject = subject.with_receive_buffer(bytes);
    }
    if let Some(peer) = options.peer {
        subject = subject.with_remote_peer(peer);
    }
    Ok(subject)
}
