//! The reference server as its clients and its operator see it, on each backend.

#[macro_use]
mod each_backend;
#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use each_backend::site;
use harness::{Server, generated, serve};
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::tempdir;

on_each_backend! {
    a_connection_is_kept_and_head_has_no_body
    requests_are_answered_in_order
    a_client_that_sends_no_more_gets_everything
    old_clients_are_served
    ranges_are_served
    conditions_are_honoured
    directories_and_types_are_right
    nothing_outside_of_the_root_is_served
    malformed_requests_end_the_connection
    request_bodies_are_discarded
    the_log_is_complete_and_agrees_with_the_metrics
    stamps_can_be_switched_off
}

fn a_connection_is_kept_and_head_has_no_body(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    let large = fs::read(site.path().join("large.bin")).unwrap();
    for (target, body) in [
        ("/a.txt", b"0123456789".to_vec()),
        ("/large.bin?query", large),
        ("/5000", generated(0, 5000)),
        ("/128kb", generated(0, 128 << 10)),
        ("/0", Vec::new()),
        ("/3mb", generated(0, 3 << 20)),
    ] {
        client.request("HEAD", target, "");
        let head = client.head();
        client.get(target);
        let full = client.response();
        assert_eq!((head.status, head.len()), (200, body.len()), "{target}");
        assert!(full.body == body, "{target} came out different");
        assert_eq!(head.field("etag"), full.field("etag"));
    }
}

fn requests_are_answered_in_order(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    let lens: Vec<usize> = (0..150).map(|n| n * 97 % 5000).collect();
    let requests: String =
        lens.iter().map(|n| format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests);
    for len in &lens {
        let response = client.response();
        assert_eq!((response.status, response.body), (200, generated(0, *len)));
    }
    // In pieces of every kind, and more of them than one connection may have
    // unfinished.
    let requests = "GET /7 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(50);
    for piece in requests.as_bytes().chunks(13) {
        client.send(piece);
    }
    for _ in 0..50 {
        assert_eq!(client.response().body, generated(0, 7));
    }
    assert_eq!(server.wait_for_transfers(200).len(), 200);
}

