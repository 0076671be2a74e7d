//! `diff`: what is different in another result, and whether it is worse.

use super::output::tell;
use crate::results::{self, CaseResult, KernelResult, Outcome, Run, errno_text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The result to compare with: of `run` or of `kernels run`, as JSON.
    before: PathBuf,
    /// The result to judge.
    after: PathBuf,
}

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Change {
    worse: bool,
    text: String,
}

pub(super) fn tell_difference(options: &Options) -> Result<ExitCode, String> {
    let before = results::read(&options.before)?.kernels();
    let after = results::read(&options.after)?.kernels();
    let changes = changes(&before, &after);
    for change in &changes {
        tell(&format!("{} {}", if change.worse { "WORSE" } else { "     " }, change.text));
    }
    let worse = changes.iter().filter(|change| change.worse).count();
    tell(&format!("{} differences, {worse} for the worse", changes.len()));
    Ok(if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kernels of the same name are compared; and if there is one on each side,
/// those two, whatever they are called.
fn changes(before: &[KernelResult], after: &[KernelResult]) -> Vec<Change> {
    let mut changes = Vec::new();
    if let ([before], [after]) = (before, after) {
        compare_kernels(before, after, &mut changes);
        return changes;
    }
    for kernel in before {
        match after.iter().find(|other| other.name == kernel.name) {
            Some(other) => compare_kernels(kernel, other, &mut changes),
            None => changes.push(worse(format!("{}: not run any more", kernel.name))),
        }
    }
    let names: Vec<_> = before.iter().map(|kernel| &kernel.name).collect();
    let new = after.iter().filter(|kernel| !names.contains(&&kernel.name));
    changes.extend(new.map(|kernel| neutral(format!("{}: new", kernel.name))));
    changes
}

fn worse(text: String) -> Change {
    Change { worse: true, text }
}

fn neutral(text: String) -> Change {
    Change { worse: false, text }
}

fn compare_kernels(before: &KernelResult, after: &KernelResult, changes: &mut Vec<Change>) {
    let name = if before.name == after.name {
        after.name.clone()
    } else {
        format!("{} to {}", before.name, after.name)
    };
    match (&before.broke, &after.broke) {
        (None, Some(why)) => changes.push(worse(format!("{name}: broke: {why}"))),
        (Some(_), None) => changes.push(neutral(format!("{name}: does not break any more"))),
        _ => {}
    }
    match (&before.run, &after.run) {
        (Some(before), Some(after)) => compare_runs(&name, before, after, changes),
        (Some(_), None) => changes.push(worse(format!("{name}: no results any more"))),
        (None, Some(_)) => changes.push(neutral(format!("{name}: has results now"))),
        (None, None) => {}
    }
}

fn compare_runs(name: &str, before: &Run, after: &Run, changes: &mut Vec<Change>) {
    for old in &before.capabilities {
        let new = after.capabilities.iter().find(|new| new.facility == old.facility);
        let Some(new) = new.filter(|new| (&new.support, new.errno) != (&old.support, old.errno))
        else {
            continue;
        };
        let said = |support: &str, errno: Option<i32>| match errno {
            Some(errno) => format!("{support}: {}", errno_text(errno)),
            None => support.to_owned(),
        };
        let text = format!(
            "{name}: facility {}: {} -> {}",
            old.facility,
            said(&old.support, old.errno),
            said(&new.support, new.errno)
        );
        changes.push(Change { worse: old.support == "have", text });
    }
    let (old, new) = (cases(before), cases(after));
    for (key, old) in &old {
        let place = format!("{name}: {} {}", key.0, key.1);
        match new.get(key) {
            None => changes.push(worse(format!("{place}: {} -> not run", word(old)))),
            Some(new) if rank(new.result) != rank(old.result) => changes.push(Change {
                worse: rank(new.result) > rank(old.result),
                text: format!("{place}: {} -> {new}", word(old)),
            }),
            Some(_) => {}
        }
    }
    let more = new.iter().filter(|(key, _)| !old.contains_key(*key));
    changes.extend(more.map(|((backend, case), new)| Change {
        worse: new.result == Outcome::Fail,
        text: format!("{name}: {backend} {case}: new -> {new}"),
    }));
}

fn cases(run: &Run) -> BTreeMap<(&str, &str), &CaseResult> {
    let all = run.backends.iter().flat_map(|backend| {
        backend.cases.iter().map(|case| ((&*backend.backend, &*case.name), case))
    });
    all.collect()
}

/// The higher the worse: what only has a substitute is worse than what works.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pass => 0,
        Outcome::NotApplicable => 1,
        Outcome::Fail => 2,
    }
}

fn word(case: &CaseResult) -> &'static str {
    match case.result {
        Outcome::Pass => "ok",
        Outcome::NotApplicable => "n/a",
        Outcome::Fail => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Found;

    fn one(change: impl FnOnce(&mut Run)) -> Vec<KernelResult> {
        let mut run = results::sample();
        change(&mut run);
        Found::Run(run).kernels()
    }

    fn worse_of(after: &[KernelResult]) -> Vec<bool> {
        changes(&one(|_| {}), after).iter().map(|change| change.worse).collect()
    }

    #[test]
    fn better_and_worse_are_told_apart() {
        let result =
            |n: usize, result| move |run: &mut Run| run.backends[0].cases[n].result = result;
        assert!(worse_of(&one(|_| {})).is_empty());
        assert_eq!(worse_of(&one(result(0, Outcome::Fail))), [true]);
        assert_eq!(worse_of(&one(result(0, Outcome::NotApplicable))), [true]);
        assert_eq!(worse_of(&one(result(1, Outcome::Fail))), [true]);
        assert_eq!(worse_of(&one(result(2, Outcome::Pass))), [false]);
        assert_eq!(worse_of(&one(|run| drop(run.backends[0].cases.pop()))), [true]);
        assert_eq!(worse_of(&one(|run| drop(run.backends.pop()))), [true, true, true]);
    }

    #[test]
    fn a_lost_facility_or_kernel_is_worse() {
        let lost = one(|run| run.capabilities[0].support = "lacks".into());
        assert_eq!(worse_of(&lost), [true]);
        let mut two = one(|_| {});
        two.push(KernelResult { name: "other".into(), ..two[0].clone() });
        let gone = changes(&two, &one(|_| {}));
        assert!(gone.len() == 1 && gone[0].worse && gone[0].text.contains("other"), "{gone:?}");
    }
}
