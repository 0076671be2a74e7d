//! From a request to the bytes of its answer.

use super::date::DateCache;
use super::files::{Belief, Cache, Entry, Found};
use super::metrics::Metrics;
use super::path::path_of;
use super::range::{Wanted, wanted};
use super::request::Request;
use super::status::Status;
use lastbyte::{Moment, Payload, Pool, PooledBuf};
use std::io::Write;

/// Size of a buffer for a response head. A head for a file is far shorter;
/// others, which hold what a peer sent, are built elsewhere.
const HEAD_SIZE: usize = 512;
/// Buffers that a thread holds while unused.
const HEADS_KEPT: usize = 1024;

/// What is sent for a request.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: Status,
    /// Head and body.
    pub payload: Payload,
}

/// What is said of the connection after a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence {
    /// It stays open, as HTTP/1.1 expects.
    Open,
    /// It stays open, as the HTTP/1.0 peer has asked for.
    KeptAlive,
    /// It is closed.
    Close,
}

/// The answers of one thread.
#[derive(Debug)]
pub struct Responder {
    files: Cache,
    heads: Pool,
    date: DateCache,
    metrics: Metrics,
}

impl Responder {
    /// Answers out of `files`, and out of `metrics`.
    #[must_use]
    pub fn new(files: Cache, metrics: Metrics) -> Self {
        let heads = Pool::new(HEAD_SIZE, HEADS_KEPT);
        Self { files, heads, date: DateCache::default(), metrics }
    }

    /// The answer to `request`.
    pub fn respond(
        &mut self,
        request: &Request<'_>,
        at: Moment,
        persistence: Persistence,
    ) -> Response {
        let with_body = match request.method {
            "GET" => true,
            "HEAD" => false,
            method => return self.refuse(refusal_of(method), at, persistence, true),
        };
        let path = path_of(request.target);
        if path == "/metrics" {
            let content = ("application/openmetrics-text; version=1.0.0; charset=utf-8", "");
            let page = self.metrics.encode();
            return self.made(request, content, page, at, persistence, with_body);
        }
        let belief = if request.compares_versions() { Belief::None } else { Belief::ForAMoment };
        match self.files.find(path, belief, at) {
            Ok(Found::Entry(entry)) => self.entry(request, &entry, at, persistence, with_body),
            Ok(Found::Redirect(url)) => {
                let status = Status::MOVED_PERMANENTLY;
                let fields = format!("Location: {url}\r\n");
                let content = ("text/plain; charset=utf-8", &*fields);
                self.page(status, content, format!("{status}\n"), at, persistence, with_body)
            }
            Ok(Found::Listing(page)) => {
                let content = ("text/html; charset=utf-8", "");
                self.made(request, content, page, at, persistence, with_body)
            }
            Err(status) => self.refuse(status, at, persistence, with_body),
        }
    }

    /// The answer `status`, and nothing else.
    pub fn refuse(
        &mut self,
        status: Status,
        at: Moment,
        persistence: Persistence,
        with_body: bool,
    ) -> Response {
        let allow = if status == Status::METHOD_NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let content = ("text/plain; charset=utf-8", allow);
        self.page(status, content, format!("{status}\n"), at, persistence, with_body)
    }

    /// Closes files that have not been asked for lately.
    pub fn expire(&mut self, at: Moment) {
        self.files.expire(at.monotonic);
    }

    fn entry(
        &mut self,
        request: &Request<'_>,
        entry: &Entry,
        at: Moment,
        persistence: Persistence,
        with_body: bool,
    ) -> Response {
        // A range is defined for GET only (RFC 9110, section 14.2).
        let mut range = request.range.filter(|_| with_body);
        if let Some(conditions) = &request.conditions {
            let validators = &entry.validators;
            if !conditions.hold_for(Some(validators)) {
                return self.refuse(Status::PRECONDITION_FAILED, at, persistence, with_body);
            }
            if conditions.peer_has(Some(validators)) {
                return self.not_modified(&entry.version_fields, at, persistence);
            }
            range = range.filter(|_| conditions.want_a_range_of(validators));
        }
        match range.map_or(Wanted::Everything, |range| wanted(range, entry.len)) {
            Wanted::Everything => {
                let mut head = self.heads.take();
                head.append(&entry.head);
                head.append(self.date.at(at.wall));
                let mut payload = finish(head, persistence);
                if with_body {
                    entry.append(&mut payload, 0, entry.len);
                }
                Response { status: Status::OK, payload }
            }
            Wanted::Part { offset, len } => {
                let last = offset + len - 1;
                let mut head = self.start(Status::PARTIAL_CONTENT);
                put(&mut head, format_args!("Content-Length: {len}\r\n"));
                let total = entry.len;
                put(&mut head, format_args!("Content-Range: bytes {offset}-{last}/{total}\r\n"));
                head.append(&entry.content_fields);
                head.append(&entry.version_fields);
                let mut payload = self.end(head, at, persistence);
                entry.append(&mut payload, offset, len);
                Response { status: Status::PARTIAL_CONTENT, payload }
            }
            Wanted::Unsatisfiable => {
                let status = Status::RANGE_NOT_SATISFIABLE;
                let fields = format!("Content-Range: bytes */{}\r\n", entry.len);
                let content = ("text/plain; charset=utf-8", &*fields);
                self.page(status, content, format!("{status}\n"), at, persistence, with_body)
            }
        }
    }

