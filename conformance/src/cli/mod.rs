//! The runner's command line, for any set of backends.
//!
//! ```no_run
//! use lastbyte_conformance::{Subject, cli::{self, Contender}};
//! # fn mine(restrictions: &lastbyte::Restrictions) -> std::sync::Arc<dyn lastbyte::Backend> {
//! #     lastbyte_backends::open(lastbyte::Choice::Auto, restrictions).expect("auto always opens")
//! # }
//! fn main() -> std::process::ExitCode {
//!     let mine = Contender::new("mine", |restrictions| Ok(Subject::new(mine(restrictions))));
//!     cli::main(&[mine])
//! }
//! ```

mod axes;
mod child;
mod contender;
mod diff;
pub(crate) mod output;
mod report;
pub(crate) mod restrict;
mod run;

pub(crate) use child::that_ask_for_an_end;
pub use contender::Contender;
#[cfg(target_os = "linux")]
pub(crate) use contender::{chosen, transports};
#[cfg(target_os = "linux")]
pub(crate) use run::called;

#[cfg(target_os = "linux")]
use crate::kernels;
use crate::{cases, remote, results};
use clap::{Parser, Subcommand};
use lastbyte::{Restrictions, Transport};
use output::{note, tell};
use std::process::ExitCode;

/// Proves lastbyte's backends against their contract, with real sockets, real
/// peers and real kernels.
#[derive(Debug, Parser)]
#[command(name = "conformance", version = VERSION, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the cases on this kernel; exits with 1 if one fails.
    Run(run::Options),
    /// Show what this kernel can do, and what a lack changes.
    Probe {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the names of the cases, over which transports, and what each proves.
    List,
    /// Run the cases once under each restriction, and hold the capability
    /// report against what was taken away.
    Axes(axes::Options),
    /// Run the cases on other kernels, under QEMU.
    #[cfg(target_os = "linux")]
    #[command(subcommand)]
    Kernels(kernels::Action),
    /// Write a table of results, as Markdown and as a page.
    Report(report::Options),
    /// Say what is different in another result; exits with 1 if it is worse.
    Diff(diff::Options),
    /// Serve as the other machine for `run --peer`.
    Peer(remote::Options),
    /// The first process of a kernel under test.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Guest,
}

/// The whole program: reads the command line, does what it says.
///
/// Exit code 0: all is well; 1: a case failed, or a result is worse; 2: the
/// command line was wrong, or what it asks for cannot be had here, or the result
/// could not be written.
#[must_use]
pub fn main(contenders: &[Contender]) -> ExitCode {
    const HELP: clap::error::ErrorKind =
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && error.kind() != HELP => {
            return misused(&in_one_line(&error.to_string()));
        }
        Err(help) => {
            tell(help.to_string().trim_end());
            return complete(ExitCode::SUCCESS);
        }
    };
    let done = match cli.action {
        Action::Run(options) => run::run(&options, contenders),
        Action::Probe { json } => Ok(probe(json)),
        Action::List => Ok(list()),
        Action::Axes(options) => axes::run(&options),
        #[cfg(target_os = "linux")]
        Action::Kernels(action) => kernels::act(&action, contenders),
        Action::Report(options) => report::write(&options),
        Action::Diff(options) => diff::tell_difference(&options),
        Action::Peer(options) => remote::serve(&options),
        #[cfg(target_os = "linux")]
        Action::Guest => kernels::guest(),
    };
    complete(done.unwrap_or_else(|line| misused(&line)))
}

/// `code`, if all that was to be told could be: a result that is cut off must not
/// be taken for one.
fn complete(code: ExitCode) -> ExitCode {
    output::lost().map_or(code, |error| misused(&format!("standard output: {error}")))
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LASTBYTE_COMMIT"), ")");

/// What clap says before its hints, as one line.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").replacen("error: ", "", 1)
}

/// One clear line, and the exit code for a wrong command line.
fn misused(line: &str) -> ExitCode {
    note(&format!("conformance: {line}"));
    ExitCode::from(2)
}

fn probe(json: bool) -> ExitCode {
    let report = lastbyte_backends::report(&Restrictions::none());
    if json {
        let facilities = results::capabilities(&report);
        let all = serde_json::json!({ "kernel": report.kernel(), "facilities": facilities });
        tell(&output::as_json(&all));
    } else {
        tell(report.to_string().trim_end());
    }
    ExitCode::SUCCESS
}

fn list() -> ExitCode {
    let all = cases();
    let width = all.iter().map(|case| case.name().len()).max().unwrap_or(0);
    let lines = all.iter().map(|case| {
        let over = match (case.is_about(Transport::Plain), case.is_about(Transport::UserTls)) {
            (true, true) => "each",
            (false, true) => "TLS",
            _ => "plain",
        };
        format!("{:<width$}  {over:<5}  {}", case.name(), case.proves())
    });
    tell(&lines.collect::<Vec<_>>().join("\n"));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
