//! The command line.

use super::log::Format;
use clap::{Parser, ValueEnum};
use lastbyte::Choice;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

/// Serves a directory over HTTP/1.1, and logs when each client had the last byte.
///
/// Besides the files of the directory there are bodies made up on demand,
/// /N, /Nkb and /Nmb (/128kb, for example; a file of that name comes first), and
/// counters for Prometheus at /metrics.
///
/// On SIGTERM and SIGINT the server stops accepting, lets responses finish, and
/// exits when their clients have acknowledged them. A second signal ends it at
/// once.
#[derive(Clone, Debug, Parser)]
#[command(name = "serve", version, after_help = AFTER, max_term_width = 100)]
pub struct Options {
    /// Address and port to listen on; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Directory to serve; links that lead out of it are refused
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub dir: PathBuf,

    /// How to talk to the kernel: auto, io_uring, epoll or fallback [default: auto]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<Choice>,

    /// Number of threads, each with its own connections [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<u16>>,

    /// A line on standard output for each response; whoever reads them slowly
    /// delays nothing but lines, and loses those beyond 4 MiB, which are counted
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log: Format,

    /// The same as --log none
    #[arg(long, conflicts_with = "log")]
    pub no_log: bool,

    /// Close a connection that asks for nothing for this long, and reset one
    /// that acknowledges nothing of what it was sent
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub idle_timeout: Duration,

    /// Time in which a request has to arrive from its first byte to its last
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub request_timeout: Duration,

    /// Time that clients have to acknowledge everything when the server ends, and
    /// the log's reader to read it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// Connections at once, over all threads; others wait until one of them ends
    /// [default: 50000, or what the limit on open files allows]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<NonZero<u32>>,

    /// Shortest response in bytes that zero copy is tried for; bench zerocopy
    /// finds one [default: as the library has it]
    #[arg(long, value_name = "BYTES", visible_alias = "threshold")]
    pub zero_copy_threshold: Option<u64>,

    /// Serve over TLS, with the certificate chain in this PEM file; several of
    /// them, each with its key, are for clients that ask for one of their names,
    /// and the first for all others
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Vec<PathBuf>,

    /// The private key of --tls-cert, in a PEM file; several in the same order
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Vec<PathBuf>,

    /// Serve only clients whose certificate is signed by one in this PEM file
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Serve over TLS without certificate files: self-signed makes a key and a
    /// certificate for this run, for trying out
    #[arg(long, value_enum, value_name = "CERTIFICATE", conflicts_with_all = ["tls_cert", "tls_key"])]
    pub tls: Option<Certificate>,

    /// Whether the kernel seals and opens TLS records: require fails without,
    /// and offers only what the kernel can do; prefer goes on in user space
    /// [default: never]
    #[arg(long, value_enum, value_name = "WISH")]
    pub ktls: Option<KernelTls>,

    /// Promise that files do not change while they are being sent, so that a
    /// network card that has TLS may encrypt them where they are
    #[arg(long, requires = "ktls")]
    pub ktls_unchanging_files: bool,

    /// Whether to ask when responses were acknowledged; off is for measuring
    /// what asking costs
    #[arg(long, value_enum, value_name = "SWITCH", default_value = "on")]
    pub stamps: Switch,
}

/// A certificate that comes from no file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Certificate {
    /// Made for this run.
    SelfSigned,
}

/// How much kernel TLS is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KernelTls {
    /// Fail without.
    Require,
    /// Use it where it can be had.
    Prefer,
    /// Stay in user space.
    Never,
}

/// On or off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

const AFTER: &str = "\
TIME is a number of seconds, or has a unit: 500ms, 10s, 2m.

Environment:
  LASTBYTE_BACKEND  the backend, where --backend does not name one
  LASTBYTE_ZERO_COPY_THRESHOLD
                    the threshold, where --zero-copy-threshold does not name one
  LASTBYTE_DISABLE  kernel facilities not to use, for example zerocopy,timestamps

Exit code: 0 after a complete drain, 1 if the drain timed out or the server
failed, 2 if it could not start, 128 + n if signal n came twice.";

/// Connections at once, where nobody says how many.
const MAX_CONNECTIONS: u32 = 50_000;

impl Options {
    /// Connections at once, over all threads.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections.map_or(MAX_CONNECTIONS, NonZero::get)
    }

    /// The options of this process's command line.
    ///
    /// # Errors
    /// If they are not understood, or if what they ask for is only help.
    pub fn from_command_line() -> Result<Self, clap::Error> {
        Self::try_parse().map(Self::settled)
    }

    /// Whether connections speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some() || !self.tls_cert.is_empty()
    }

    fn settled(mut self) -> Self {
        if self.no_log {
            self.log = Format::None;
        }
        self
    }
}

/// What is wrong, in one line.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see --help")
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 1e9;
    let unit_at = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is no unit of time (ms, s, m, h)")),
    };
    let seconds = number.parse::<f64>().map_or(0.0, |number| number * unit);
    if !(seconds > 0.0 && seconds < LONGEST) {
        return Err("a number above 0 is needed".to_owned());
    }
    let time = Duration::from_secs_f64(seconds);
    if time.is_zero() {
        return Err("that is less than a nanosecond, which is no time at all".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let arguments = ["serve"].iter().chain(arguments);
        Options::try_parse_from(arguments).map(Options::settled).map_err(|e| one_line(&e))
    }

    #[test]
    fn there_are_defaults() {
        let options = options(&[]).unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((options.log, options.stamps), (Format::Text, Switch::On));
        assert!(options.backend.is_none());
    }

    #[test]
    fn a_wrong_flag_gives_one_clear_line() {
        for (arguments, part) in [
            (&["--foo"][..], "unexpected argument '--foo' found"),
            (&["--listen", "x"], "invalid value 'x' for '--listen <ADDRESS>'"),
            (&["--backend", "x"], "there is no backend 'x'"),
            (&["--threads", "0"], "'0' for '--threads <N>'"),
            (&["--log", "xml"], "[possible values: text, json, none]"),
            (&["--log", "json", "--no-log"], "cannot be used with"),
            (&["--idle-timeout", "5y"], "'y' is no unit of time"),
            (&["--idle-timeout=-5"], "a number above 0 is needed"),
            (&["--idle-timeout", "0"], "a number above 0 is needed"),
            (&["--idle-timeout", "0.0000000001s"], "less than a nanosecond"),
            (&["--listen"], "a value is required"),
            (&["--tls-cert", "x"], "--tls-key <FILE>"),
            (&["--tls-key", "x"], "--tls-cert <FILE>"),
            (&["--tls", "x"], "[possible values: self-signed]"),
            (&["--ktls", "x"], "[possible values: require, prefer, never]"),
            (&["--ktls-unchanging-files"], "--ktls <WISH>"),
            (&["--tls", "self-signed", "--tls-cert", "x", "--tls-key", "y"], "cannot be used with"),
        ] {
            let line = options(arguments).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0.000001ms"), Ok(Duration::from_nanos(1)));
        assert!(duration("nan").is_err() && duration("1e99").is_err() && duration("").is_err());
        assert_eq!(options(&["--no-log"]).unwrap().log, Format::None);
    }
}
