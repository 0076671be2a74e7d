//! What the command lines of the benches have in common.

use super::outcome::{Outcome, Row};
use super::plot;
use lastbyte::{BackendKind, Choice, Report};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use crate::serve::options::duration;

/// How to show what was found.
#[derive(Clone, Debug, clap::Args)]
pub struct Output {
    /// As JSON, which `bench render` makes tables and drawings of
    #[arg(long)]
    pub json: bool,

    /// Draw it, too, into this file; a second drawing gets a 2 before the dot
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl Output {
    /// Looks whether it can be drawn, before minutes are spent on measuring it.
    ///
    /// # Errors
    /// A line for people.
    pub fn check(&self) -> Result<(), String> {
        let Some(path) = &self.svg else { return Ok(()) };
        let is_new = !path.exists();
        // What an earlier run has drawn is not lost, should this one come to nothing.
        let opened = File::options().append(true).create(true).open(path);
        opened.map_err(|error| cannot_write(path, &error))?;
        if is_new {
            fs::remove_file(path).map_err(|error| cannot_write(path, &error))?;
        }
        Ok(())
    }

    /// Shows it on standard output, whatever becomes of the drawing.
    ///
    /// # Errors
    /// A line for people.
    pub fn show<R: Row>(&self, outcome: &Outcome<R>) -> Result<(), String> {
        let text = match self.json {
            true => {
                serde_json::to_string_pretty(outcome).map_err(|error| error.to_string())? + "\n"
            }
            false => outcome.text(),
        };
        let told = tell(&text);
        if let Some(path) = &self.svg {
            draw(outcome, path)?;
        }
        told
    }
}

/// Draws it into `path`, and into more files next to it if it takes several.
///
/// # Errors
/// A line for people.
pub fn draw<R: Row>(outcome: &Outcome<R>, path: &Path) -> Result<(), String> {
    for (n, chart) in R::charts(&outcome.rows).iter().enumerate() {
        let path = match n {
            0 => path.to_owned(),
            n => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{stem}-{}.svg", n + 1))
            }
        };
        let drawing = plot::svg(chart)?;
        fs::write(&path, drawing).map_err(|error| cannot_write(&path, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Prints `text`, if anybody wants to read it.
///
/// # Errors
/// A line for people.
pub fn tell(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// A backend's name, or all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backends {
    /// Every one that works here.
    All,
    /// This one; `auto` takes the best.
    One(Choice),
}

impl std::str::FromStr for Backends {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "all" => Ok(Self::All),
            name => name.parse().map(Self::One).map_err(|error| format!("{error}, all")),
        }
    }
}

/// What this kernel has, as far as the operator lets it be used.
///
/// # Errors
/// A line for people.
pub fn report() -> Result<Report, String> {
    let restrictions = lastbyte_backends::restrictions_from_env().map_err(|e| e.to_string())?;
    Ok(lastbyte_backends::report(&restrictions))
}

/// The names of the backends that were asked for, each once.
///
/// # Errors
/// A line for people, if one cannot be had here.
pub fn backends(wanted: &[Backends], report: &Report) -> Result<Vec<String>, String> {
    let open = |choice| lastbyte::select(choice, lastbyte_backends::BUILT, report);
    let mut names: Vec<String> = Vec::new();
    for wanted in wanted {
        let kinds: Vec<BackendKind> = match wanted {
            Backends::All => {
                let all = lastbyte_backends::BUILT.iter().copied();
                all.filter(|kind| open(Choice::Only(*kind)).is_ok()).collect()
            }
            Backends::One(choice) => vec![open(*choice).map_err(|error| error.to_string())?],
        };
        for kind in kinds {
            if !names.iter().any(|name| name == kind.name()) {
                names.push(kind.name().to_owned());
            }
        }
    }
    Ok(names)
}

/// A number of bytes: `4096`, `128k`, `1m`.
///
/// # Errors
/// What is wrong with it.
pub fn size(text: &str) -> Result<u64, String> {
    /// What a response may have at most: it is held in memory.
    const MOST: u64 = 1 << 30;
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| (1..=MOST).contains(size))
        .ok_or_else(|| "a number of bytes from 1 to 1024m is needed, such as 128k".to_owned())
}

/// The shortest name of a number of bytes.
#[must_use]
pub fn size_name(size: u64) -> String {
    match size {
        size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size % (1 << 10) == 0 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// A part in a hundred, to a tenth.
///
/// # Errors
/// What is wrong with it.
pub fn percent(text: &str) -> Result<f64, String> {
    let wrong = || "a percentage from 0 to 50 is needed, at most one decimal".to_owned();
    let percent: f64 = text.parse().map_err(|_| wrong())?;
    let is_tenth = (percent * 10.0 - (percent * 10.0).round()).abs() < 1e-6;
    ((0.0..=50.0).contains(&percent) && is_tenth).then_some(percent).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("128k"), Ok(128 << 10));
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("77"), Ok(77));
        for wrong in ["", "k", "0", "-1", "2g", "1.5k", "99999999999999999999", "2048m", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size_name(128 << 10), "128 KiB");
        assert_eq!(size_name(1 << 20), "1 MiB");
        assert_eq!(size_name(1500), "1500 B");
    }

    #[test]
    fn percentages_are_small() {
        assert_eq!(percent("0.5"), Ok(0.5));
        for wrong in ["", "-1", "51", "0.25", "nan", "inf"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
