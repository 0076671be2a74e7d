//! What came of it, and what it is held against.

use crate::bench::options::size_name;
use crate::bench::outcome::{self, Verdict};
use crate::bench::plot::{Chart, Scale, Series};
use crate::bench::server::{Transfer, Transport};
use crate::bench::statistics::Spread;
use crate::bench::table::Table;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The error that is allowed of each measurement: this part of the time, or that
/// many seconds, whichever is larger.
const ALLOWED_PART: f64 = 0.01;
const ALLOWED_SECONDS: f64 = 0.005;

/// What a client does when it has read the last byte, on which depends when its
/// kernel acknowledges it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Habit {
    /// It keeps the connection open, as browsers do: the kernel may wait for
    /// something to send the acknowledgement with.
    Keeps,
    /// It closes the connection, as curl does: the FIN is that something.
    Closes,
    /// It keeps the connection open, and has asked for acknowledgements at once
    /// (TCP_QUICKACK).
    Quickack,
}

impl fmt::Display for Habit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keeps => "keeps",
            Self::Closes => "closes",
            Self::Quickack => "quickack",
        })
    }
}

/// Transactions of one kind.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// The backend's name.
    pub backend: String,
    /// What turned payloads into wire bytes.
    pub transport: Transport,
    /// Bytes of the response.
    pub size: u64,
    /// Round trip of the link.
    pub rtt_ms: f64,
    /// Packets lost in a hundred, each way.
    pub loss_percent: f64,
    /// What the client did when it had the last byte.
    pub habit: Habit,
    /// Small requests that were made before on the same connection.
    pub warm: u16,
    /// Each of them.
    pub samples: Vec<Sample>,
}

/// One transaction, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// From the request to the kernel's having every byte of the response.
    pub written: f64,
    /// From the request to the acknowledgement of the last byte.
    pub acked: Option<Acked>,
    /// The client's own time.
    pub actual: f64,
}

/// A time that may be known only to lie between two.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Acked {
    /// At the latest.
    pub at: f64,
    /// At the earliest; the same, if the kernel stamped it.
    pub after: f64,
}

impl Sample {
    /// What server and client saw.
    #[must_use]
    pub fn new(transfer: &Transfer, actual: Duration) -> Self {
        let seconds = |at: u64| (at.saturating_sub(transfer.received)) as f64 / 1e9;
        let acked = transfer
            .acked
            .map(|acked| Acked { at: seconds(acked.at), after: seconds(acked.after) });
        Self { written: seconds(transfer.queued), acked, actual: actual.as_secs_f64() }
    }

    /// How wrong the acknowledgement's time is; of a bracket, how far the truth
    /// lies outside.
    fn error(&self) -> Option<f64> {
        let Acked { at, after } = self.acked?;
        Some((at - self.actual).min(0.0) + (after - self.actual).max(0.0))
    }

    fn allowed(&self) -> f64 {
        (self.actual * ALLOWED_PART).max(ALLOWED_SECONDS)
    }

    fn is_right(&self) -> bool {
        self.error().is_some_and(|error| error.abs() <= self.allowed())
    }
}

impl Row {
    fn of(&self, what: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(what))
    }

    fn error(&self) -> Option<Spread> {
        self.of(Sample::error)
    }

    fn right(&self) -> usize {
        self.samples.iter().filter(|sample| sample.is_right()).count()
    }

    /// Whether the median error is as small as it has to be.
    fn holds(&self) -> bool {
        let in_units = |sample: &Sample| Some(sample.error()?.abs() / sample.allowed());
        self.of(in_units).is_some_and(|error| error.median <= 1.0)
    }

    /// What is unusual about the client.
    fn client(&self) -> String {
        let warm = match self.warm {
            0 => String::new(),
            n => format!(", request {}", u32::from(n) + 1),
        };
        format!("{}{warm}", self.habit)
    }

    fn bracket(&self) -> Option<Spread> {
        self.of(|sample| sample.acked.map(|acked| acked.at - acked.after))
    }
}

