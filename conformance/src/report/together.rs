//! The table of C13 in Markdown: payload and method by backend and transport,
//! for each kernel, with no cell left empty.

use super::markdown::{plain, table};
use super::{Tables, on, symbol};
use crate::cases::C13_CELLS;
use crate::results::{CaseResult, KernelResult, Outcome};

/// The whole document, and how many of its cells nothing was run for.
pub(crate) fn write(tables: &Tables) -> (String, usize) {
    let mut text = String::from(
        "# All together\n\n\
         Contract C13: each transport with each payload, moved each way, on each backend, with \
         stamps on and every set of stages watched in each cell. Written by `conformance report` \
         from the results of real runs; do not edit.\n\n\
         *works*: as named. A number: something is lacking, and what stands in for it was \
         verified; it is below the table, with the kernel's errno.\n\n",
    );
    for origin in &tables.origins {
        text += &format!("* {}\n", plain(origin));
    }
    let mut empty = 0;
    for kernel in &tables.kernels {
        text += &format!("\n## {} (`{}`)\n\n", kernel.name, kernel.release);
        text += &of_kernel(tables, kernel, &mut empty);
    }
    (text, empty)
}

fn of_kernel(tables: &Tables, kernel: &KernelResult, empty: &mut usize) -> String {
    let contenders = tables.backends();
    let mut notes = Vec::new();
    let rows: Vec<_> = C13_CELLS
        .iter()
        .map(|name| {
            let case = format!("C13-{name}");
            let cells = contenders.iter().map(|contender| {
                let cases = match on(kernel, contender) {
                    Ok(cases) => cases,
                    Err(why) if is_unavailable(kernel, contender) => {
                        return format!("not run: {}", plain(why));
                    }
                    Err(why) => {
                        *empty += 1;
                        return format!("**empty**: {}", plain(why));
                    }
                };
                match cases.iter().find(|found| found.name == case) {
                    Some(found) => cell(found, &mut notes),
                    None => {
                        *empty += 1;
                        "**empty**".to_owned()
                    }
                }
            });
            [(*name).to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        })
        .collect();
    let head: Vec<_> =
        ["payload and way"].iter().chain(&contenders).map(|name| (*name).to_owned()).collect();
    let mut text = table(&head, rows.into_iter());
    if !notes.is_empty() {
        text.push('\n');
    }
    for (n, note) in notes.iter().enumerate() {
        text += &format!("{}. {note}\n", n + 1);
    }
    text
}

/// Whether the kernel said that it cannot have this backend.
fn is_unavailable(kernel: &KernelResult, contender: &str) -> bool {
    kernel.run.as_ref().is_some_and(|run| run.why_unavailable(contender).is_some())
}

/// What is in a cell; what stands in for something is noted once.
fn cell(case: &CaseResult, notes: &mut Vec<String>) -> String {
    let detail = case.detail.as_deref().unwrap_or_default();
    match (case.result, &case.lack) {
        (Outcome::Pass, _) => "works".to_owned(),
        (Outcome::Fail, _) => format!("FAILS: {}", plain(detail)),
        (Outcome::NotApplicable, lack) => {
            let what = lack.as_ref().map_or("something", |lack| &*lack.what);
            let errno = lack.as_ref().and_then(|lack| lack.errno).map(symbol);
            let errno = errno.map(|errno| format!(" ({errno})")).unwrap_or_default();
            let note = format!("Lacks {}{errno}. Verified: {}.", plain(what), plain(detail));
            let known = notes.iter().position(|known| *known == note);
            let n = known.unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
            format!("({})", n + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{BackendResult, Found, Run, Unavailable, sample};

    #[test]
    fn no_cell_is_left_empty_in_silence() {
        let mut run = sample();
        for (n, name) in C13_CELLS.iter().enumerate().skip(1) {
            let like = &run.backends[0].cases[n % 2];
            let case = CaseResult { name: format!("C13-{name}"), ..like.clone() };
            run.backends[0].cases.push(case);
        }
        let mut tables = Tables::default();
        tables.add(Found::Run(run));
        let (text, empty) = write(&tables);
        assert_eq!(empty, 1, "{text}");
        assert!(text.contains("**empty**") && text.contains("| works |"), "{text}");
        assert!(text.contains("1. Lacks zerocopy: &lt;trying it> (EOPNOTSUPP). Verified: copied."));
        assert_eq!(text.matches("Lacks").count(), 1, "said once: {text}");
    }

    #[test]
    fn a_kernel_that_broke_leaves_its_cells_empty() {
        let mut tables = Tables::default();
        tables.add(Found::Run(sample()));
        let (_, empty) = write(&tables);
        let whole = tables.kernels[0].clone();
        let broke = Some("the kernel went down".to_owned());
        tables.kernels.push(KernelResult { name: "9.9".into(), run: None, broke, ..whole });
        let (text, more) = write(&tables);
        assert_eq!(more, empty + C13_CELLS.len() * tables.backends().len(), "{text}");
        assert!(text.contains("**empty**: the kernel went down"), "{text}");
    }

    #[test]
    fn a_backend_that_cannot_be_had_on_one_machine_is_no_gap() {
        let mut run = sample();
        let like = run.backends[0].cases[0].clone();
        let case = |name: &&str| CaseResult { name: format!("C13-{name}"), ..like.clone() };
        let cases: Vec<_> = C13_CELLS.iter().map(case).collect();
        let labels = ["io_uring", "io_uring/user-tls", "io_uring/kernel-tls"];
        run.backends = labels
            .map(|label| BackendResult { backend: label.to_owned(), cases: cases.clone() })
            .into();
        let mut container = Run { kernel: "Linux 9.9".into(), backends: Vec::new(), ..run.clone() };
        container.unavailable =
            vec![Unavailable { backend: "io_uring".into(), why: "refused here".into() }];
        let mut tables = Tables::default();
        for run in [run, container] {
            tables.add(Found::Run(run));
        }
        let (text, empty) = write(&tables);
        assert_eq!(empty, 0, "{text}");
        assert_eq!(tables.backends(), labels);
        let told = text.matches("not run: refused here").count();
        assert_eq!(told, labels.len() * C13_CELLS.len(), "{text}");
    }
}
