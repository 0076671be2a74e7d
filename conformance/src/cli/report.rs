//! `report`: results as tables to read.

use crate::report::{Tables, html, markdown};
use crate::results;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Results of `run` or `kernels run`, as JSON; of two on the same kernel the
    /// last counts.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Where the Markdown goes.
    #[arg(long, default_value = "docs/kernels.md", value_name = "PATH")]
    markdown: PathBuf,
    /// Where the page goes: one file, with nothing to fetch.
    #[arg(long, default_value = "docs/kernels.html", value_name = "PATH")]
    html: PathBuf,
}

pub(super) fn write(options: &Options) -> Result<ExitCode, String> {
    let mut tables = Tables::default();
    for path in &options.results {
        tables.add(results::read(path)?);
    }
    let put = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    put(&options.markdown, markdown::write(&tables))?;
    put(&options.html, html::write(&tables))?;
    println!("wrote {} and {}", options.markdown.display(), options.html.display());
    Ok(ExitCode::SUCCESS)
}
