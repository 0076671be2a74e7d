//! A request head, read where it lies in the receive buffer.

use super::conditional::Conditions;
use super::host::{is_authority, is_host};
use super::path::absolute;
use super::status::Status;
use httparse::{Error, Header};
use std::mem::MaybeUninit;

/// Longest request head in bytes.
pub const MAX_HEAD: usize = 16 << 10;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 8 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;

/// What a buffer starts with.
#[derive(Debug, Eq, PartialEq)]
pub enum Parsed<'a> {
    /// A head that goes on beyond the buffer, and may.
    Partial,
    /// A whole head.
    Complete {
        /// What it asks for.
        request: Request<'a>,
        /// Bytes that the head takes up.
        len: usize,
    },
    /// Something that is answered with this and ends the connection.
    Rejected(Status),
}

/// A request as far as this server is interested.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request<'a> {
    /// The method's name.
    pub method: &'a str,
    /// The target as it was sent.
    pub target: &'a str,
    /// Whether it is to be answered over a secured connection only, which its target
    /// says.
    pub is_for_https: bool,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    /// Whether the peer wants the connection to stay open.
    pub keep_alive: bool,
    /// `Range`.
    pub range: Option<&'a [u8]>,
    /// What the answer depends on, if on anything. Most requests have none.
    pub conditions: Option<Box<Conditions<'a>>>,
    /// What follows the head.
    pub body: Body,
    /// Whether the peer waits for permission to send the body.
    pub expects_continue: bool,
}

impl<'a> Request<'a> {
    fn conditions(&mut self) -> &mut Conditions<'a> {
        self.conditions.get_or_insert_default()
    }

    /// Whether the peer puts the answer together with, or in the place of, what it
    /// has: then an answer that was right a moment ago may be wrong.
    #[must_use]
    pub fn compares_versions(&self) -> bool {
        self.range.is_some() || self.conditions.is_some()
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// There is none.
    None,
    /// It has this many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// Reads the head that `bytes` start with.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    match head.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(len)) => {
            complete(interpret(head.method, head.path, head.version == Some(0), head.headers), len)
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Parsed::Partial,
        // The part that did not end says what was too long.
        Ok(httparse::Status::Partial) if head.version.is_none() => {
            Parsed::Rejected(Status::URI_TOO_LONG)
        }
        Ok(httparse::Status::Partial) | Err(Error::TooManyHeaders) => {
            Parsed::Rejected(Status::HEADER_FIELDS_TOO_LARGE)
        }
        Err(Error::Version) => other_version(window, head.method, head.path),
        Err(_) => Parsed::Rejected(Status::BAD_REQUEST),
    }
}

/// The method of what `bytes` begin with, even if the rest is malformed or missing.
#[must_use]
pub fn method_of(bytes: &[u8]) -> Option<&str> {
    let mut head = httparse::Request::new(&mut []);
    // What is wrong comes later.
    let _ = head.parse(bytes);
    head.method
}

/// Reads a head of another version. One that is only newer is as good as HTTP/1.1
/// (RFC 9110, section 2.5), and a line that ends in any version differs from noise.
fn other_version<'a>(
    bytes: &'a [u8],
    method: Option<&'a str>,
    target: Option<&'a str>,
) -> Parsed<'a> {
    let is_blank = |&&byte: &&u8| matches!(byte, b'\r' | b'\n');
    let begin = bytes.iter().take_while(is_blank).count();
    let end = bytes[begin..].iter().position(|&byte| byte == b'\n').map(|at| begin + at + 1);
    let line = &bytes[begin..end.unwrap_or(bytes.len())];
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Parsed::Rejected(Status::VERSION_NOT_SUPPORTED);
        }
        _ => return Parsed::Rejected(Status::BAD_REQUEST),
    }
    let line_len = end.unwrap_or(bytes.len());
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(&bytes[line_len..], &mut fields) {
        Ok(httparse::Status::Complete((len, fields))) => {
            complete(interpret(method, target, false, fields), line_len + len)
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(Error::TooManyHeaders) => {
            Parsed::Rejected(Status::HEADER_FIELDS_TOO_LARGE)
        }
        Err(_) => Parsed::Rejected(Status::BAD_REQUEST),
    }
}

