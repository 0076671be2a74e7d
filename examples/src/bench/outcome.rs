//! What a bench has found, however it is to be shown.

use super::about::About;
use super::plot::Chart;
use super::table::Table;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A row of a bench's table, and how rows of its kind are shown.
pub trait Row: DeserializeOwned + Serialize {
    /// The bench's name.
    const NAME: &'static str;

    /// All of them as a table.
    fn table(rows: &[Self]) -> Table;

    /// The targets that they are held against.
    fn verdicts(rows: &[Self]) -> Vec<Verdict>;

    /// All of them as drawings.
    fn charts(rows: &[Self]) -> Vec<Chart>;

    /// What follows from all of them, in lines for people.
    fn advice(rows: &[Self]) -> Vec<String> {
        let _ = rows;
        Vec::new()
    }
}

/// Whether a target is met.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Verdict {
    /// What has to be.
    pub target: String,
    /// Whether it is.
    pub holds: bool,
    /// What is.
    pub what: String,
}

/// One run's result, or several runs' together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome<R> {
    /// The bench's name.
    pub bench: String,
    /// The runs.
    pub about: Vec<About>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
    /// What was.
    pub rows: Vec<R>,
    /// What has to be, and whether it is.
    pub verdicts: Vec<Verdict>,
    /// What follows.
    pub advice: Vec<String>,
}

impl<R: Row> Outcome<R> {
    /// One run's.
    #[must_use]
    pub fn new(about: About, notes: Vec<String>, rows: Vec<R>) -> Self {
        Self::of(vec![about], notes, rows)
    }

    /// Several runs' together.
    ///
    /// # Errors
    /// If there is none.
    pub fn joined(runs: Vec<Self>) -> Self {
        let (mut about, mut notes, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs {
            about.extend(run.about);
            notes.extend(run.notes);
            rows.extend(run.rows);
        }
        notes.sort();
        notes.dedup();
        Self::of(about, notes, rows)
    }

    fn of(about: Vec<About>, notes: Vec<String>, rows: Vec<R>) -> Self {
        let (verdicts, advice) = (R::verdicts(&rows), R::advice(&rows));
        Self { bench: R::NAME.to_owned(), about, notes, rows, verdicts, advice }
    }

    /// For people, in a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for about in &self.about {
            let About { command, date, kernel, machine, congestion_control, commit, wire } = about;
            let _ =
                writeln!(text, "{command}\n  {date}, {kernel}, {machine}, {congestion_control}");
            let _ = writeln!(text, "  commit {commit}; {wire}");
        }
        text.push_str(&R::table(&self.rows).text());
        self.append_lines(&mut text, "");
        text
    }

    /// For a document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for about in &self.about {
            let About { command, date, kernel, machine, congestion_control, commit, wire } = about;
            let _ = writeln!(
                text,
                "* `{command}`: {date}, {kernel}, {machine}, {congestion_control}, commit {commit}; \
                 {wire}"
            );
        }
        let _ = writeln!(text, "\n{}", R::table(&self.rows).markdown());
        self.append_lines(&mut text, "* ");
        text
    }

    fn append_lines(&self, text: &mut String, bullet: &str) {
        for Verdict { target, holds, what } in &self.verdicts {
            let word = if *holds { "meets the target" } else { "FALLS SHORT" };
            let _ = writeln!(text, "{bullet}{word}: {target}: {what}");
        }
        for line in self.advice.iter().chain(&self.notes) {
            let _ = writeln!(text, "{bullet}{line}");
        }
    }
}
