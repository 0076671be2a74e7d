//! A small HTTP/1.1 file server that knows when the client has the last byte.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lastbyte_examples::serve::main()
}
