//! One line for each response, when everything about it is known.

use super::metrics::Outcome;
use super::outlet::{Outlet, Put};
use super::status::Status;
use lastbyte::{Evidence, FailReason, Failure, Method, Time, Transport};
use serde::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What lines look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// No lines.
    None,
}

/// Where a thread's lines wait for the end of a turn.
#[derive(Debug)]
pub struct Log {
    format: Format,
    buffer: Vec<u8>,
    /// How many are in the buffer.
    lines: u64,
    outlet: Arc<Outlet>,
}

/// A response from its request to its end.
#[derive(Debug)]
pub struct Story<'a> {
    /// Number of the connection.
    pub conn: u64,
    /// Number of the transfer on it.
    pub transfer: u64,
    /// The other side.
    pub peer: Option<SocketAddr>,
    /// The backend's name.
    pub backend: &'a str,
    /// What has made the request of the wire's bytes.
    pub receive_transport: Transport,
    /// When the request's first byte was read.
    pub began: Time,
    /// Bytes of head and body.
    pub bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The rest.
    pub details: &'a Details,
}

/// What is only kept of a transfer because it is logged.
#[derive(Debug)]
pub struct Details {
    /// Method of the request; `-` if it could not be read.
    pub method: Box<str>,
    /// Target of the request; `-` if it could not be read.
    pub path: Box<str>,
    /// Status of the response.
    pub status: Status,
    /// When the kernel held every byte.
    pub queued: Option<Time>,
    /// When the last byte was handed to the device.
    pub transmitted: Option<Time>,
    /// When the peer's TCP had acknowledged the last byte, and how that is known.
    pub acked: Option<(Time, Evidence)>,
    /// When the memory came back.
    pub released: Option<Time>,
    /// What moved the bytes.
    pub send: Method,
    /// What made them wire bytes.
    pub transport: Transport,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Details {
    /// Of a response with `status` to a request for `path`; nothing has happened yet.
    #[must_use]
    pub fn new(method: &str, path: &str, status: Status) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            status,
            queued: None,
            transmitted: None,
            acked: None,
            released: None,
            send: Method::default(),
            transport: Transport::default(),
            failure: None,
        }
    }
}

impl Log {
    /// Nothing to write yet to `outlet`.
    #[must_use]
    pub fn new(format: Format, outlet: Arc<Outlet>) -> Self {
        Self { format, buffer: Vec::new(), lines: 0, outlet }
    }

    /// Whether lines are wanted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.format != Format::None
    }

    /// Adds a line.
    pub fn add(&mut self, story: &Story<'_>) {
        let line = Line::new(story);
        match self.format {
            Format::None => return,
            Format::Text => {
                // Writing to a vector cannot fail.
                let _ = write!(self.buffer, "{line}");
            }
            Format::Json => {
                let _ = serde_json::to_writer(&mut self.buffer, &line);
            }
        }
        self.buffer.push(b'\n');
        self.lines += 1;
    }

    /// Has what was added written to standard output, and says how many lines
    /// were dropped instead. Does not wait.
    pub fn flush(&mut self) -> u64 {
        /// What the buffer may keep for the next lines.
        const KEPT: usize = 64 << 10;
        if self.buffer.is_empty() {
            return 0;
        }
        let dropped = match self.outlet.put(&self.buffer, self.lines) {
            Put::Taken => 0,
            Put::Dropped => self.lines,
            Put::Off => {
                self.format = Format::None;
                0
            }
        };
        self.lines = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        dropped
    }

    /// Waits until everything is written, but no longer than `within`.
    pub fn finish(&self, within: Duration) {
        self.outlet.finish(within);
    }
}

