//! The cost of knowing: the same server with completions off, with those of the
//! send buffer only, and with acknowledgements.

use super::contest::{self, Ground};
use super::measure::{Contestant, Figures, rows};
use super::options::{self, Output, size_name};
use super::outcome::{self, Outcome, Verdict};
use super::place::Path;
use super::plot::{Chart, Scale, Series};
use super::server::{Body, Stages, Transport};
use super::statistics::Spread;
use super::table::Table;
use serde::{Deserialize, Serialize};

/// What acknowledgements may cost at which size.
const TARGETS: [(u64, f64); 2] = [(4 << 10, 0.08), (128 << 10, 0.03)];

/// What it costs to know when the client had the last byte, in CPU time a
/// request, against not asking.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of responses
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = options::size,
          default_value = "4k,16k,128k,1m")]
    sizes: Vec<u64>,

    /// What responses are made of
    #[arg(long, value_enum, value_name = "BODY", default_value = "file")]
    body: Body,

    /// Transports: plain, user-tls, kernel-tls
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',', default_value = "plain")]
    transport: Vec<Transport>,

    #[command(flatten)]
    load: contest::Loading,

    #[command(flatten)]
    output: Output,
}

/// One server at one size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    path: Path,
    backend: String,
    transport: Transport,
    body: Body,
    stages: Stages,
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
        for &transport in &transports {
            let baseline = contestants.len();
            for stages in [Stages::Off, Stages::Queued, Stages::Acked] {
                let (body, sizes) = (options.body, &options.sizes);
                contestants.push(Contestant {
                    name: format!("{backend}, {transport}, {stages}"),
                    config: contest::config(
                        backend,
                        transport,
                        &ground.credentials,
                        body,
                        stages,
                        sizes,
                    ),
                    baseline: Some(baseline),
                });
            }
        }
    }
    let (about, figures) = ground.compare(&contestants, &options.load, &options.sizes)?;
    let path = ground.path();
    let rows = rows(&contestants, figures, |config, figures| Row {
        path,
        backend: config.backend.clone(),
        transport: config.transport,
        body: config.body,
        stages: config.stages,
        figures,
    });
    options.output.show(&Outcome::new(about, ground.notes, rows))
}

impl Row {
    /// What it costs against completions off.
    fn cost(&self) -> Option<Spread> {
        let Spread { median, lowest, highest } = self.figures.ratio?;
        Some(Spread { median: median - 1.0, lowest: lowest - 1.0, highest: highest - 1.0 })
    }
}

impl outcome::Row for Row {
    const NAME: &'static str = "stamps";

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "size",
            "backend",
            "transport",
            "completions",
            "requests/s",
            "CPU us/request",
            "cost",
            "lowest..highest",
        ]);
        let mut rows: Vec<&Self> = rows.iter().collect();
        rows.sort_by_key(|row| row.figures.size);
        for row in rows {
            let cost = row.cost().filter(|_| row.stages != Stages::Off);
            let in_percent = |part: f64| format!("{:+.1}", part * 100.0);
            table.row([
                size_name(row.figures.size),
                row.backend.clone(),
                format!("{}, {}", row.transport, row.body),
                row.stages.to_string(),
                format!("{:.0}", row.figures.requests_per_second.median),
                format!("{:.2}", row.figures.cpu_us.median),
                cost.map_or(String::new(), |cost| in_percent(cost.median) + " %"),
                cost.map_or(String::new(), |cost| {
                    format!("{}..{}", in_percent(cost.lowest), in_percent(cost.highest))
                }),
            ]);
        }
        table
    }

    fn verdicts(rows: &[Self]) -> Vec<Verdict> {
        let acked = rows.iter().filter(|row| row.stages == Stages::Acked);
        let verdict = |row: &Self| {
            let (_, target) = TARGETS.into_iter().find(|(size, _)| *size == row.figures.size)?;
            let cost = row.cost()?.median;
            Some(Verdict {
                target: format!(
                    "{}, {}, {}: acked costs at most {:.0} %",
                    size_name(row.figures.size),
                    row.backend,
                    row.transport,
                    target * 100.0
                ),
                holds: cost <= target,
                what: format!("{:+.1} %", cost * 100.0),
            })
        };
        acked.filter_map(verdict).collect()
    }

    fn charts(rows: &[Self]) -> Vec<Chart> {
        let asked = rows.iter().filter(|row| row.stages != Stages::Off);
        let point = |row: &Self| {
            let name = format!("{}, {}: {}", row.backend, row.transport, row.stages);
            Some((name, row.figures.size, row.cost()?.times(100.0)))
        };
        vec![Chart {
            title: "What it costs to know".to_owned(),
            x: "bytes of the response".to_owned(),
            y: "CPU time a request, more by %".to_owned(),
            scale: Scale::Linear,
            reference: Some(0.0),
            series: Series::of(asked.filter_map(point)),
        }]
    }
}
