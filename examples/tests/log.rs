//! The reference server's log, and what becomes of the server when nobody reads
//! it.

#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use harness::{Client, serve, wait_for};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, pipe};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use tempfile::{TempDir, tempdir};

/// A server whose log goes to a pipe that this test reads, or does not.
struct Logged {
    child: Child,
    address: SocketAddr,
    log: BufReader<PipeReader>,
    _site: TempDir,
}

impl Logged {
    /// With standard error going to the same pipe if it `is_shared`.
    fn start(is_shared: bool, arguments: &[&str]) -> Self {
        let (reader, writer) = pipe().unwrap();
        Self::start_into(reader, writer, is_shared, arguments)
    }

    fn start_into(
        reader: PipeReader,
        writer: PipeWriter,
        is_shared: bool,
        arguments: &[&str],
    ) -> Self {
        let site = tempdir().unwrap();
        let mut command = serve();
        command.args(["--listen", "127.0.0.1:0", "--log", "json", "--threads", "2", "--dir"]);
        command.arg(site.path()).args(arguments);
        if is_shared {
            command.stderr(writer.try_clone().unwrap());
        }
        let child = command.stdout(writer).spawn().unwrap();
        // The pipe's end is to be seen when the server ends.
        drop(command);
        let mut log = BufReader::new(reader);
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let greeting: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = greeting["address"].as_str().unwrap().parse().unwrap();
        Self { child, address, log, _site: site }
    }

    fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        wait_for("the end of the server", || self.child.try_wait().unwrap())
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections of their own, so that every thread gets some.
fn is_served(address: SocketAddr, times: usize) {
    for _ in 0..times {
        let mut client = Client::connect(address);
        client.request("GET", "/5", "Connection: close\r\n");
        assert_eq!(client.response().status, 200);
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn a_log_that_nobody_can_read_any_more_ends_nothing_but_itself() {
    for is_shared in [false, true] {
        let mut server = Logged::start(is_shared, &[]);
        // As `| head -1` does: all further writes fail.
        let (other, _) = pipe().unwrap();
        server.log = BufReader::new(other);
        is_served(server.address, 40);
        server.signal();
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
}
