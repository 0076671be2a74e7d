//! Tables in Markdown.

use super::{CONTRACT, Tables, capability, cell, on, symbol};
use crate::results::KernelResult;
use std::collections::BTreeMap;

/// The whole document.
pub(crate) fn write(tables: &Tables) -> String {
    let mut text = String::from(
        "# Kernels\n\n\
         What the contract comes to on each kernel and backend. Written by `conformance report` \
         from the results of real runs; do not edit. How to read it, and how to make one of your \
         own: [fleet.md](fleet.md).\n\n",
    );
    for origin in &tables.origins {
        text += &format!("* {}\n", plain(origin));
    }
    text += "\n## Runs\n\n";
    text += &runs(tables);
    text += "\n## Contract\n\n\
             *works (n)*: n cases hold as named. *substitute (n)*: n cases found something lacking \
             and verified what stands in for it; each is listed below.\n";
    for backend in tables.backends() {
        text += &format!("\n### {backend}\n\n");
        text += &contract(tables, backend);
    }
    text += "\n## Facilities\n\nFound by trying them, with the kernel's answer.\n\n";
    text += &facilities(tables);
    text += "\n## Substitutes\n\n";
    text += &substitutes(tables);
    text
}

fn runs(tables: &Tables) -> String {
    let rows = tables.kernels.iter().map(|kernel| {
        let counts = match &kernel.run {
            Some(run) => [run.passed, run.not_applicable, run.failed].map(|n| n.to_string()),
            None => ["–", "–", "–"].map(str::to_owned),
        };
        let [passed, substitutes, failed] = counts;
        let note = kernel.broke.as_deref().map(plain).unwrap_or_default();
        vec![
            kernel.name.clone(),
            format!("`{}`", kernel.release),
            version(kernel),
            kernel.run.as_ref().map_or_else(String::new, |run| run.date.clone()),
            format!("{} in {:.0} s", kernel.accelerator, kernel.seconds),
            passed,
            substitutes,
            failed,
            note,
        ]
    });
    let head = [
        "kernel",
        "release",
        "package",
        "date (UTC)",
        "run by",
        "passed",
        "of them substitutes",
        "failed",
        "",
    ];
    table(&head.map(str::to_owned), rows)
}

/// The version of its packages, which one source makes.
fn version(kernel: &KernelResult) -> String {
    kernel.packages.first().map_or_else(String::new, |package| package.version.clone())
}

fn contract(tables: &Tables, backend: &str) -> String {
    let rows = CONTRACT.iter().map(|(number, name)| {
        let cells = tables.kernels.iter().map(|kernel| match on(kernel, backend) {
            Ok(cases) => cell(cases, number).words(),
            Err(why) => format!("not run: {}", plain(why)),
        });
        [format!("{number} {name}")].into_iter().chain(cells).collect()
    });
    table(&head("contract", tables), rows)
}

fn facilities(tables: &Tables) -> String {
    let rows = tables.facilities().into_iter().map(|facility| {
        let cells = tables.kernels.iter().map(|kernel| match capability(kernel, facility) {
            None => "–".to_owned(),
            Some(found) => match found.errno {
                Some(errno) => format!("{} ({})", found.support, symbol(errno)),
                None => found.support.clone(),
            },
        });
        [facility.to_owned()].into_iter().chain(cells).collect()
    });
    table(&head("facility", tables), rows)
}

fn substitutes(tables: &Tables) -> String {
    // Backends and kernels that say the same are said together.
    let mut grouped: BTreeMap<_, BTreeMap<Vec<&str>, Vec<&str>>> = BTreeMap::new();
    for (substitute, kernels) in tables.substitutes() {
        let what = (substitute.case, substitute.lacks, substitute.errno, substitute.verified);
        let backends = grouped.entry(what).or_default().entry(kernels).or_default();
        backends.push(substitute.backend);
    }
    let rows = grouped.into_iter().flat_map(|((case, lacks, errno, verified), places)| {
        places.into_iter().map(move |(kernels, backends)| {
            let errno = errno.map(symbol).unwrap_or_default();
            vec![
                case.to_owned(),
                backends.join(", "),
                if kernels.len() == tables.kernels.len() {
                    "all".to_owned()
                } else {
                    kernels.join(", ")
                },
                plain(lacks),
                errno,
                plain(verified),
            ]
        })
    });
    let head = ["case", "backend", "kernels", "lacks", "errno", "verified instead"];
    table(&head.map(str::to_owned), rows)
}

fn head(first: &str, tables: &Tables) -> Vec<String> {
    let names = tables.kernels.iter().map(|kernel| kernel.name.clone());
    [first.to_owned()].into_iter().chain(names).collect()
}

pub(super) fn table(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows: String = rows.map(|row| line(&row)).collect();
    line(head) + &rule + &rows
}

/// Text that a table cell can hold.
pub(super) fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
