//! What HTTP asks of a server, whatever moves its bytes.

#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use harness::{Client, Server, serve, wait_for};
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use tempfile::{TempDir, tempdir};

/// When the files were changed, so long ago that their tags are strong.
const CHANGED: u64 = 1_000_000_000;
const BEFORE: &str = "Sun, 09 Sep 2001 01:46:39 GMT";
const THEN: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

fn site() -> TempDir {
    let site = tempdir().unwrap();
    fs::write(site.path().join("a.txt"), "0123456789").unwrap();
    fs::write(site.path().join("large.bin"), vec![b'x'; 100_000]).unwrap();
    for name in ["a.txt", "large.bin"] {
        changed_at(&site.path().join(name), CHANGED);
    }
    site
}

fn changed_at(path: &Path, second: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
}

fn start(site: &TempDir, arguments: &[&str]) -> Server {
    Server::start("auto", site.path(), arguments)
}

fn status(client: &mut Client, target: &str, fields: &str) -> u16 {
    client.request("GET", target, fields);
    client.response().status
}

#[test]
fn what_must_hold_is_looked_at_first() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    let etag = server.get("/a.txt").field("etag").unwrap().to_owned();
    for (fields, expected) in [
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: *\r\n".to_owned(), 200),
        (format!("If-Match: \"x\", {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        // A weak tag promises less than this asks for (RFC 9110, section 13.1.1).
        (format!("If-Match: W/{etag}\r\n"), 412),
        (format!("If-Unmodified-Since: {THEN}\r\n"), 200),
        (format!("If-Unmodified-Since: {BEFORE}\r\n"), 412),
        ("If-Unmodified-Since: yesterday\r\n".to_owned(), 200),
        // The order of section 13.2.2: a tag outranks a date, and what must hold
        // outranks what the peer has.
        (format!("If-Match: {etag}\r\nIf-Unmodified-Since: {BEFORE}\r\n"), 200),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"), 412),
        (format!("If-Match: {etag}\r\nIf-None-Match: {etag}\r\n"), 304),
        (format!("If-Unmodified-Since: {BEFORE}\r\nIf-Modified-Since: {THEN}\r\n"), 412),
        ("If-Match: \"x\"\r\nRange: bytes=1-2\r\n".to_owned(), 412),
        (format!("If-Match: {etag}\r\nRange: bytes=1-2\r\n"), 206),
    ] {
        assert_eq!(status(&mut client, "/a.txt", &fields), expected, "{fields}");
    }
    client.request("HEAD", "/a.txt", "If-Match: \"x\"\r\n");
    assert_eq!(client.head().status, 412);
    // What is not there is not there, whatever the condition (section 13.2.1).
    assert_eq!(status(&mut client, "/none", "If-Match: \"x\"\r\n"), 404);
    // Pages without a tag have none that could match.
    for page in ["/", "/metrics"] {
        assert_eq!(status(&mut client, page, "If-Match: \"x\"\r\n"), 412);
        assert_eq!(status(&mut client, page, "If-Match: *\r\n"), 200);
        assert_eq!(status(&mut client, page, &format!("If-Unmodified-Since: {BEFORE}\r\n")), 200);
        assert_eq!(status(&mut client, page, "If-None-Match: \"x\"\r\n"), 200);
        assert_eq!(status(&mut client, page, "If-None-Match: *\r\n"), 304);
    }
}

#[test]
fn tags_on_several_lines_are_one_list() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    let etag = server.get("/a.txt").field("etag").unwrap().to_owned();
    for (field, expected) in [("If-None-Match", 304), ("If-Match", 200)] {
        for (one, other) in [(&*etag, "\"x\""), ("\"x\"", &*etag)] {
            let fields = format!("{field}: {one}\r\nA: b\r\n{field}: {other}\r\n");
            assert_eq!(status(&mut client, "/a.txt", &fields), expected, "{fields}");
        }
    }
}

#[test]
fn what_may_be_said_once_and_is_said_twice_says_nothing() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    for (field, value) in
        [("If-Unmodified-Since", BEFORE), ("If-Modified-Since", THEN), ("Range", "bytes=1-2")]
    {
        let twice = format!("{field}: {value}\r\n").repeat(2);
        assert_eq!(status(&mut client, "/a.txt", &twice), 200, "{field}");
    }
    let if_range = format!("If-Range: {THEN}\r\n").repeat(2);
    let fields = format!("Range: bytes=1-2\r\n{if_range}");
    assert_eq!(status(&mut client, "/a.txt", &fields), 200);
}

