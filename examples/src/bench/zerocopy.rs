//! What zero copy brings, and from which size on.

use super::contest::{self, Ground};
use super::measure::{Contestant, Figures, rows};
use super::options::{self, Output, size_name};
use super::outcome::{self, Outcome, Verdict};
use super::place::Path;
use super::plot::{Chart, Scale, Series};
use super::server::{Body, Config, Stages, Transport};
use super::statistics::{crossover, threshold};
use super::table::Table;
use super::transports;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What zero copy may cost where the kernel copies after all.
const HARM: f64 = 0.03;

/// Copied sends against zero copy and sendfile, by the CPU time a request, and
/// the size from which zero copy pays here.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of responses
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = options::size,
          default_value = "1k,4k,16k,64k,256k,1m,4m,16m")]
    sizes: Vec<u64>,

    /// Transports: plain, user-tls
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "plain,user-tls"
    )]
    transport: Vec<Transport>,

    /// Shortest response that zero copy is tried for, instead of every one: to
    /// try a threshold out
    #[arg(long, value_name = "SIZE", value_parser = options::size)]
    threshold: Option<u64>,

    #[command(flatten)]
    load: contest::Loading,

    #[command(flatten)]
    output: Output,
}

/// How the bytes go.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    Copy,
    ZeroCopy,
    Sendfile,
}

impl Way {
    fn of(config: &Config) -> Self {
        match (config.body, config.threshold) {
            (Body::File, _) => Self::Sendfile,
            (Body::Memory, Some(u64::MAX)) => Self::Copy,
            (Body::Memory, _) => Self::ZeroCopy,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero copy",
            Self::Sendfile => "sendfile",
        })
    }
}

/// One way at one size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    path: Path,
    kernel: String,
    backend: String,
    transport: Transport,
    way: Way,
    #[serde(flatten)]
    figures: Figures,
}

/// Measures as the options say.
///
/// # Errors
/// A line for people.
pub fn run(options: &Options) -> Result<(), String> {
    options.output.check()?;
    let mut ground = Ground::lay(&options.load, &options.transport)?;
    let mut contestants: Vec<Contestant> = Vec::new();
    for backend in &ground.backends.clone() {
        let transports = ground.transports_of(backend);
        if !transports::lends(backend, &ground.report) {
            ground.notes.push(format!("{backend}: has no zero copy and no sendfile here"));
            continue;
        }
        for &transport in &transports {
            // The kernel refuses zero copy of what it is to encrypt.
            let ways: &[Way] = match transport {
                Transport::KernelTls => &[Way::Copy, Way::Sendfile],
                _ => &[Way::Copy, Way::ZeroCopy, Way::Sendfile],
            };
            let baseline = contestants.len();
            for &way in ways {
                let body = if way == Way::Sendfile { Body::File } else { Body::Memory };
                let sizes = &options.sizes;
                let config = contest::config(
                    backend,
                    transport,
                    &ground.credentials,
                    body,
                    Stages::Acked,
                    sizes,
                );
                let least =
                    if way == Way::ZeroCopy { options.threshold.unwrap_or(1) } else { u64::MAX };
                contestants.push(Contestant {
                    name: format!("{backend}, {transport}, {way}"),
                    config: Config { threshold: Some(least), ..config },
                    baseline: Some(baseline),
                });
            }
        }
    }
    let (about, figures) = ground.compare(&contestants, &options.load, &options.sizes)?;
    let (path, kernel) = (ground.path(), about.kernel.clone());
    let rows = rows(&contestants, figures, |config, figures| Row {
        path,
        kernel: kernel.clone(),
        backend: config.backend.clone(),
        transport: config.transport,
        way: Way::of(config),
        figures,
    });
    options.output.show(&Outcome::new(about, ground.notes, rows))
}

/// Rows of one path, kernel, backend and transport, by size.
struct Line<'r> {
    name: String,
    first: &'r Row,
    rows: Vec<&'r Row>,
}

/// All that went by `way`.
fn lines(rows: &[Row], way: Way) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in rows.iter().filter(|row| row.way == way) {
        let name = format!("{}, {}, {}", row.path, row.backend, row.transport);
        let known = |line: &&mut Line<'_>| line.name == name && line.first.kernel == row.kernel;
        match lines.iter_mut().find(known) {
            Some(line) => line.rows.push(row),
            None => lines.push(Line { name, first: row, rows: vec![row] }),
        }
    }
    for line in &mut lines {
        line.rows.sort_by_key(|row| row.figures.size);
    }
    lines
}

