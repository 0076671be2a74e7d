//! Results of several runs of one bench as one table, and as drawings.

use super::options::{draw, tell};
use super::outcome::{Outcome, Row};
use super::{stamps, tls, txtime, zerocopy};
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;

/// Make a table, and drawings, of what --json wrote: several runs of one bench
/// are joined.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Results
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The table as Markdown
    #[arg(long)]
    markdown: bool,

    /// Draw it into this file; more drawings get a number before the dot
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Shows them.
///
/// # Errors
/// A line for people.
pub fn run(options: &Options) -> Result<(), String> {
    /// What every result has.
    #[derive(Deserialize)]
    struct Any {
        bench: String,
    }
    let mut texts = Vec::new();
    let mut bench = None;
    for path in &options.files {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let any: Any = serde_json::from_str(&text)
            .map_err(|error| format!("{}: no result of a bench: {error}", path.display()))?;
        match &bench {
            Some(known) if *known != any.bench => {
                return Err(format!("{}: of {}, not of {known}", path.display(), any.bench));
            }
            _ => bench = Some(any.bench),
        }
        texts.push(text);
    }
    match bench.as_deref() {
        Some(txtime::Row::NAME) => show::<txtime::Row>(options, &texts),
        Some(stamps::Row::NAME) => show::<stamps::Row>(options, &texts),
        Some(zerocopy::Row::NAME) => show::<zerocopy::Row>(options, &texts),
        Some(tls::Row::NAME) => show::<tls::Row>(options, &texts),
        other => Err(format!("there is no bench '{}'", other.unwrap_or_default())),
    }
}

fn show<R: Row>(options: &Options, texts: &[String]) -> Result<(), String> {
    let mut runs = Vec::new();
    for (text, path) in texts.iter().zip(&options.files) {
        let run: Outcome<R> =
            serde_json::from_str(text).map_err(|error| format!("{}: {error}", path.display()))?;
        runs.push(run);
    }
    let outcome = Outcome::joined(runs);
    let told = tell(&if options.markdown { outcome.markdown() } else { outcome.text() });
    if let Some(path) = &options.svg {
        draw(&outcome, path)?;
    }
    told
}