#[test]
fn a_host_is_a_host() {
    let site = site();
    let server = start(&site, &[]);
    for (host, expected) in [
        ("a b/c?@", 400),
        ("a/b", 400),
        ("user@host", 400),
        ("host:80a", 400),
        ("a:80:80", 400),
        ("[::1", 400),
        ("[::1]x", 400),
        ("%zz", 400),
        ("[]", 400),
        ("[h]", 400),
        ("", 200),
        ("host", 200),
        ("host:", 200),
        ("a-b_c.example:8080", 200),
        ("[::1]:8080", 200),
        ("%41!$&'()*+,;=~", 200),
    ] {
        let mut client = server.connect();
        client.send(format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, expected, "{host}");
    }
}

#[test]
fn a_target_is_what_its_path_says() {
    let site = site();
    let server = start(&site, &[]);
    for target in ["/metrics", "/metrics?x=1", "http://test/metrics", "http://test/metrics?x"] {
        let page = String::from_utf8(server.get(target).body).unwrap();
        assert!(page.contains("lastbyte_transfers_total"), "{target}: {page}");
    }
    // A query ends the authority as a path does (RFC 3986, section 3.2).
    let root = server.get("/").body;
    for target in ["http://test?x=/a.txt", "http://test#/a.txt", "http://test"] {
        assert_eq!(server.get(target).body, root, "{target}");
    }
    // Neither of these names a server (RFC 9110, section 4.2), and a scheme holds no
    // query.
    for target in
        ["http:///a.txt", "http://user@test/a.txt", "http://<a>/a.txt", "x?y=http://test/a.txt"]
    {
        assert_eq!(server.get(target).status, 400, "{target}");
    }
}

#[test]
fn no_change_lies_in_the_future() {
    let site = site();
    // In 2099.
    changed_at(&site.path().join("a.txt"), 4_070_908_800);
    let server = start(&site, &[]);
    let response = server.get("/a.txt");
    let time = |name| httpdate::parse_http_date(response.field(name).unwrap()).unwrap();
    assert!(time("last-modified") <= time("date"), "{:?}", response.fields);
}

#[test]
fn a_part_is_of_the_version_that_was_asked_for() {
    let site = site();
    // One thread, which has looked at the file just now.
    let server = start(&site, &["--threads", "1"]);
    let mut client = server.connect();
    client.get("/large.bin");
    let etag = client.response().field("etag").unwrap().to_owned();
    // In place, so that a file that is held open changes too.
    fs::write(site.path().join("large.bin"), vec![b'y'; 100_000]).unwrap();
    client.request("GET", "/large.bin", &format!("Range: bytes=0-9\r\nIf-Range: {etag}\r\n"));
    let response = client.response();
    assert_eq!((response.status, response.body), (200, vec![b'y'; 100_000]));
    assert_eq!(status(&mut client, "/large.bin", &format!("If-Match: {etag}\r\n")), 412);
}

#[test]
fn what_is_said_of_a_part_is_of_its_version() {
    for field in ["Range: bytes=0-9", "If-None-Match: ETAG", "If-Modified-Since: DATE"] {
        let site = site();
        let server = start(&site, &["--threads", "1"]);
        let mut client = server.connect();
        client.get("/large.bin");
        let before = client.response();
        let etag = before.field("etag").unwrap();
        fs::write(site.path().join("large.bin"), vec![b'y'; 100_000]).unwrap();
        let field = field.replace("ETAG", etag).replace("DATE", THEN);
        client.request("GET", "/large.bin", &format!("{field}\r\n"));
        let after = client.response();
        assert_eq!(after.body.first(), Some(&b'y'), "{field}");
        assert_ne!(after.field("etag"), Some(etag), "{field}");
    }
}

#[test]
fn old_clients_expect_nothing() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    let fields = "Connection: keep-alive\r\nContent-Length: 2\r\nExpect: 100-continue\r\n";
    for _ in 0..2 {
        client.send(format!("GET /a.txt HTTP/1.0\r\n{fields}\r\nab"));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (200, Some("keep-alive")));
    }
}

