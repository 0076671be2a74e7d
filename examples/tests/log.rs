//! The reference server's log, and what becomes of the server when nobody reads
//! it.

#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use harness::{Client, serve, wait_for};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;
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

    /// What is in the log from here to its end, which is the server's.
    fn rest(&mut self) -> Vec<serde_json::Value> {
        let lines = self.log.by_ref().lines().map(Result::unwrap);
        lines.map(|line| serde_json::from_str(&line).expect(&line)).collect()
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

/// Has this many lines of more than 7000 bytes logged, and waits for none.
fn log_long_lines(address: SocketAddr, count: usize) {
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
    let target = format!("/{}", "x".repeat(7000));
    for client in (0..clients.len()).cycle().take(count) {
        clients[client].get(&target);
        assert_eq!(clients[client].response().status, 404);
    }
}

fn is_transfer(line: &serde_json::Value) -> bool {
    line["event"] == "transfer"
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

#[test]
fn a_reader_that_stalls_loses_lines_and_is_told_how_many() {
    const COUNT: usize = 3000;
    let mut server = Logged::start(false, &["--drain-timeout", "60s"]);
    log_long_lines(server.address, COUNT);
    let mut client = Client::connect(server.address);
    client.request("GET", "/metrics", "Connection: close\r\n");
    let page = String::from_utf8(client.response().body).unwrap();
    let lost = page.lines().find_map(|line| line.strip_prefix("lastbyte_log_lines_lost_total "));
    assert!(lost.unwrap().parse::<usize>().unwrap() > 0, "{lost:?}");
    server.signal();
    // The reader is back, and the drain has waited for it.
    let lines = server.rest();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let lost: u64 = lines
        .iter()
        .filter(|line| line["event"] == "lost")
        .map(|line| line["lines"].as_u64().unwrap())
        .sum();
    let transfers = lines.iter().filter(|line| is_transfer(line)).count();
    // The one that asked for the numbers has a line too.
    assert_eq!(transfers + usize::try_from(lost).unwrap(), COUNT + 1);
}

#[test]
fn no_reader_makes_the_drain_longer_than_its_time() {
    for is_shared in [false, true] {
        let mut server = Logged::start(is_shared, &["--drain-timeout", "1s"]);
        log_long_lines(server.address, 2000);
        server.signal();
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_the_wait_for_a_reader() {
    let mut server = Logged::start(false, &["--drain-timeout", "1h"]);
    log_long_lines(server.address, 200);
    server.signal();
    wait_for("refusal", || TcpStream::connect(server.address).err());
    // All connections are gone: what is waited for is the log.
    sleep(Duration::from_millis(300));
    assert_eq!(server.child.try_wait().unwrap(), None);
    server.signal();
    assert_eq!(server.wait_for_exit().code(), Some(128 + 15));
}

#[test]
fn a_pipe_that_is_full_for_a_moment_is_not_the_end_of_the_log() {
    const COUNT: usize = 300;
    let (reader, writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let mut server = Logged::start_into(reader, writer, false, &["--drain-timeout", "60s"]);
    log_long_lines(server.address, COUNT);
    server.signal();
    let lines = server.rest();
    assert_eq!(lines.iter().filter(|line| is_transfer(line)).count(), COUNT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}