fn a_client_that_sends_no_more_gets_everything(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    client.send("GET /50000 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(200) + "GET /unfinished");
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..200 {
        assert_eq!(client.response().len(), 50_000);
    }
    assert_eq!(client.rest(), b"");
    assert!(server.wait_for_transfers(200).iter().all(|line| line["outcome"] == "acked"));
}

fn old_clients_are_served(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("keep-alive"));
    client.send("GET /a.txt HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(response.body, b"0123456789");
    assert_eq!(client.rest(), b"");
}

fn ranges_are_served(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    let large = fs::read(site.path().join("large.bin")).unwrap();
    for (target, content) in [("/large.bin", large), ("/1200000", generated(0, 1_200_000))] {
        let total = content.len();
        for (range, from, to) in [
            ("0-0", 0, 1),
            ("1-1000", 1, 1001),
            ("1048570-1048590", 1_048_570, 1_048_591),
            ("1199990-", 1_199_990, total),
            ("-5", total - 5, total),
            ("0-99999999999999999999999", 0, total),
        ] {
            client.request("GET", target, &format!("Range: bytes={range}\r\n"));
            let response = client.response();
            assert_eq!(response.status, 206, "{target} {range}");
            let said = format!("bytes {from}-{}/{total}", to - 1);
            assert_eq!(response.field("content-range"), Some(&*said));
            assert!(response.body == content[from..to], "{target} {range} came out different");
        }
        for range in ["1200000-", "-0", "99999999999999999999999-"] {
            client.request("GET", target, &format!("Range: bytes={range}\r\n"));
            let response = client.response();
            assert_eq!(response.status, 416, "{target} {range}");
            assert_eq!(response.field("content-range"), Some("bytes */1200000"));
        }
        for range in ["0-1,5-6", "5-2", "x-y"] {
            client.request("GET", target, &format!("Range: bytes={range}\r\n"));
            assert_eq!(client.response().len(), total, "{target} {range}");
        }
    }
}

fn conditions_are_honoured(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    let mut status = |fields: String| {
        client.request("GET", "/a.txt", &fields);
        client.response().status
    };
    let first = server.get("/a.txt");
    let (etag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    assert_eq!(status(format!("If-None-Match: \"x\", W/{etag}\r\n")), 304);
    assert_eq!(status("If-None-Match: \"x\"\r\n".into()), 200);
    assert_eq!(status(format!("If-Modified-Since: {date}\r\n")), 304);
    assert_eq!(status("If-Modified-Since: Sun, 09 Sep 2001 01:46:39 GMT\r\n".into()), 200);
    assert_eq!(status(format!("Range: bytes=1-2\r\nIf-Range: {etag}\r\n")), 206);
    assert_eq!(status(format!("Range: bytes=1-2\r\nIf-Range: {date}\r\n")), 206);
    assert_eq!(status("Range: bytes=1-2\r\nIf-Range: \"x\"\r\n".into()), 200);
}

fn directories_and_types_are_right(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let moved = server.get("/sub");
    assert_eq!((moved.status, moved.field("location")), (301, Some("/sub/")));
    let index = server.get("/sub/");
    assert_eq!(index.body, b"<p>index");
    assert_eq!(index.field("content-type"), Some("text/html; charset=utf-8"));
    let listing = String::from_utf8(server.get("/").body).unwrap();
    assert!(listing.contains("\"./a.txt\"") && listing.contains("\"./sub/\""), "{listing}");
    assert_eq!(server.get("/a.txt").field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(server.get("/large.bin").field("content-type"), Some("application/octet-stream"));
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/2000mb").status, 404);
    assert_eq!(server.get("http://test/a.txt").status, 200);
}

fn nothing_outside_of_the_root_is_served(backend: &str) {
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let site = site();
    symlink(outside.path(), site.path().join("link")).unwrap();
    symlink(outside.path().join("secret"), site.path().join("direct")).unwrap();
    symlink("a.txt", site.path().join("inner")).unwrap();
    let server = Server::start(backend, site.path(), &[]);
    let up = "../".repeat(12);
    let place = outside.path().display();
    for target in [
        format!("/{up}{place}/secret"),
        format!("/{}{place}/secret", up.replace('.', "%2e")),
        format!("/{}{place}/secret", up.replace("../", "%2E%2e%2F")),
        format!("/sub/..%2f..{place}/secret"),
        format!("http://test/{up}{place}/secret"),
        "/link/secret".to_owned(),
        "/direct".to_owned(),
        "/a.txt%00.html".to_owned(),
        "/link/".to_owned(),
    ] {
        let response = server.get(&target);
        assert!(matches!(response.status, 400 | 403 | 404), "{target}: {}", response.status);
        let body = String::from_utf8(response.body).unwrap();
        assert!(!body.contains("secret"), "{target}: {body}");
    }
    assert_eq!(server.get("/inner").body, b"0123456789");
}

fn malformed_requests_end_the_connection(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let long = "a".repeat(20_000);
    let host = "Host: test\r\n";
    let mut answered = 0;
    for (request, status) in [
        ("\r\n\r\nnonsense\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\x00\x01\x00".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}no colon\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"), 400),
        (
            format!(
                "GET / HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
        ),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length: 5000000\r\n\r\n"), 413),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{host}A: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("GET / HTTP/2.0\r\n{host}\r\n"), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = server.connect();
        client.try_send(&request);
        let response = client.response();
        assert_eq!(response.status, status, "{request:.80}");
        assert_eq!(response.field("connection"), Some("close"), "{request:.80}");
        assert_eq!(client.rest(), b"", "{request:.80}");
        answered += 1;
    }
    // Others are not disturbed.
    assert_eq!(server.get("/a.txt").status, 200);
    let all = server.wait_for_transfers(answered + 1);
    assert!(all.iter().any(|line| line["path"] == "-" && line["status"] == 400));
}

fn request_bodies_are_discarded(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut client = server.connect();
    let body = "x".repeat(100_000);
    client.request("POST", "/a.txt", "Content-Length: 100000\r\n");
    client.send(&body);
    let response = client.response();
    assert_eq!((response.status, response.field("allow")), (405, Some("GET, HEAD")));
    client.request("GET", "/a.txt", "Transfer-Encoding: chunked\r\n");
    client.send(format!("{:x}\r\n{body}\r\n0\r\nTrailer: x\r\n\r\n", body.len()));
    assert_eq!(client.response().status, 200);
    client.request("PUT", "/a.txt", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (405, Some("close")));
    assert_eq!(client.rest(), b"");

    let mut client = server.connect();
    client.request("GET", "/a.txt", "Transfer-Encoding: chunked\r\n");
    for _ in 0..30 {
        client.try_send(format!("{:x}\r\n{body}\r\n", body.len()));
    }
    assert_eq!(client.response().status, 413);
}

fn the_log_is_complete_and_agrees_with_the_metrics(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &[]);
    let mut bytes = 0;
    for _ in 0..4 {
        let mut client = server.connect();
        for target in ["/a.txt", "/large.bin", "/64kb", "/none", "/sub/", "/%22%5c"] {
            client.get(target);
            client.response();
        }
    }
    let lines = server.wait_for_transfers(24);
    assert_eq!(lines.len(), 24);
    for line in &lines {
        let ms = |stage: &str| line[stage].as_f64().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(line["outcome"], "acked", "{line}");
        assert_eq!(line["backend"], backend);
        assert_eq!(line["transport"], "plain");
        assert!(ms("queued_ms") <= ms("transmitted_ms"), "{line}");
        assert!(ms("transmitted_ms") <= ms("acked_ms"), "{line}");
        assert!(ms("queued_ms") <= ms("released_ms"), "{line}");
        match line["evidence"].as_str().unwrap() {
            "kernel" => assert!(line["acked_after_ms"].is_null(), "{line}"),
            "bracketed" => assert!(ms("acked_after_ms") <= ms("acked_ms"), "{line}"),
            other => panic!("{other}"),
        }
        assert!(line["acked_bytes"].is_null() && line["reason"].is_null(), "{line}");
        line["peer"].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap();
        bytes += line["bytes"].as_u64().unwrap();
    }
    let mut names: Vec<_> =
        lines.iter().map(|l| (l["conn"].as_u64(), l["transfer"].as_u64())).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 24, "each line speaks of another transfer");
    assert_eq!(server.metric("lastbyte_transfers_total{outcome=\"acked\"}"), 24.0);
    // The scrapes' own responses are transfers too.
    let lines = server.wait_for_transfers(25);
    bytes += lines[24]["bytes"].as_u64().unwrap();
    assert_eq!(server.metric("lastbyte_acked_seconds_count"), 25.0);
    let lines = server.wait_for_transfers(26);
    bytes += lines[25]["bytes"].as_u64().unwrap();
    let counted: f64 = {
        let page = String::from_utf8(server.get("/metrics").body).unwrap();
        let bytes = page.lines().filter(|line| line.starts_with("lastbyte_bytes_total"));
        bytes.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let logged = bytes as f64;
    assert_eq!(counted, logged);
    let kinds: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|&&status| status == 404).count(), 8);
}

fn stamps_can_be_switched_off(backend: &str) {
    let site = site();
    let server = Server::start(backend, site.path(), &["--stamps", "off"]);
    assert_eq!(server.get("/64kb").body.len(), 64 << 10);
    let line = server.wait_for_transfers(1).remove(0);
    assert!(line["acked_ms"].is_null() && line["queued_ms"].is_number(), "{line}");
    assert_eq!(line["evidence"], "unavailable");
    assert_eq!(line["outcome"], "unconfirmed");
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let site = site();
    let dir = site.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let missing = site.path().join("missing");
    let file = site.path().join("a.txt");
    for (arguments, part) in [
        (&["--frobnicate"][..], "'--frobnicate'"),
        (&["--listen", "here"], "--listen"),
        (&["--idle-timeout", "0.0000000001s"], "less than a nanosecond"),
        (&["--listen", &taken.1], "in use"),
        (&["--listen", &taken.1, "--threads", "3"], "in use"),
        (&["--listen", "192.0.2.1:80"], "192.0.2.1"),
        (&["--dir", missing.to_str().unwrap()], "missing"),
        (&["--dir", file.to_str().unwrap()], "a.txt"),
        (&["--backend", "kqueue"], "kqueue"),
    ] {
        let mut command = serve();
        // A flag given twice is an error of its own.
        for (flag, value) in [("--dir", dir), ("--listen", "127.0.0.1:0")] {
            if arguments[0] != flag {
                command.args([flag, value]);
            }
        }
        let output = command.args(arguments).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains(part), "{complaint}");
        assert!(output.stdout.is_empty());
    }
    for (variable, value) in [
        ("LASTBYTE_BACKEND", "kqueue"),
        ("LASTBYTE_DISABLE", "magic"),
        ("LASTBYTE_ZERO_COPY_THRESHOLD", "much"),
    ] {
        let output = serve().args(["--dir", dir]).env(variable, value).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains(variable) && complaint.contains(value), "{complaint}");
    }
}

/// As in a unit file that lists a variable without a value.
#[test]
fn an_empty_variable_says_nothing() {
    let mut command = serve();
    for variable in ["LASTBYTE_BACKEND", "LASTBYTE_DISABLE", "LASTBYTE_ZERO_COPY_THRESHOLD"] {
        command.env(variable, "");
    }
    let server = Server::from(command.args(["--listen", "127.0.0.1:0", "--log", "json"]));
    assert_eq!(server.get("/1kb").status, 200);
}

#[test]
fn help_is_no_error() {
    let output = serve().arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for flag in [
        "--listen",
        "--dir",
        "--backend",
        "--threads",
        "--log",
        "--no-log",
        "--idle-timeout",
        "--max-connections",
        "--drain-timeout",
        "LASTBYTE_DISABLE",
    ] {
        assert!(help.contains(flag), "{flag} is not in {help}");
    }
}