#[test]
fn a_line_between_chunks_has_one_end() {
    let site = site();
    let server = start(&site, &[]);
    for (body, expected) in [
        ("3\r\r\nabc\r\n0\r\n\r\n", 400),
        ("3;a\rb\r\nabc\r\n0\r\n\r\n", 400),
        ("3\r\nabc\r\n0\r\nA: b\rc\r\n\r\n", 400),
        ("3 ;a=b\r\nabc\r\n0\r\n\r\n", 200),
    ] {
        let mut client = server.connect();
        client.request("GET", "/a.txt", "Transfer-Encoding: chunked\r\n");
        client.send(body);
        assert_eq!(client.response().status, expected, "{body:?}");
    }
}

#[test]
fn a_request_is_given_its_time_when_it_can_be_read() {
    const GIVEN: Duration = Duration::from_secs(2);
    let site = site();
    let server = start(&site, &["--request-timeout", "2s"]);
    let mut client = server.connect();
    // More than may be unfinished, and then the start of another.
    let request = "GET /1mb HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send(request.repeat(80) + "GET /a.txt HTTP/1.1\r\n");
    sleep(GIVEN);
    // Not before the answers are read is the start of the last one.
    let earliest = Instant::now();
    for _ in 0..80 {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(client.response().status, 408);
    let given = earliest.elapsed();
    assert!(given >= GIVEN, "{given:?} for what the server could not read before");
}

#[test]
fn the_last_answer_says_that_it_is_the_last() {
    let site = site();
    for (fields, first, rest) in [
        ("Content-Length: 4", "ab", "cd"),
        ("Transfer-Encoding: chunked", "2\r\na", "b\r\n0\r\n\r\n"),
    ] {
        // One thread, so that what came first is read first.
        let server = start(&site, &["--drain-timeout", "50s", "--threads", "1"]);
        let mut client = server.connect();
        client.request("GET", "/a.txt", &format!("{fields}\r\n"));
        client.send(first);
        // It has been read when another is served after it.
        assert_eq!(server.get("/a.txt").status, 200);
        server.signal("TERM");
        wait_for("refusal", || TcpStream::connect(server.address).err());
        client.send(rest);
        let response = client.response();
        // RFC 9112, section 9.6.
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn empty_lines_begin_no_request() {
    let site = site();
    let mut server = start(&site, &["--drain-timeout", "20s", "--threads", "1"]);
    let mut client = server.connect();
    client.send("\r\n");
    client.get("/a.txt");
    assert_eq!(client.response().status, 200);
    client.send("\r\n\n\r\n");
    // It has been read when another is served after it.
    assert_eq!(server.get("/a.txt").status, 200);
    server.signal("TERM");
    assert_eq!(client.rest(), b"");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_request_that_is_not_answered_is_cut_off() {
    let site = site();
    for begun in ["GET /a.t", "GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"] {
        let mut server = start(&site, &["--drain-timeout", "300ms", "--threads", "1"]);
        let mut client = server.connect();
        client.send(begun);
        assert_eq!(server.get("/a.txt").status, 200);
        server.signal("TERM");
        assert_eq!(server.wait_for_exit().code(), Some(1), "{begun:?}");
        server.wait_for_complaint("1 responses were cut off or not begun");
    }
}

#[test]
fn head_is_answered_without_content_though_its_body_is_wrong() {
    let site = site();
    let server = start(&site, &["--request-timeout", "300ms"]);
    for (fields, body, expected) in [
        ("Transfer-Encoding: chunked", "xx\r\n", 400),
        ("Transfer-Encoding: chunked", "ffffffffff\r\n", 413),
        ("Content-Length: 9", "ab", 408),
    ] {
        let mut client = server.connect();
        client.request("HEAD", "/a.txt", &format!("{fields}\r\n"));
        client.send(body);
        let response = client.head();
        assert_eq!(response.status, expected);
        assert_eq!(client.rest(), b"", "{fields}");
    }
    for line in server.wait_for_transfers(3) {
        assert_eq!((&line["method"], &line["path"]), (&"HEAD".into(), &"/a.txt".into()), "{line}");
    }
}

/// What is asked for at once is more than the driver keeps for a connection.
#[test]
fn a_drain_ends_connections_whose_answers_had_to_wait() {
    let site = site();
    let mut command = serve();
    command.env("LASTBYTE_DISABLE", "sealed-memory").arg("--dir").arg(site.path());
    command.args(["--listen", "127.0.0.1:0", "--log", "json", "--threads", "1"]);
    let mut server = Server::from(command.args(["--drain-timeout", "20s"]));
    // The server stays as long as this one is not answered.
    let mut other = server.connect();
    other.send("GET /a.txt HTTP/1.1\r\n");
    let mut client = server.connect();
    for _ in 0..2 {
        client.get("/40mb");
    }
    let first = client.head();
    server.signal("TERM");
    wait_for("refusal", || TcpStream::connect(server.address).err());
    client.read(first.len());
    let second = client.response();
    assert_eq!((second.status, second.len()), (200, 40 << 20));
    // Nothing more is waited for.
    assert_eq!(client.rest(), b"");
    other.send("Host: h\r\n\r\n");
    assert_eq!(other.response().status, 200);
    drop((client, other));
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

/// Whoever has asked before the signal is answered, whether or not that was read by then.
#[test]
fn what_was_asked_before_a_drain_is_answered() {
    let site = site();
    for backend in ["io_uring", "epoll", "fallback"] {
        let mut command = serve();
        command.args(["--listen", "127.0.0.1:0", "--log", "json", "--threads", "1"]);
        let mut server =
            Server::from(command.args(["--backend", backend, "--dir"]).arg(site.path()));
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.get("/a.txt");
            assert_eq!(client.response().status, 200);
        }
        server.signal("STOP");
        for client in &mut clients {
            client.get("/a.txt");
        }
        server.signal("TERM");
        server.signal("CONT");
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().status, 200, "{backend}, {n}");
            assert_eq!(client.rest(), b"", "{backend}, {n}");
        }
        drop(clients);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        assert_eq!(server.wait_for_transfers(200).len(), 200);
    }
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let site = site();
    let server = start(&site, &["--request-timeout", "300ms"]);
    for (request, expected) in [
        ("HEAD / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417),
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
        ("HEAD / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("HEAD ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 421),
        ("HEAD / HTTP/1.1\r\nHo", 408),
    ] {
        let mut client = server.connect();
        client.send(request);
        let head = client.head();
        assert_eq!(head.status, expected, "{request}");
        assert!(head.len() > 0, "{request}");
        assert_eq!(client.rest(), b"", "{request}");
    }
    let all = server.wait_for_transfers(6);
    assert!(all.iter().all(|line| line["method"] == "HEAD"), "{all:?}");
}

#[test]
fn an_encoded_slash_is_no_slash() {
    let site = site();
    fs::create_dir(site.path().join("dir")).unwrap();
    fs::write(site.path().join("dir/b"), "b").unwrap();
    let server = start(&site, &[]);
    for (target, expected) in
        [("/dir/", 200), ("/dir/b", 200), ("/dir%2F", 404), ("/dir%2fb", 404), ("/%2F", 404)]
    {
        assert_eq!(server.get(target).status, expected, "{target}");
    }
}

#[test]
fn another_scheme_is_not_served_here() {
    let site = site();
    let server = start(&site, &[]);
    for (target, expected) in [
        ("http://h/a.txt", 200),
        // Not over this connection (RFC 9110, section 7.4).
        ("HTTPS://h/a.txt", 421),
        ("ftp://h/a.txt", 421),
        ("httpx://h/a.txt", 421),
    ] {
        assert_eq!(server.get(target).status, expected, "{target}");
    }
}

#[test]
fn a_newer_minor_version_is_served_as_what_is_known() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    for version in ["1.2", "1.1", "1.9"] {
        client.send(format!("GET /a.txt HTTP/{version}\r\nHost: h\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, &*response.body), (200, &b"0123456789"[..]), "{version}");
        assert_eq!(response.field("connection"), None, "{version}");
    }
    client.send("GET /a.txt HTTP/3.0\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().status, 505);
}

#[test]
fn dates_before_1970_are_dates() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    for date in ["Wed, 31 Dec 1969 23:59:59 GMT", "Wed Dec 31 23:59:59 1969"] {
        let mut status = |field| status(&mut client, "/a.txt", &format!("{field}: {date}\r\n"));
        assert_eq!(status("If-Unmodified-Since"), 412, "{date}");
        assert_eq!(status("If-Modified-Since"), 200, "{date}");
    }
}
