//! What the reference server outlives: slow, idle and many clients, resets, files
//! that change, descriptors that run out, and its own end.

#[macro_use]
mod each_backend;
#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use each_backend::site;
use harness::{Client, Server, generated, serve, wait_for};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

on_each_backend! {
    slow_requests_time_out
    idle_connections_are_closed
    a_download_outlives_the_signal_to_end
    the_drain_has_a_deadline
    a_second_signal_ends_at_once
    a_reset_is_logged
    a_reset_is_noticed_while_closing
    a_file_that_shrinks_fails_the_transfer
    descriptors_may_run_out
    a_crowd_takes_no_descriptors_from_files
    empty_lines_keep_no_connection
    a_low_limit_on_descriptors_is_raised
    connections_beyond_the_limit_wait
    no_thread_learns_late_of_a_free_place
    readers_that_do_not_read_take_no_memory_from_others
}

fn slow_requests_time_out(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &["--request-timeout", "300ms"]);
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\nHost: te");
    let mut slow_body = server.connect();
    slow_body.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab");
    for client in [&mut slow, &mut slow_body] {
        assert_eq!(client.response().status, 408);
        assert_eq!(client.rest(), b"");
    }
    // A byte now and then does not help.
    let mut slow = server.connect();
    for byte in "GET / HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 200)) {
        slow.try_send([byte]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let answer = String::from_utf8(slow.rest()).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

fn idle_connections_are_closed(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &["--idle-timeout", "300ms"]);
    let mut silent = server.connect();
    let mut used = server.connect();
    used.get("/a.txt");
    assert_eq!(used.response().status, 200);
    assert_eq!(used.rest(), b"");
    assert_eq!(silent.rest(), b"");
}

fn a_download_outlives_the_signal_to_end(backend: &str) {
    let site = site();
    let mut server = Server::start(backend, site.path(), &["--drain-timeout", "50s"]);
    let mut idle = server.connect();
    idle.get("/a.txt");
    assert_eq!(idle.response().status, 200);
    let mut client = server.connect();
    client.get("/16mb");
    let head = client.head();
    let mut body = client.read(1 << 20);
    server.signal("TERM");
    assert_eq!(idle.rest(), b"", "nothing is asked for on it, so it ends");
    wait_for("refusal", || std::net::TcpStream::connect(server.address).err());
    body.extend(client.rest());
    assert_eq!(body.len(), head.len());
    assert!(body == generated(0, 16 << 20), "the body came out different");
    drop((client, idle));
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let lines = server.wait_for_transfers(2);
    let line = lines.iter().find(|line| line["path"] == "/16mb").unwrap();
    assert_eq!(line["outcome"], "acked", "{line}");
}

fn the_drain_has_a_deadline(backend: &str) {
    let site = site();
    let mut server = Server::start(backend, site.path(), &["--drain-timeout", "300ms"]);
    let mut client = server.connect();
    client.get("/64mb");
    client.head();
    server.signal("INT");
    assert_eq!(server.wait_for_exit().code(), Some(1));
    server.wait_for_complaint("1 responses were cut off");
    let line = server.wait_for_transfers(1).remove(0);
    assert_eq!(line["outcome"], "closed", "{line}");
    assert!(line["acked_bytes"].as_u64().unwrap() < 64 << 20, "{line}");
}

fn a_second_signal_ends_at_once(backend: &str) {
    let site = site();
    let mut server = Server::start(backend, site.path(), &["--drain-timeout", "1h"]);
    let mut client = server.connect();
    client.get("/64mb");
    client.head();
    server.signal("TERM");
    wait_for("refusal", || std::net::TcpStream::connect(server.address).err());
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(128 + 15));
}

fn a_reset_is_logged(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    client.get("/64mb");
    client.head();
    socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let line = server.wait_for_transfers(1).remove(0);
    assert_eq!(line["outcome"], "reset", "{line}");
    assert!(line["acked_ms"].is_null(), "{line}");
    assert!(line["acked_bytes"].as_u64().unwrap() < 64 << 20, "{line}");
    assert_eq!(server.metric("lastbyte_transfers_total{outcome=\"reset\"}"), 1.0);
    assert_eq!(server.metric("lastbyte_leaked_bytes_total"), 0.0);
}

fn a_reset_is_noticed_while_closing(backend: &str) {
    let site = site();
    // Nothing but the reset itself is to end the transfer.
    let server = Server::start(backend, site.path(), &["--idle-timeout", "1h"]);
    let mut client = server.connect();
    client.request("GET", "/3mb", "Connection: close\r\n");
    client.head();
    // Both sides have said their last, and the server only waits.
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let line = server.wait_for_transfers(1).remove(0);
    assert_eq!(line["outcome"], "reset", "{line}");
}

