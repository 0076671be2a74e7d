//! What kernel TLS brings against TLS in user space.

use super::contest::{self, Ground};
use super::measure::{Contestant, Figures, rows};
use super::options::{self, Output, size_name};
use super::outcome::{self, Outcome, Verdict};
use super::place::Path;
use super::plot::{Chart, Scale, Series};
use super::server::{Body, Stages, Transport};
use super::table::Table;
use serde::{Deserialize, Serialize};

/// TLS in user space against TLS in the kernel, for memory and for files, by the
/// CPU time for each MB. Plain TCP is beside it, to see what encryption costs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of responses
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = options::size,
          default_value = "16k,128k,1m,16m")]
    sizes: Vec<u64>,

    /// Transports: plain, user-tls, kernel-tls [default: those this kernel has]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    transport: Vec<Transport>,

    /// What responses are made of
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "memory,file"
    )]
    body: Vec<Body>,

    #[command(flatten)]
    load: contest::Loading,

    #[command(flatten)]
    output: Output,
}

/// One server at one size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    path: Path,
    kernel: String,
    backend: String,
    transport: Transport,
    body: Body,
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
        for &body in &options.body {
            let first = contestants.len();
            let baseline = transports.iter().position(|t| *t == Transport::UserTls);
            for &transport in &transports {
                let (stages, sizes) = (Stages::Acked, &options.sizes);
                contestants.push(Contestant {
                    name: format!("{backend}, {transport}, {body}"),
                    config: contest::config(
                        backend,
                        transport,
                        &ground.credentials,
                        body,
                        stages,
                        sizes,
                    ),
                    baseline: baseline.map(|n| first + n),
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
        body: config.body,
        figures,
    });
    options.output.show(&Outcome::new(about, ground.notes, rows))
}

impl outcome::Row for Row {
    const NAME: &'static str = "tls";

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "backend",
            "body",
            "size",
            "transport",
            "requests/s",
            "MB/s",
            "CPU ms/MB",
            "to user TLS",
            "lowest..highest",
            "copied",
        ]);
        let mut rows: Vec<&Self> = rows.iter().collect();
        rows.sort_by_key(|row| {
            (
                row.kernel.clone(),
                row.backend.clone(),
                row.body.to_string(),
                row.figures.size,
                row.transport,
            )
        });
        for row in rows {
            let figures = &row.figures;
            let ratio = figures.ratio.filter(|_| row.transport != Transport::UserTls);
            table.row([
                row.backend.clone(),
                row.body.to_string(),
                size_name(figures.size),
                row.transport.to_string(),
                format!("{:.0}", figures.requests_per_second.median),
                format!("{:.1}", figures.megabytes_per_second()),
                format!("{:.3}", figures.cpu_ms_per_megabyte().median),
                ratio.map_or(String::new(), |ratio| format!("{:.3}", ratio.median)),
                ratio.map_or(String::new(), |r| format!("{:.3}..{:.3}", r.lowest, r.highest)),
                format!("{:.2}", figures.copied),
            ]);
        }
        table
    }

    fn verdicts(_: &[Self]) -> Vec<Verdict> {
        Vec::new()
    }

    fn charts(rows: &[Self]) -> Vec<Chart> {
        let point = |row: &Self| {
            let name = format!("{}, {}, {}", row.backend, row.transport, row.body);
            (name, row.figures.size, row.figures.cpu_ms_per_megabyte())
        };
        vec![Chart {
            title: "CPU time for each MB".to_owned(),
            x: "bytes of the response".to_owned(),
            y: "ms".to_owned(),
            scale: Scale::Logarithmic,
            reference: None,
            series: Series::of(rows.iter().map(point)),
        }]
    }
}