    /// A page that is another each time, and so has nothing to be compared by.
    fn made(
        &mut self,
        request: &Request<'_>,
        content: (&str, &str),
        page: String,
        at: Moment,
        persistence: Persistence,
        with_body: bool,
    ) -> Response {
        match &request.conditions {
            Some(conditions) if !conditions.hold_for(None) => {
                self.refuse(Status::PRECONDITION_FAILED, at, persistence, with_body)
            }
            Some(conditions) if conditions.peer_has(None) => {
                self.not_modified(b"", at, persistence)
            }
            _ => self.page(Status::OK, content, page, at, persistence, with_body),
        }
    }

    /// `version` are the fields that say which version the peer has.
    fn not_modified(&mut self, version: &[u8], at: Moment, persistence: Persistence) -> Response {
        let mut head = self.start(Status::NOT_MODIFIED);
        head.append(version);
        Response { status: Status::NOT_MODIFIED, payload: self.end(head, at, persistence) }
    }

    fn start(&mut self, status: Status) -> PooledBuf {
        let mut head = self.heads.take();
        put(&mut head, format_args!("HTTP/1.1 {status}\r\nServer: lastbyte\r\n"));
        head
    }

    fn end(&mut self, mut head: PooledBuf, at: Moment, persistence: Persistence) -> Payload {
        head.append(b"Date: ");
        head.append(self.date.at(at.wall));
        finish(head, persistence)
    }

    /// A response whose body is made for it: rare, and of any length.
    fn page(
        &mut self,
        status: Status,
        (content_type, fields): (&str, &str),
        page: String,
        at: Moment,
        persistence: Persistence,
        with_body: bool,
    ) -> Response {
        let len = page.len();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nServer: lastbyte\r\nContent-Length: {len}\r\n\
             Content-Type: {content_type}\r\n{fields}Date: "
        )
        .into_bytes();
        bytes.extend_from_slice(self.date.at(at.wall));
        bytes.extend_from_slice(persistence.ending());
        if with_body {
            bytes.append(&mut page.into_bytes());
        }
        Response { status, payload: Payload::from(bytes) }
    }
}

impl Persistence {
    /// The end of a head, after the date.
    const fn ending(self) -> &'static [u8] {
        match self {
            Self::Open => b"\r\n\r\n",
            Self::KeptAlive => b"\r\nConnection: keep-alive\r\n\r\n",
            Self::Close => b"\r\nConnection: close\r\n\r\n",
        }
    }
}

/// Methods of RFC 9110, section 9.3, and RFC 5789 are known; others cannot be
/// allowed anywhere (section 9.1).
fn refusal_of(method: &str) -> Status {
    match method {
        "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            Status::METHOD_NOT_ALLOWED
        }
        _ => Status::NOT_IMPLEMENTED,
    }
}

fn finish(mut head: PooledBuf, persistence: Persistence) -> Payload {
    let ending = persistence.ending();
    let added = head.append(ending);
    debug_assert_eq!(added, ending.len(), "a response head is longer than its buffer");
    Payload::from(head)
}

fn put(head: &mut PooledBuf, text: std::fmt::Arguments<'_>) {
    let written = head.write_fmt(text);
    debug_assert!(written.is_ok(), "a response head is longer than its buffer");
}

#[cfg(test)]
mod tests {
    use super::super::conditional::Conditions;
    use super::super::generated::{Block, content};
    use super::super::path::Root;
    use super::super::request::Body;
    use super::*;
    use lastbyte::{Part, UnixTime};
    use smallvec::smallvec;
    use std::time::Duration;

    fn at() -> Moment {
        Moment { wall: UnixTime::from_nanos(4_000_000_000_000_000_000), ..Moment::default() }
    }

