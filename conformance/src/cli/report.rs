//! `report`: results as tables to read; exits with 1 if C13 has an empty cell.

use super::output::{note, tell};
use crate::report::{Tables, html, markdown, together};
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
    /// Where the table of contract C13 goes, as Markdown.
    #[arg(long, default_value = "docs/all-together.md", value_name = "PATH")]
    together: PathBuf,
}

pub(super) fn write(options: &Options) -> Result<ExitCode, String> {
    let mut tables = Tables::default();
    for path in &options.results {
        tables.add(results::read(path)?);
    }
    if tables.backends().is_empty() {
        return Err("in these results no case was run on any kernel".to_owned());
    }
    let outputs = [&options.markdown, &options.html, &options.together];
    if let Some(twice) =
        outputs.iter().find(|path| outputs.iter().filter(|p| p == path).count() > 1)
    {
        return Err(format!("{}: more than one of the three is to go there", twice.display()));
    }
    let put = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    put(&options.markdown, markdown::write(&tables))?;
    put(&options.html, html::write(&tables))?;
    let (together, empty) = together::write(&tables);
    put(&options.together, together)?;
    let [markdown, html, together] = outputs.map(|path| path.display());
    tell(&format!("wrote {markdown}, {html} and {together}"));
    if empty > 0 {
        note(&format!("conformance: {empty} cells of C13 are empty: not every case was run"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
