//! The small server on tokio as whoever starts it sees it.

use std::net::TcpListener;
use std::process::Command;

#[test]
fn what_cannot_start_says_why_in_one_line() {
    // If it cannot be had here, somebody else has it.
    let _taken = TcpListener::bind("127.0.0.1:8081");
    let output = Command::new(env!("CARGO_BIN_EXE_hello_tokio")).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let part = "hello_tokio: cannot listen on 127.0.0.1:8081: Address already in use";
    assert!(complaint.starts_with(part), "{complaint}");
}
