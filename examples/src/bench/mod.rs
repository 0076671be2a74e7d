//! The bench: what it costs to know, and what knowing is worth, measured here.
//!
//! `txtime`, `stamps`, `zerocopy` and `tls` are a table each. `server` is the
//! process under test, `load` what keeps it busy, `measure` alternates between
//! servers; `outcome` is what is found, and `table` and `plot` how it is shown.

pub mod about;
pub mod contest;
pub mod cpu;
pub mod credentials;
pub mod http;
pub mod load;
pub mod measure;
pub mod options;
pub mod outcome;
pub mod place;
pub mod plot;
pub mod progress;
pub mod render;
pub mod server;
pub mod stamps;
pub mod statistics;
pub mod table;
pub mod tls;
pub mod transports;
pub mod txtime;
pub mod zerocopy;

use crate::serve::options::one_line;
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::process::ExitCode;

/// Nothing could be measured.
const CANNOT_MEASURE: u8 = 2;

/// Measures lastbyte on this machine: how right its times are, and what they
/// cost.
///
/// Traffic stays on loopback or in network namespaces made for it, unless
/// another machine is named. Everything ends by itself, and with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

const AFTER: &str = "\
TIME is a number of seconds, or has a unit: 500ms, 10s, 2m. SIZE is a number of
bytes, or has a unit: 128k, 16m.

Environment:
  LASTBYTE_DISABLE  kernel facilities not to use, for example zerocopy,timestamps

Exit code: 0 when it was measured, whatever came of it; 2 if it could not be.";

#[derive(Debug, Subcommand)]
enum Action {
    Txtime(txtime::Options),
    Stamps(stamps::Options),
    Zerocopy(zerocopy::Options),
    Tls(tls::Options),
    Peer(load::PeerOptions),
    Render(render::Options),
    /// The server under test
    #[command(hide = true)]
    Server,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return cannot_measure(&one_line(&error)),
        Err(help) => {
            // Whoever closed standard output does not want to read it.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    // A load of some hundred connections to several servers takes more descriptors than
    // many shells allow. What is not allowed shows when it is needed.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let done = match &cli.action {
        Action::Txtime(options) => txtime::run(options),
        Action::Stamps(options) => stamps::run(options),
        Action::Zerocopy(options) => zerocopy::run(options),
        Action::Tls(options) => tls::run(options),
        Action::Peer(options) => load::serve(options),
        Action::Render(options) => render::run(options),
        Action::Server => return server::main(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => cannot_measure(&line),
    }
}

/// Prints on standard error; whoever does not hear it is told by the exit code.
fn note(line: &str) {
    // As one write, so that it stays whole among others.
    drop(io::stderr().write_all(format!("{line}\n").as_bytes()));
}

fn cannot_measure(line: &str) -> ExitCode {
    note(&format!("bench: {line}"));
    ExitCode::from(CANNOT_MEASURE)
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
