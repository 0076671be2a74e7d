//! How right lastbyte's times are, and what they cost, measured on this machine.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    lastbyte_examples::bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("bench: it takes Linux");
    ExitCode::from(2)
}
