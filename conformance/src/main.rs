//! Proves backends against the contract, from the command line.

#![forbid(unsafe_code)]

mod output;
mod restrict;

use clap::{Parser, Subcommand, ValueEnum};
use lastbyte::{BackendKind, Choice, Restrictions};
use lastbyte_conformance::{Case, OpenFailure, Outcome, Subject, cases, restrict_process, run_all};
use output::{Proved, Report, Unavailable};
use restrict::RestrictionList;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Proves lastbyte's backends against their contract, on this kernel, with
/// real sockets and real peers.
#[derive(Debug, Parser)]
#[command(name = "conformance", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the cases; exits with 1 if one fails.
    Run(Run),
    /// Show what this kernel can do, and what a lack changes.
    Probe {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the names of the cases and what each proves.
    List,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Which backend: its name, 'auto', or 'all' that this build contains.
    #[arg(long, default_value = "all", value_name = "NAME")]
    backend: String,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// How to tell the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// What to take away first, separated by commas: no-FACILITY,
    /// seccomp-no-io-uring, seccomp-no-epoll, seccomp-no-timestamping (each also
    /// with -enosys), memlock=BYTES, rcvbuf=BYTES.
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    restrict: String,
    /// Seconds after which a case counts as hanging.
    #[arg(long, default_value_t = 60, value_name = "S",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Cases at the same time.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line a case, and a summary.
    Text,
    /// One object with everything.
    Json,
    /// For build servers.
    Junit,
}

/// Set in the child that runs under restrictions of the whole process.
const CHILD: &str = "LASTBYTE_CONFORMANCE_CHILD";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && error.kind() != MISSING => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            return misused(&line.replacen("error: ", "", 1));
        }
        Err(help) => help.exit(),
    };
    match cli.action {
        Action::Run(run) => execute(&run),
        Action::Probe { json } => probe(json),
        Action::List => {
            let all = cases();
            let width = all.iter().map(|case| case.name().len()).max().unwrap_or(0);
            let lines: Vec<_> =
                all.iter().map(|c| format!("{:<width$}  {}", c.name(), c.proves())).collect();
            tell(&lines.join("\n"));
            ExitCode::SUCCESS
        }
    }
}

const MISSING: clap::error::ErrorKind =
    clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// One clear line, and the exit code for a wrong command line.
fn misused(line: &str) -> ExitCode {
    eprintln!("conformance: {line}");
    ExitCode::from(2)
}

/// Prints to a reader that may have left.
fn tell(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn probe(json: bool) -> ExitCode {
    let report = lastbyte_backends::report(&Restrictions::none());
    if json {
        tell(&output::probe_as_json(&report));
    } else {
        tell(report.to_string().trim_end());
    }
    ExitCode::SUCCESS
}

fn execute(run: &Run) -> ExitCode {
    let restrictions = match run.restrict.parse::<RestrictionList>() {
        Ok(restrictions) => restrictions,
        Err(error) => return misused(&error),
    };
    let choices = match choices(&run.backend) {
        Ok(choices) => choices,
        Err(error) => return misused(&error),
    };
    let cases: Vec<_> =
        cases().into_iter().filter(|case| case.name().contains(&run.filter)).collect();
    if cases.is_empty() {
        return misused(&format!("no case's name contains '{}'", run.filter));
    }
    if !restrictions.process.is_empty() {
        if std::env::var_os(CHILD).is_none() {
            return in_child();
        }
        if let Err(error) = restrict_process(&restrictions.process) {
            return misused(&format!("the restriction cannot be imposed here: {error}"));
        }
    }
    prove(run, &restrictions, &choices, &cases)
}

/// What `--backend` means. A single name is meant; 'all' is whatever is there.
fn choices(name: &str) -> Result<Vec<Choice>, String> {
    if name == "all" {
        return Ok(lastbyte_backends::BUILT.iter().copied().map(Choice::Only).collect());
    }
    name.parse()
        .map(|choice| vec![choice])
        .map_err(|error: lastbyte::UnknownBackend| format!("{error}, and 'all'"))
}

/// Starts this program again, so that what the process gives up is not missed
/// by anything that came before.
fn in_child() -> ExitCode {
    let run = || {
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(CHILD, "1")
            .status()
    };
    match run() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => misused(&format!("cannot start itself again: {error}")),
    }
}

fn prove(
    run: &Run,
    restrictions: &RestrictionList,
    choices: &[Choice],
    cases: &[Case],
) -> ExitCode {
    let text = matches!(run.format, Format::Text);
    let jobs = run.jobs.or(std::thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    let mut report = Report::new(&restrictions.names);
    for choice in choices {
        let subject = match open(*choice, restrictions) {
            Ok(subject) => subject,
            Err(error) if choices.len() == 1 => return misused(&error.to_string()),
            Err(error) => {
                let unavailable = Unavailable { backend: choice.to_string(), why: error.0 };
                if text {
                    tell(&output::unavailable_line(&unavailable));
                }
                report.unavailable.push(unavailable);
                continue;
            }
        };
        let kind: BackendKind = subject.backend().kind();
        let show = |case: &Case, outcome: &Outcome| {
            if text {
                tell(&output::line(kind, case, outcome));
            }
        };
        let outcomes = run_all(cases, &subject, Duration::from_secs(run.timeout), jobs, show);
        let cases = cases.iter().map(|case| case.name().to_owned()).zip(outcomes).collect();
        report.proved.push(Proved { backend: kind, cases });
    }
    match run.format {
        Format::Text => tell(&output::summary(&report)),
        Format::Json => tell(&output::as_json(&report)),
        Format::Junit => tell(&output::as_junit(&report)),
    }
    if report.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn open(choice: Choice, restrictions: &RestrictionList) -> Result<Subject, OpenFailure> {
    let subject = Subject::built_in(choice, &restrictions.facilities)?;
    Ok(match restrictions.receive_buffer {
        Some(bytes) => subject.with_receive_buffer(bytes),
        None => subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn backends_are_chosen_by_name() {
        assert_eq!(choices("all").map(|all| all.len()), Ok(lastbyte_backends::BUILT.len()));
        assert_eq!(choices("fallback"), Ok(vec![Choice::Only(BackendKind::Fallback)]));
        assert!(choices("apoll").unwrap_err().contains("apoll"));
    }
}