/// The line that stands for `lost` lines that were not read in time.
#[must_use]
pub fn lost_line(format: Format, lost: u64) -> String {
    match format {
        Format::Json => format!("{}\n", serde_json::json!({ "event": "lost", "lines": lost })),
        Format::Text | Format::None => {
            format!("{lost} lines were lost, because those before them were not read in time\n")
        }
    }
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    event: &'static str,
    conn: u64,
    transfer: u64,
    #[serde(serialize_with = "displayed")]
    peer: Peer,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    backend: &'a str,
    #[serde(serialize_with = "displayed")]
    transport: Transport,
    #[serde(serialize_with = "displayed")]
    receive_transport: Transport,
    #[serde(serialize_with = "displayed")]
    send: Method,
    queued_ms: Option<f64>,
    transmitted_ms: Option<f64>,
    acked_ms: Option<f64>,
    released_ms: Option<f64>,
    #[serde(serialize_with = "displayed")]
    evidence: Evidence,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked_after_ms: Option<f64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "displayed_some")]
    reason: Option<&'a FailReason>,
}

#[derive(Clone, Copy, Debug)]
struct Peer(Option<SocketAddr>);

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl<'a> Line<'a> {
    fn new(story: &Story<'a>) -> Self {
        let Details { acked, failure, .. } = story.details;
        let ms = |time: Time| milliseconds(story.began, time);
        let (acked, evidence) = match acked {
            // A completion that cannot tell says nothing of when.
            None | Some((_, Evidence::Unavailable)) => (None, Evidence::Unavailable),
            Some((at, evidence)) => (Some(*at), *evidence),
        };
        let acked_after_ms = match evidence {
            Evidence::Bracketed { after } => Some(ms(after)),
            _ => None,
        };
        let (acked_bytes, reason) = match failure {
            Some(failure) => (Some(failure.acked_bytes), Some(&failure.reason)),
            None => (None, None),
        };
        Self {
            event: "transfer",
            conn: story.conn,
            transfer: story.transfer,
            peer: Peer(story.peer),
            method: &story.details.method,
            path: &story.details.path,
            status: story.details.status.code(),
            bytes: story.bytes,
            backend: story.backend,
            transport: story.details.transport,
            receive_transport: story.receive_transport,
            send: story.details.send,
            queued_ms: story.details.queued.map(ms),
            transmitted_ms: story.details.transmitted.map(ms),
            acked_ms: acked.map(ms),
            released_ms: story.details.released.map(ms),
            evidence,
            acked_after_ms,
            outcome: story.outcome.name(),
            acked_bytes,
            reason,
        }
    }
}

/// As people like it: what was asked for, what was sent and how, then when.
impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, status, bytes, send, outcome, .. } = self;
        write!(
            f,
            "{peer} {} {} {status} {bytes} B {send} {outcome}",
            self.method,
            Shown(self.path)
        )?;
        for (stage, at) in [
            ("queued", self.queued_ms),
            ("transmitted", self.transmitted_ms),
            ("acked", self.acked_ms),
            ("released", self.released_ms),
        ] {
            match at {
                Some(ms) => write!(f, " {stage} {ms}")?,
                None => write!(f, " {stage} -")?,
            }
        }
        write!(f, " ms ({}", self.evidence)?;
        if let Some(after) = self.acked_after_ms {
            write!(f, ", acked after {after}")?;
        }
        f.write_str(")")?;
        if let Some(acked) = self.acked_bytes {
            write!(f, " {acked} B acked")?;
        }
        self.reason.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// Text from a peer, with nothing in it that a terminal would obey.
struct Shown<'a>(&'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '!'..='~' => write!(f, "{char}"),
            char => write!(f, "{}", char.escape_debug()),
        })
    }
}

/// Milliseconds from `began` to `time`, to the microsecond.
fn milliseconds(began: Time, time: Time) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let micros = u64::try_from(time.since(began).as_micros()).unwrap_or(u64::MAX);
    let half = |bits: u64| u32::try_from(bits).map_or(0.0, f64::from);
    // Exact for 285 years before it is divided, so that it is written in few digits.
    (half(micros >> 32) * HALF + half(micros & u64::from(u32::MAX))) / 1000.0
}

