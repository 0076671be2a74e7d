//! Proves lastbyte's own backends against the contract, from the command line.

#![forbid(unsafe_code)]

use lastbyte_conformance::cli::{self, Contender};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(&Contender::built_in())
}