    fn request<'a>(method: &'a str, target: &'a str) -> Request<'a> {
        Request {
            method,
            target,
            is_for_https: false,
            is_old: false,
            keep_alive: true,
            range: None,
            conditions: None,
            body: Body::None,
            expects_continue: false,
        }
    }

    fn text(response: &Response) -> String {
        let mut bytes = Vec::new();
        for part in response.payload.remaining(0) {
            match part {
                Part::Memory(memory) => bytes.extend_from_slice(memory),
                Part::File { .. } => panic!("no file in here"),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    fn responder(root: &std::path::Path) -> Responder {
        let files = Cache::new(Root::new(root).unwrap(), Block::Memory(content().into()));
        Responder::new(files, Metrics::new(1))
    }

    #[test]
    fn every_kind_of_answer_is_well_formed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.txt");
        std::fs::write(&file, "0123456789").unwrap();
        let changed = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(changed).unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        let mut responder = responder(root.path());
        let fields = "Content-Type: text/plain; charset=utf-8\r\nAccept-Ranges: bytes\r\n\
            ETag: \"de0b6b3a7640000-a\"\r\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n";
        let date = "Date: Tue, 02 Oct 2096 07:06:40 GMT\r\n";

        let whole = responder.respond(&request("GET", "/a.txt"), at(), Persistence::Open);
        assert_eq!(
            text(&whole),
            format!(
                "HTTP/1.1 200 OK\r\nServer: lastbyte\r\nContent-Length: 10\r\n{fields}{date}\r\n\
                 0123456789"
            )
        );
        let head = responder.respond(&request("HEAD", "/a.txt"), at(), Persistence::Close);
        assert!(text(&head).ends_with(&format!("{date}Connection: close\r\n\r\n")));
        assert!(text(&head).contains("Content-Length: 10\r\n"));

        let ranged = Request { range: Some(b"bytes=2-4"), ..request("GET", "/a.txt") };
        let part = responder.respond(&ranged, at(), Persistence::KeptAlive);
        assert_eq!(
            text(&part),
            format!(
                "HTTP/1.1 206 Partial Content\r\nServer: lastbyte\r\nContent-Length: 3\r\n\
                 Content-Range: bytes 2-4/10\r\n{fields}{date}Connection: keep-alive\r\n\r\n234"
            )
        );
        let ranged = Request { range: Some(b"bytes=10-"), ..request("GET", "/a.txt") };
        let none = responder.respond(&ranged, at(), Persistence::Open);
        assert_eq!(none.status, Status::RANGE_NOT_SATISFIABLE);
        assert!(text(&none).contains("Content-Range: bytes */10\r\n"));

        let conditions =
            Conditions { if_none_match: smallvec![&b"*"[..]], ..Conditions::default() };
        let unchanged =
            Request { conditions: Some(Box::new(conditions)), ..request("GET", "/a.txt") };
        let unchanged = responder.respond(&unchanged, at(), Persistence::Open);
        assert!(text(&unchanged).starts_with("HTTP/1.1 304 Not Modified\r\n"));
        assert!(text(&unchanged).ends_with(&format!("{date}\r\n")));

        let moved = responder.respond(&request("GET", "/sub"), at(), Persistence::Open);
        assert!(text(&moved).contains("\r\nLocation: /sub/\r\n"));
        let wrong = responder.respond(&request("POST", "/"), at(), Persistence::Open);
        assert!(text(&wrong).contains("405 Method Not Allowed\r\n"));
        assert!(text(&wrong).contains("\r\nAllow: GET, HEAD\r\n"));
        let unknown = responder.respond(&request("get", "/"), at(), Persistence::Open);
        assert!(text(&unknown).contains("501 Not Implemented\r\n"));
        assert!(!text(&unknown).contains("Allow:"));
        let metrics = responder.respond(&request("GET", "/metrics"), at(), Persistence::Open);
        assert!(text(&metrics).contains("lastbyte_transfers_total"));
    }

    #[test]
    fn a_generated_body_is_all_there() {
        let root = tempfile::tempdir().unwrap();
        let mut responder = responder(root.path());
        let response = responder.respond(&request("GET", "/2mb"), at(), Persistence::Open);
        let whole = text(&response);
        let body = whole.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body.len(), 2 << 20);
        // The head, and the block.
        assert_eq!(response.payload.segments().len(), 2);
        let more = responder.respond(&request("GET", "/5mb"), at(), Persistence::Open);
        assert!(text(&more).contains("404 Not Found"), "more than one block of memory");
    }
}