fn displayed<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn displayed_some<S: Serializer>(
    value: &Option<&FailReason>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_nanos((1_000_000 + micros) * 1000)
    }

    fn line(format: Format, outcome: Outcome, details: &Details) -> String {
        let mut log = Log::new(format, Arc::new(Outlet::new(format)));
        log.add(&Story {
            conn: 3,
            transfer: 17,
            peer: "127.0.0.1:53422".parse().ok(),
            backend: "epoll",
            receive_transport: Transport::Plain,
            began: at(0),
            bytes: 131_213,
            outcome,
            details,
        });
        String::from_utf8(log.buffer).unwrap()
    }

    fn details(path: &str) -> Details {
        Details {
            queued: Some(at(210)),
            transmitted: Some(at(350)),
            acked: Some((at(520), Evidence::Kernel)),
            released: Some(at(530)),
            send: Method::ZeroCopy,
            ..Details::new("GET", path, Status::OK)
        }
    }

    #[test]
    fn times_are_told_to_the_microsecond_however_long_they_are() {
        for (micros, told) in [
            (210, "0.21"),
            (4_294_967_295, "4294967.295"),
            (4_294_967_296, "4294967.296"),
            (7_200_000_123, "7200000.123"),
            (86_400_000_001, "86400000.001"),
        ] {
            assert_eq!(milliseconds(at(0), at(micros)).to_string(), told);
        }
    }

    #[test]
    fn json_is_as_documented() {
        assert_eq!(
            line(Format::Json, Outcome::Acked, &details("/128kb")),
            concat!(
                r#"{"event":"transfer","conn":3,"transfer":17,"peer":"127.0.0.1:53422","#,
                r#""method":"GET","path":"/128kb","status":200,"bytes":131213,"#,
                r#""backend":"epoll","transport":"plain","receive_transport":"plain","send":"zerocopy","queued_ms":0.21,"#,
                r#""transmitted_ms":0.35,"acked_ms":0.52,"released_ms":0.53,"#,
                r#""evidence":"kernel","outcome":"acked"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_was_not_reached_is_null() {
        let failure = Failure { reason: FailReason::Reset, acked_bytes: 7 };
        let failed =
            Details { transmitted: None, acked: None, failure: Some(failure), ..details("/") };
        let failed = line(Format::Json, Outcome::Reset, &failed);
        let failed: serde_json::Value = serde_json::from_str(&failed).unwrap();
        assert!(failed["acked_ms"].is_null() && failed["transmitted_ms"].is_null());
        assert_eq!(failed["evidence"], "unavailable");
        assert_eq!(failed["acked_bytes"], 7);
        assert_eq!(failed["outcome"], "reset");
        assert_eq!(failed["reason"], "the peer reset the connection");

        let unknown = Details { acked: Some((at(9), Evidence::Unavailable)), ..details("/") };
        let unknown = line(Format::Json, Outcome::Unconfirmed, &unknown);
        assert!(unknown.contains(r#""acked_ms":null"#), "{unknown}");

        let bracketed = Evidence::Bracketed { after: at(400) };
        let bracketed = Details { acked: Some((at(900), bracketed)), ..details("/") };
        let bracketed = line(Format::Json, Outcome::Acked, &bracketed);
        assert!(
            bracketed.contains(r#""evidence":"bracketed","acked_after_ms":0.4,"#),
            "{bracketed}"
        );
    }

    #[test]
    fn a_hostile_path_breaks_neither_format() {
        let path = "/\u{1b}[2J\"\\\n\u{202e}é";
        let json = line(Format::Json, Outcome::Acked, &details(path));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["path"], path);
        let text = line(Format::Text, Outcome::Acked, &details(path));
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(r#"GET /\u{1b}[2J"\\n\u{202e}é 200 131213 B zerocopy acked"#),
            "{text}"
        );
    }
}