impl Line<'_> {
    /// Whether the path takes memory without copying it.
    fn is_real(&self) -> bool {
        self.rows.iter().any(|row| row.figures.lent > 0.5 && row.figures.refused < 0.5)
    }

    fn points(&self) -> Vec<(u64, f64)> {
        let point = |row: &&Row| Some((row.figures.size, row.figures.ratio?.median));
        self.rows.iter().filter_map(point).collect()
    }
}

impl outcome::Row for Row {
    const NAME: &'static str = "zerocopy";

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "path",
            "backend",
            "transport",
            "size",
            "way",
            "requests/s",
            "MB/s",
            "CPU us/request",
            "to copy",
            "lowest..highest",
            "copied",
            "refused",
        ]);
        let mut rows: Vec<&Self> = rows.iter().collect();
        rows.sort_by_key(|row| {
            (
                row.kernel.clone(),
                row.path.to_string(),
                row.backend.clone(),
                row.transport,
                row.figures.size,
            )
        });
        for row in rows {
            let figures = &row.figures;
            let ratio = figures.ratio.filter(|_| row.way != Way::Copy);
            table.row([
                row.path.to_string(),
                row.backend.clone(),
                row.transport.to_string(),
                size_name(figures.size),
                row.way.to_string(),
                format!("{:.0}", figures.requests_per_second.median),
                format!("{:.1}", figures.megabytes_per_second()),
                format!("{:.2}", figures.cpu_us.median),
                ratio.map_or(String::new(), |ratio| format!("{:.3}", ratio.median)),
                ratio.map_or(String::new(), |r| format!("{:.3}..{:.3}", r.lowest, r.highest)),
                format!("{:.2}", figures.copied),
                format!("{:.0} %", figures.refused * 100.0),
            ]);
        }
        table
    }

    fn verdicts(rows: &[Self]) -> Vec<Verdict> {
        let copying = lines(rows, Way::ZeroCopy).into_iter().filter(|line| !line.is_real());
        let verdict = |line: Line<'_>| {
            let off = |(size, ratio): &(u64, f64)| {
                (*ratio > 1.0 + HARM)
                    .then(|| format!("{} by {:+.1} %", size_name(*size), (ratio - 1.0) * 100.0))
            };
            let points = line.points();
            let short: Vec<_> = points.iter().filter_map(off).collect();
            let most = points.iter().map(|(_, ratio)| ratio - 1.0).fold(f64::MIN, f64::max);
            Verdict {
                target: format!("{}: zero copy harms by at most 3 % at any size", line.name),
                holds: short.is_empty(),
                what: match short.is_empty() {
                    true => format!("at most {:+.1} %", most * 100.0),
                    false => format!("off at {}", short.join(", ")),
                },
            }
        };
        copying.map(verdict).collect()
    }

    fn charts(rows: &[Self]) -> Vec<Chart> {
        let mut series = Vec::new();
        for way in [Way::ZeroCopy, Way::Sendfile] {
            series.extend(lines(rows, way).iter().map(|line| {
                Series {
                    name: format!("{way}: {}", line.name),
                    points: line
                        .rows
                        .iter()
                        .filter_map(|row| Some((row.figures.size as f64, row.figures.ratio?)))
                        .collect(),
                }
            }));
        }
        vec![Chart {
            title: "CPU time a request, against copying".to_owned(),
            x: "bytes of the response".to_owned(),
            y: "ratio (below 1 is less)".to_owned(),
            scale: Scale::Linear,
            reference: Some(1.0),
            series,
        }]
    }

    fn advice(rows: &[Self]) -> Vec<String> {
        let advise = |line: &Line<'_>| match (line.is_real(), crossover(&line.points())) {
            (false, _) => format!(
                "{}: this path copies, so zero copy cannot pay; the latch sees to it that no \
                 threshold is needed",
                line.name
            ),
            (true, None) => format!(
                "{}: zero copy does not pay at the sizes tried; switch it off with \
                 LASTBYTE_DISABLE=zerocopy",
                line.name
            ),
            (true, Some(size)) => format!(
                "{}: zero copy pays from {size} bytes on; serve --threshold {} or \
                 LASTBYTE_ZERO_COPY_THRESHOLD={}",
                line.name,
                threshold(size),
                threshold(size)
            ),
        };
        lines(rows, Way::ZeroCopy).iter().map(advise).collect()
    }
}