fn complete(request: Result<Request<'_>, Status>, len: usize) -> Parsed<'_> {
    match request {
        Ok(request) => Parsed::Complete { request, len },
        Err(status) => Parsed::Rejected(status),
    }
}

fn interpret<'a>(
    method: Option<&'a str>,
    target: Option<&'a str>,
    is_old: bool,
    fields: &[Header<'a>],
) -> Result<Request<'a>, Status> {
    let (Some(method), Some(target)) = (method, target) else {
        return Err(Status::BAD_REQUEST);
    };
    if target.len() > MAX_TARGET {
        return Err(Status::URI_TOO_LONG);
    }
    let mut is_for_https = false;
    if let Some((scheme, authority)) = absolute(target) {
        is_for_https = scheme.eq_ignore_ascii_case("https");
        if !["http", "https"].iter().any(|own| scheme.eq_ignore_ascii_case(own)) {
            return Err(Status::MISDIRECTED_REQUEST);
        }
        if !is_authority(authority.as_bytes()) {
            return Err(Status::BAD_REQUEST);
        }
    }
    let mut request = Request {
        method,
        target,
        is_for_https,
        is_old,
        keep_alive: !is_old,
        range: None,
        conditions: None,
        body: Body::None,
        expects_continue: false,
    };
    let (mut hosts, mut closes, mut length, mut chunked) = (0, false, None, false);
    for field in fields {
        let (name, value) = (field.name, field.value);
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Lengths first: a head has many fields, few of which matter here.
        match name.len() {
            4 if is("host") => {
                // RFC 9112, section 3.2.
                if !is_host(value) {
                    return Err(Status::BAD_REQUEST);
                }
                hosts += 1;
            }
            5 if is("range") => only(&mut request.range, value),
            // An old peer does not wait for an answer to it (RFC 9110, section 10.1.1).
            6 if is("expect") && !is_old => {
                for expectation in items(value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Status::EXPECTATION_FAILED);
                    }
                    request.expects_continue = true;
                }
            }
            8 if is("if-match") => request.conditions().if_match.push(value),
            8 if is("if-range") => only(&mut request.conditions().if_range, value),
            10 if is("connection") => {
                closes |= has_token(value, "close");
                request.keep_alive |= has_token(value, "keep-alive");
            }
            13 if is("if-none-match") => request.conditions().if_none_match.push(value),
            14 if is("content-length") => {
                let this = content_length(value)?;
                if length.is_some_and(|other| other != this) {
                    return Err(Status::BAD_REQUEST);
                }
                length = Some(this);
            }
            17 if is("if-modified-since") => {
                only(&mut request.conditions().if_modified_since, value)
            }
            17 if is("transfer-encoding") => {
                if chunked || is_old {
                    return Err(Status::BAD_REQUEST);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Status::NOT_IMPLEMENTED);
                }
                chunked = true;
            }
            19 if is("if-unmodified-since") => {
                only(&mut request.conditions().if_unmodified_since, value);
            }
            _ => {}
        }
    }
    request.keep_alive &= !closes;
    request.body = match (length, chunked) {
        // Two ends: which of them a proxy on the way believed is anyone's guess.
        (Some(_), true) => return Err(Status::BAD_REQUEST),
        (None, true) => Body::Chunked,
        (None | Some(0), false) => Body::None,
        (Some(length), false) => Body::Length(length),
    };
    if hosts > 1 || (hosts == 0 && !is_old) {
        return Err(Status::BAD_REQUEST);
    }
    Ok(request)
}

/// Takes the `value` of a field that is no list. On several lines it says nothing
/// that is valid (RFC 9110, section 5.3), and none of these has to be heeded then.
fn only<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8]) {
    *field = Some(if field.is_none() { value } else { b"" });
}

fn content_length(value: &[u8]) -> Result<u64, Status> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Status::BAD_REQUEST);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Status::BAD_REQUEST)?;
    digits.parse().map_err(|_| Status::CONTENT_TOO_LARGE)
}