fn a_file_that_shrinks_fails_the_transfer(backend: &str) {
    let site = site();
    let path = site.path().join("shrinking");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    client.get("/shrinking");
    assert_eq!(client.head().len(), 64 << 20);
    client.read(1000);
    File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    assert!(client.rest().len() < 64 << 20);
    let line = server.wait_for_transfers(1).remove(0);
    assert_eq!(line["outcome"], "closed", "{line}");
    assert!(line["reason"].as_str().unwrap().contains("the file ended"), "{line}");
    assert!(line["acked_bytes"].as_u64().unwrap() >= 1000, "{line}");
    assert_eq!(server.get("/a.txt").status, 200);
}

fn descriptors_may_run_out(backend: &str) {
    let site = site();
    // The server itself needs more than half of so few.
    let server = Server::start_with_limit("-n 14", backend, site.path());
    let mut clients = Vec::new();
    wait_for("a complaint", || {
        clients.push(server.knock());
        server.complaint("cannot accept for now")
    });
    drop(clients);
    assert_eq!(server.get("/large.bin").status, 200);
    assert!(server.metric("lastbyte_accept_pauses_total") > 0.0);
}

fn a_crowd_takes_no_descriptors_from_files(backend: &str) {
    let site = site();
    for n in 0..15 {
        fs::write(site.path().join(format!("{n}.bin")), vec![0; 20_000]).unwrap();
    }
    let server = Server::start_with_limit("-n 120", backend, site.path());
    server.wait_for_complaint("only 120 files can be open");
    let mut first = server.connect();
    let mut others = Vec::new();
    // Nearly as many as there is room for.
    for _ in 0..49 {
        let mut other = server.connect();
        other.get("/a.txt");
        assert_eq!(other.response().status, 200);
        others.push(other);
    }
    // More than that, all at once, for a server that does not run.
    server.signal("STOP");
    let crowd: Vec<_> = (0..200).map(|_| server.knock()).collect();
    first.get("/0.bin");
    server.signal("CONT");
    assert_eq!(first.response().status, 200);
    // They wait now.
    for n in 1..15 {
        first.get(&format!("/{n}.bin"));
        assert_eq!(first.response().status, 200, "{n}.bin");
    }
    drop((others, crowd));
    assert_eq!(server.get("/a.txt").status, 200);
}

fn empty_lines_keep_no_connection(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &["--idle-timeout", "300ms"]);
    let mut client = server.connect();
    client.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let ended = |client: &mut Client| {
        client.try_send("\r\n");
        let read = client.stream().peek(&mut [0]).map_err(|error| error.kind());
        (!matches!(read, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))).then_some(())
    };
    wait_for("the end of the connection", || ended(&mut client));
}

fn a_low_limit_on_descriptors_is_raised(backend: &str) {
    let site = site();
    let server = Server::start_with_limit("-S -n 40", backend, site.path());
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/a.txt");
        assert_eq!(client.response().status, 200);
    }
}

fn connections_beyond_the_limit_wait(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &["--max-connections", "2"]);
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/a.txt");
        assert_eq!(client.response().status, 200);
    }
    let mut third = server.connect();
    third.get("/a.txt");
    third.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.stream().peek(&mut [0]).is_err(), "it is served though there is no room");
    third.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    clients.pop();
    assert_eq!(third.response().status, 200);
}

fn no_thread_learns_late_of_a_free_place(backend: &str) {
    const CLIENTS: usize = 12;
    const EACH: usize = 100;
    let site = site();
    let took = |threads: &str| {
        let arguments = ["--max-connections", "4", "--threads", threads];
        let server = Server::start(backend, site.path(), &arguments);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut client = server.connect();
                        client.request("GET", "/10", "Connection: close\r\n");
                        assert_eq!(client.response().status, 200);
                        assert_eq!(client.rest(), b"");
                    }
                });
            }
        });
        began.elapsed()
    };
    // A thread that waits until it looks by itself needs a hundred times as long.
    let compared: Vec<_> = (0..3).map(|_| (took("1"), took("2"))).collect();
    assert!(compared.iter().any(|(one, two)| *two < 10 * *one), "{compared:?}");
}

/// Where there is no sealed memory, one response counted as all that a thread may have.
fn readers_that_do_not_read_take_no_memory_from_others(backend: &str) {
    let site = site();
    let mut command = serve();
    command.args(["--listen", "127.0.0.1:0", "--log", "json", "--threads", "1"]);
    command.args(["--backend", backend, "--dir"]).arg(site.path());
    let server = Server::from(command.env("LASTBYTE_DISABLE", "sealed-memory"));
    let idle: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            (0..16).for_each(|_| client.get("/1024mb"));
            client
        })
        .collect();
    for path in ["/10", "/a.txt", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    drop(idle);
}
