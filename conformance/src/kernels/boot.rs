//! One kernel, from its files to what came of it.

use super::channel::{Ended, Heard, Message};
use super::console;
use super::initramfs::{self, Job};
use super::machine::{Accelerator, Machine, Network, Stop};
use super::modules::{self, Selection};
use super::unpack::Unpacked;
use crate::cli::output::Event;
use crate::results::{BackendResult, CaseResult, Run, now};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How much longer QEMU may take than the guest, which has its own clock and
/// its own limit, and says more when it is the one to notice.
const GRACE: Duration = Duration::from_secs(30);

/// A kernel that can be started.
#[derive(Debug)]
pub(super) struct Prepared {
    folder: TempDir,
    image: PathBuf,
    /// Modules that are needed and that it lacks.
    pub(super) missing: Vec<String>,
    _unpacked: Unpacked,
    limit: Duration,
}

/// How to start it.
#[derive(Clone, Debug)]
pub(super) struct Hardware {
    pub(super) accelerator: Accelerator,
    pub(super) cpus: usize,
    pub(super) network: Network,
    /// Instructions of the guest for each nanosecond of its clock, as a power of
    /// two; with it, CPU time is a count of instructions.
    pub(super) icount: Option<u8>,
}

/// Something to see while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'s> {
    /// A case that ended.
    Case(&'s str, &'s CaseResult),
    /// Something that was printed.
    Printed(&'s str),
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Booted {
    pub(super) release: Option<String>,
    pub(super) seconds: f64,
    pub(super) run: Option<Run>,
    pub(super) broke: Option<String>,
    pub(super) last_lines: Vec<String>,
    /// What another program printed.
    pub(super) output: Vec<String>,
    /// How the suite, or the other program, ended.
    pub(super) ended: Option<Ended>,
    /// Frames that were damaged on the way: what they said is missing.
    pub(super) damaged: usize,
}

impl Prepared {
    /// Puts `program`, a job and modules into a root for the kernel; the job may
    /// be for an`other` program.
    pub(super) fn new(
        unpacked: Unpacked,
        program: &[u8],
        other: Option<&[u8]>,
        arguments: Vec<String>,
        limit: Duration,
    ) -> Result<Self, String> {
        let Selection { modules, missing } = match &unpacked.modules {
            Some(folder) => modules::select(folder).map_err(|error| error.to_string())?,
            None => Selection::default(),
        };
        let names = modules.iter().map(|module| module.name.clone()).collect();
        let job = Job { modules: names, other: other.is_some(), arguments, limit };
        let folder = tempfile::Builder::new()
            .prefix("lastbyte-guest-")
            .tempdir()
            .map_err(|error| format!("no folder for a guest: {error}"))?;
        let path = folder.path().join("initramfs");
        fs::write(&path, initramfs::build(program, other, &modules, &job))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let image = unpacked.image.clone();
        Ok(Self { folder, image, missing, _unpacked: unpacked, limit })
    }

    /// Where the kernel's log is when it has run.
    pub(super) fn console(&self) -> PathBuf {
        self.folder.path().join("console")
    }

    /// Starts it and waits for its end, or until everything is `interrupted`;
    /// `show` is told what there is to see.
    pub(super) fn boot(
        &self,
        hardware: &Hardware,
        interrupted: &AtomicBool,
        show: &dyn Fn(Shown<'_>),
    ) -> Booted {
        let (initramfs, console) = (self.folder.path().join("initramfs"), self.console());
        let machine = Machine {
            image: &self.image,
            initramfs: &initramfs,
            console: &console,
            accelerator: hardware.accelerator,
            cpus: hardware.cpus,
            network: &hardware.network,
            icount: hardware.icount,
            limit: self.limit + GRACE,
            interrupted,
        };
        let began = Instant::now();
        let mut transcript = Transcript::default();
        let stop = machine.run(|heard| transcript.take(heard, show));
        transcript.conclude(stop, began.elapsed(), &console)
    }
}

/// What was heard of a guest.
#[derive(Debug, Default)]
struct Transcript {
    release: Option<String>,
    under_way: BTreeSet<(String, String)>,
    ended: Vec<(String, CaseResult)>,
    run: Option<Run>,
    printed: Vec<String>,
    output: Vec<String>,
    over: Option<Ended>,
    damaged: usize,
}

impl Transcript {
    fn take(&mut self, heard: Heard, show: &dyn Fn(Shown<'_>)) {
        let message = match heard {
            Heard::Message(message) => *message,
            Heard::Damaged => {
                self.damaged += 1;
                return;
            }
            Heard::Other => return,
        };
        match message {
            Message::Booted { release, failed } => {
                self.release = Some(release);
                for why in failed {
                    self.print(format!("module {why}"), show);
                }
            }
            Message::Alive => {}
            Message::Suite(Event::Begin { backend, name }) => {
                self.under_way.insert((backend, name));
            }
            Message::Suite(Event::End { backend, case }) => {
                show(Shown::Case(&backend, &case));
                self.under_way.remove(&(backend.clone(), case.name.clone()));
                self.ended.push((backend, case));
            }
            Message::Suite(Event::Unavailable(_)) => {}
            Message::Suite(Event::Done { run }) => self.run = Some(*run),
            Message::Printed { line } => self.print(line, show),
            Message::Output { line } => self.output.push(line),
            Message::Over { why } => self.over = Some(why),
        }
    }

    fn print(&mut self, line: String, show: &dyn Fn(Shown<'_>)) {
        show(Shown::Printed(&line));
        self.printed.push(line);
    }

    fn conclude(mut self, stop: Stop, took: Duration, console: &Path) -> Booted {
        let broke = self.broke(&stop);
        let run = self.run.take().or_else(|| self.part());
        let last_lines = match broke {
            Some(_) => console::last_lines(console),
            None => Vec::new(),
        };
        Booted {
            release: self.release,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            run,
            broke,
            last_lines,
            output: self.output,
            ended: self.over,
            damaged: self.damaged,
        }
    }

    /// Why this is not the whole of a run; `None` if it is.
    fn broke(&self, stop: &Stop) -> Option<String> {
        let seconds = |time: &Duration| time.as_secs();
        let mut text = match (stop, &self.over) {
            (Stop::Refused(why), _) => return Some(why.clone()),
            (Stop::Interrupted, _) => "interrupted".to_owned(),
            (_, Some(Ended::Exited(0 | 1))) if self.run.is_some() => return None,
            (_, Some(Ended::Exited(0 | 1))) => "its result was damaged on the way".to_owned(),
            (_, Some(Ended::Exited(code))) => {
                let why = self.printed.last().map_or("", String::as_str);
                format!("the suite ended with exit code {code}: {why}")
            }
            (_, Some(Ended::Signalled(signal))) => {
                format!("the suite was ended by signal {signal}")
            }
            (_, Some(Ended::OutOfTime)) => "the suite was stopped at the deadline".to_owned(),
            (_, Some(Ended::NotStarted(why))) => format!("the suite did not start: {why}"),
            (Stop::Late(time), None) => format!("not done after {} s, and killed", seconds(time)),
            (Stop::Silent(time), None) if self.release.is_none() => {
                format!("did not boot within {} s", seconds(time))
            }
            (Stop::Silent(time), None) => format!("hangs: not a word for {} s", seconds(time)),
            (Stop::Off, None) if self.release.is_none() => "the kernel did not boot".to_owned(),
            (Stop::Off, None) => "the kernel went down".to_owned(),
        };
        if !self.under_way.is_empty() {
            let cases: Vec<_> =
                self.under_way.iter().map(|(b, name)| format!("{b} {name}")).collect();
            text += &format!("; under way: {}", cases.join(", "));
        }
        if self.damaged > 0 {
            text += &format!("; {} damaged lines", self.damaged);
        }
        Some(text)
    }

    /// What ended before it broke.
    fn part(&mut self) -> Option<Run> {
        if self.ended.is_empty() {
            return None;
        }
        let release = self.release.as_deref().unwrap_or("?");
        let mut run = Run {
            kernel: format!("Linux {release}"),
            machine: String::new(),
            date: now(),
            commit: crate::results::COMMIT.to_owned(),
            restrictions: Vec::new(),
            capabilities: Vec::new(),
            passed: 0,
            failed: 0,
            not_applicable: 0,
            backends: Vec::new(),
            unavailable: Vec::new(),
        };
        let mut backends: Vec<BackendResult> = Vec::new();
        for (backend, case) in self.ended.drain(..) {
            match backends.iter_mut().find(|known| known.backend == backend) {
                Some(known) => known.cases.push(case),
                None => backends.push(BackendResult { backend, cases: vec![case] }),
            }
        }
        backends.into_iter().for_each(|backend| run.add(backend));
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::{frame, hear};
    use super::*;

    #[test]
    fn what_is_missing_is_counted() {
        let mut transcript = Transcript::default();
        let output = frame(&Message::Output { line: "12 ms".into() });
        for line in [output.replace("12", "1"), frame(&Message::Over { why: Ended::Exited(0) })] {
            transcript.take(hear(&line), &|_| {});
        }
        let booted = transcript.conclude(Stop::Off, Duration::ZERO, Path::new("none"));
        assert_eq!((booted.damaged, booted.output.len()), (1, 0));
        assert_eq!(booted.ended, Some(Ended::Exited(0)));
    }
}