fn has_token(list: &[u8], token: &str) -> bool {
    items(list).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// What a list has, but for empty items (RFC 9110, section 5.6.1).
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(head: &str) -> Request<'_> {
        match parse(head.as_bytes()) {
            Parsed::Complete { request, len } => {
                assert_eq!(len, head.len());
                request
            }
            other => panic!("{head:?}: {other:?}"),
        }
    }

    fn rejected(head: &str) -> u16 {
        match parse(head.as_bytes()) {
            Parsed::Rejected(status) => status.code(),
            other => panic!("{head:?}: {other:?}"),
        }
    }

    fn with(fields: &str) -> String {
        format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    }

    #[test]
    fn what_matters_is_read() {
        let head = with("RANGE: bytes=0-1\r\nif-none-match: \"x\"\r\nIf-Range: \"y\"\r\n");
        let request = request(&head);
        assert_eq!((request.method, request.target, request.is_old), ("GET", "/a", false));
        assert_eq!(request.range, Some(&b"bytes=0-1"[..]));
        let conditions = request.conditions.unwrap();
        assert_eq!(conditions.if_none_match.as_slice(), [&b"\"x\""[..]]);
        assert_eq!(conditions.if_range, Some(&b"\"y\""[..]));
        assert_eq!(request.body, Body::None);
    }

    #[test]
    fn lists_may_come_on_several_lines_and_nothing_else() {
        let head = with("If-Match: a\r\nIf-Match: b\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n");
        let request = request(&head);
        assert_eq!(request.conditions.unwrap().if_match.as_slice(), [b"a", b"b"]);
        assert_eq!(request.range, Some(&b""[..]));
    }

    #[test]
    fn connections_persist_as_the_version_has_it() {
        assert!(request(&with("")).keep_alive);
        assert!(!request(&with("Connection: upgrade, Close\r\n")).keep_alive);
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn only_new_peers_wait_for_permission() {
        let expecting = "Host: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
        assert!(request(&with("Expect: 100-continue,, 100-CONTINUE\r\n")).expects_continue);
        assert!(!request(&with("Expect: ,\r\n")).expects_continue);
        for (version, waits) in [("HTTP/1.1", true), ("HTTP/1.0", false)] {
            let head = format!("GET / {version}\r\n{expecting}");
            assert_eq!(request(&head).expects_continue, waits, "{version}");
        }
    }

    #[test]
    fn bodies_have_one_end() {
        assert_eq!(request(&with("Content-Length: 5\r\n")).body, Body::Length(5));
        assert_eq!(request(&with("Content-Length: 0\r\n")).body, Body::None);
        assert_eq!(request(&with("Transfer-Encoding: Chunked\r\n")).body, Body::Chunked);
        for (fields, status) in [
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: 1e3\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 99999999999999999999999\r\n", 413),
            ("Expect: teapot\r\n", 417),
            ("Expect: 100-continue, teapot\r\n", 417),
        ] {
            assert_eq!(rejected(&with(fields)), status, "{fields}");
        }
    }

    #[test]
    fn malformed_heads_are_rejected() {
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b/c?@\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
            ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.23\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            ("GET / HTTX/1.1\r\nHost: a\r\n\r\n", 400),
            ("\x16\x03\x01\x02", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ] {
            assert_eq!(rejected(head), status, "{head:?}");
        }
    }

    #[test]
    fn a_newer_peer_is_one_like_any_other() {
        let head = with("Range: bytes=0-1\r\n");
        for version in ["1.2", "1.9"] {
            let newer = head.replace("1.1", version);
            assert_eq!(request(&newer), request(&head), "{version}");
            for end in 0..newer.len() {
                assert_eq!(parse(&newer.as_bytes()[..end]), Parsed::Partial, "{end}");
            }
            let newer = format!("\r\n{newer}");
            assert_eq!(request(&newer), request(&head), "{version}");
        }
        let long = format!("A: {}\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(rejected(&with(&long).replace("1.1", "1.2")), 431);
    }

    #[test]
    fn the_method_is_known_before_the_rest() {
        assert_eq!(method_of(b"\r\nHEAD / HTT"), Some("HEAD"));
        assert_eq!(method_of(b"HEAD / HTTP/1.1\r\nno colon\r\n"), Some("HEAD"));
        assert_eq!(method_of(b"HEAD / HTTP/2.0\r\n"), Some("HEAD"));
        assert_eq!(method_of(b"HEAD"), None);
        assert_eq!(method_of(b"\x16\x03\x01 "), None);
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(
            rejected(&format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9000))),
            414
        );
        assert_eq!(rejected(&format!("GET /{}", "a".repeat(MAX_HEAD))), 414);
        assert_eq!(rejected(&with(&format!("A: {}\r\n", "a".repeat(MAX_HEAD)))), 431);
        assert_eq!(rejected(&with(&"A: b\r\n".repeat(MAX_FIELDS))), 431);
        let almost = "x".repeat(MAX_HEAD - 60);
        request(&with(&format!("A: {almost}\r\n")));
    }

    #[test]
    fn a_head_in_pieces_is_partial_until_its_end() {
        let head = with("A: b\r\n");
        for end in 0..head.len() {
            assert_eq!(parse(&head.as_bytes()[..end]), Parsed::Partial, "{end}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn nor_does_anything_like_a_request(
            tail in "[ -~\r\n]{0,80}",
            name in "(Host|Range|Content-Length|Transfer-Encoding|Connection|Expect)",
            value in "[ -~]{0,30}",
        ) {
            let _ = parse(format!("GET / HTTP/1.1\r\n{name}: {value}\r\n{tail}").as_bytes());
        }
    }
}