impl outcome::Row for Row {
    const NAME: &'static str = "txtime";

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "loss",
            "client",
            "backend",
            "transport",
            "size",
            "written (s)",
            "acked (s)",
            "client (s)",
            "error of written",
            "error of acked (ms)",
            "lowest..highest",
            "bracket (ms)",
            "right",
        ]);
        for row in rows {
            let seconds =
                |of: Option<Spread>| of.map_or("-".into(), |s| format!("{:.3}", s.median));
            let written = row.of(|sample| Some(sample.written / sample.actual - 1.0));
            let error = row.error().map(|error| error.times(1e3));
            let bracket = row.bracket().filter(|bracket| bracket.highest > 0.0);
            table.row([
                format!("{} %", row.loss_percent),
                row.client(),
                row.backend.clone(),
                row.transport.to_string(),
                size_name(row.size),
                seconds(row.of(|sample| Some(sample.written))),
                seconds(row.of(|sample| sample.acked.map(|acked| acked.at))),
                seconds(row.of(|sample| Some(sample.actual))),
                written.map_or("-".into(), |error| format!("{:+.1} %", error.median * 100.0)),
                error.map_or("unknown".into(), |error| format!("{:+.2}", error.median)),
                error.map_or("-".into(), |e| format!("{:+.2}..{:+.2}", e.lowest, e.highest)),
                bracket.map_or("-".into(), |width| format!("{:.1}", width.median * 1e3)),
                format!("{} of {}", row.right(), row.samples.len()),
            ]);
        }
        table
    }

    fn verdicts(rows: &[Self]) -> Vec<Verdict> {
        let kind =
            |row: &Self| (row.backend.clone(), row.transport, row.loss_percent, row.client());
        let mut kinds = Vec::new();
        for row in rows.iter().map(kind) {
            if !kinds.contains(&row) {
                kinds.push(row);
            }
        }
        let of_kind = |of: &(String, Transport, f64, String)| {
            let (backend, transport, loss, client) = of;
            let rows: Vec<_> = rows.iter().filter(|row| kind(row) == *of).collect();
            let short = rows.iter().filter(|row| !row.holds()).map(|row| {
                let error = row.error().map_or(f64::NAN, |error| error.median * 1e3);
                format!("{} by {error:+.1} ms", size_name(row.size))
            });
            let short: Vec<_> = short.collect();
            let right: usize = rows.iter().map(|row| row.right()).sum();
            let all: usize = rows.iter().map(|row| row.samples.len()).sum();
            Verdict {
                target: format!(
                    "{backend}, {transport}, {loss} % loss, client {client}: median |acked - actual| at \
                     most 1 % or 5 ms at every size"
                ),
                holds: short.is_empty(),
                what: match short.is_empty() {
                    true => format!("{right} of {all} transactions are that right"),
                    false => format!("off at {}; {right} of {all} are right", short.join(", ")),
                },
            }
        };
        kinds.iter().map(of_kind).collect()
    }

    fn charts(rows: &[Self]) -> Vec<Chart> {
        let mut losses: Vec<f64> = rows.iter().map(|row| row.loss_percent).collect();
        losses.sort_unstable_by(f64::total_cmp);
        losses.dedup();
        let chart = |loss: f64| {
            let line = |name: &str, what: &dyn Fn(&Sample) -> Option<f64>| {
                // Over all backends and transports: they are to agree.
                let mut sizes: Vec<u64> = rows.iter().map(|row| row.size).collect();
                sizes.sort_unstable();
                sizes.dedup();
                let at = |size: u64| {
                    let of_size = rows.iter().filter(|r| r.size == size && r.loss_percent == loss);
                    let samples = of_size.flat_map(|row| row.samples.iter().filter_map(what));
                    Some((size as f64, Spread::of(samples)?))
                };
                Series { name: name.to_owned(), points: sizes.into_iter().filter_map(at).collect() }
            };
            Chart {
                title: format!("Transaction time, {loss} % loss"),
                x: "bytes of the response".to_owned(),
                y: "seconds".to_owned(),
                scale: Scale::Linear,
                reference: None,
                series: vec![
                    line("server, write returned", &|sample| Some(sample.written)),
                    line("server, Acked", &|sample| sample.acked.map(|acked| acked.at)),
                    line("client", &|sample| Some(sample.actual)),
                ],
            }
        };
        losses.into_iter().map(chart).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(after: f64, at: f64, actual: f64) -> Sample {
        Sample { written: 0.0, acked: Some(Acked { at, after }), actual }
    }

    #[test]
    fn an_error_is_what_lies_outside_of_the_bracket() {
        assert_eq!(sample(2.0, 2.0, 2.0).error(), Some(0.0));
        assert_eq!(sample(2.5, 2.5, 2.0).error(), Some(0.5));
        assert_eq!(sample(1.5, 1.5, 2.0).error(), Some(-0.5));
        assert_eq!(sample(1.5, 2.5, 2.0).error(), Some(0.0));
        assert_eq!(sample(2.25, 2.5, 2.0).error(), Some(0.25));
        assert_eq!(Sample { acked: None, ..sample(0.0, 0.0, 1.0) }.error(), None);
    }

    #[test]
    fn a_hundredth_or_five_milliseconds() {
        assert!(sample(2.019, 2.019, 2.0).is_right());
        assert!(!sample(2.021, 2.021, 2.0).is_right());
        assert!(sample(0.104, 0.104, 0.1).is_right());
        assert!(!sample(0.106, 0.106, 0.1).is_right());
        assert!(
            !Sample { acked: None, ..sample(0.0, 0.0, 1.0) }.is_right(),
            "unknown is not right"
        );
    }
}
