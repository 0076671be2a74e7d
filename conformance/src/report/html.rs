//! The same tables as one page, with each case, and with reasons under the
//! pointer.

use super::{CONTRACT, Cell, Tables, capability, cell, on, symbol};
use crate::results::{CaseResult, Outcome, errno_text};

/// The whole page; it refers to nothing outside of itself.
pub(crate) fn write(tables: &Tables) -> String {
    let mut page = String::from(HEAD);
    page += "<h1>Kernels</h1>\n<ul>\n";
    for origin in &tables.origins {
        page += &format!("<li>{}</li>\n", escape(origin));
    }
    page += "</ul>\n";
    page += &runs(tables);
    page += "<h2>Contract</h2>\n<p>Rest the pointer on a cell for the reason.</p>\n";
    page += &contract(tables);
    page += "<h2>Facilities</h2>\n";
    page += &facilities(tables);
    page += "<h2>Cases</h2>\n";
    page += &cases(tables);
    page += "</html>\n";
    page
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>lastbyte on kernels</title>\n\
    <style>\n\
    :root { color-scheme: light dark }\n\
    body { font: 15px/1.4 system-ui, sans-serif; margin: 2em }\n\
    table { border-collapse: collapse; margin: 1em 0 }\n\
    th, td { border: 1px solid #8886; padding: .2em .6em; text-align: left }\n\
    td[title] { cursor: help }\n\
    .works { background: #2a41 } .part { background: #fb03 } .fails { background: #d227 }\n\
    .none { color: #888 }\n\
    summary { cursor: pointer }\n\
    </style>\n";

fn runs(tables: &Tables) -> String {
    let mut rows = String::new();
    for kernel in &tables.kernels {
        let packages: Vec<_> = kernel
            .packages
            .iter()
            .map(|package| format!("{} {} {}", package.name, package.version, package.sha256))
            .collect();
        let outcome = match (&kernel.run, &kernel.broke) {
            (_, Some(broke)) => {
                let log = kernel.last_lines.join("\n");
                format!("<td class=fails title=\"{}\">{}</td>", escape(&log), escape(broke))
            }
            (Some(run), None) => format!(
                "<td class={}>{} passed, {} of them substitutes; {} failed</td>",
                if run.failed == 0 { "works" } else { "fails" },
                run.passed,
                run.not_applicable,
                run.failed
            ),
            (None, None) => "<td class=none>not run</td>".to_owned(),
        };
        let date = kernel.run.as_ref().map_or("", |run| &*run.date);
        rows += &format!(
            "<tr><th>{}<td title=\"{}\">{}</td><td>{}</td><td>{} in {:.0} s</td>{outcome}</tr>\n",
            escape(&kernel.name),
            escape(&packages.join("\n")),
            escape(&kernel.release),
            escape(date),
            escape(&kernel.accelerator),
            kernel.seconds,
        );
    }
    format!(
        "<table>\n<tr><th>kernel<th>release<th>date<th>run by<th>outcome</tr>\n{rows}</table>\n"
    )
}

/// Two rows of headings: a kernel, and below it each backend.
fn heading(tables: &Tables, first: &str) -> String {
    let backends = tables.backends();
    let mut top = format!("<tr><th rowspan=2>{first}");
    let mut below = String::from("<tr>");
    for kernel in &tables.kernels {
        top += &format!("<th colspan={}>{}", backends.len(), escape(&kernel.name));
        for backend in &backends {
            below += &format!("<th>{}", escape(backend));
        }
    }
    format!("{top}</tr>\n{below}</tr>\n")
}

fn contract(tables: &Tables) -> String {
    let mut rows = String::new();
    for (number, name) in CONTRACT {
        rows += &format!("<tr><th>{number} {name}");
        for kernel in &tables.kernels {
            for backend in tables.backends() {
                rows += &match on(kernel, backend) {
                    Ok(cases) => contract_cell(&cell(cases, number)),
                    Err(why) => format!("<td class=none title=\"{}\">not run</td>", escape(why)),
                };
            }
        }
        rows += "</tr>\n";
    }
    format!("<table>\n{}{rows}</table>\n", heading(tables, "contract"))
}

fn contract_cell(cell: &Cell<'_>) -> String {
    let class = match (cell.failed.is_empty(), cell.substitutes.is_empty(), cell.works) {
        (false, ..) => "fails",
        (true, false, _) => "part",
        (true, true, 0) => "none",
        (true, true, _) => "works",
    };
    let reasons = cell.failed.iter().chain(&cell.substitutes);
    let reasons: Vec<_> = reasons.map(|case| format!("{}: {}", case.name, reason(case))).collect();
    let title = if reasons.is_empty() {
        String::new()
    } else {
        format!(" title=\"{}\"", escape(&reasons.join("\n")))
    };
    format!("<td class={class}{title}>{}</td>", escape(&cell.words()))
}

/// Why a case did not simply pass.
fn reason(case: &CaseResult) -> String {
    let detail = case.detail.as_deref().unwrap_or_default();
    match (&case.lack, case.result) {
        (Some(lack), Outcome::NotApplicable) => {
            let errno =
                lack.errno.map(|errno| format!(" ({}: {})", symbol(errno), errno_text(errno)));
            format!("lacks {}{}; verified instead: {detail}", lack.what, errno.unwrap_or_default())
        }
        _ => detail.to_owned(),
    }
}

fn facilities(tables: &Tables) -> String {
    let names: String =
        tables.kernels.iter().map(|kernel| format!("<th>{}", escape(&kernel.name))).collect();
    let mut rows = String::new();
    for facility in tables.facilities() {
        rows += &format!("<tr><th>{}", escape(facility));
        for kernel in &tables.kernels {
            rows += &match capability(kernel, facility) {
                None => "<td class=none>–</td>".to_owned(),
                Some(found) if found.support == "have" => "<td class=works>have</td>".to_owned(),
                Some(found) => {
                    let tried = found.tried.as_deref().unwrap_or_default();
                    let errno = found.errno.map(errno_text).unwrap_or_default();
                    let effect = found.effect.as_deref().unwrap_or_default();
                    let title = format!("{tried}: {errno}; {effect}");
                    let symbol = found.errno.map(symbol).unwrap_or_default();
                    format!(
                        "<td class=part title=\"{}\">{} {symbol}</td>",
                        escape(&title),
                        escape(&found.support)
                    )
                }
            };
        }
        rows += "</tr>\n";
    }
    format!("<table>\n<tr><th>facility{names}</tr>\n{rows}</table>\n")
}

fn cases(tables: &Tables) -> String {
    let names = tables.cases();
    let mut page = String::new();
    for (number, name) in CONTRACT {
        let of_number: Vec<_> = names.iter().filter(|name| name.starts_with(number)).collect();
        if of_number.is_empty() {
            continue;
        }
        let heading = heading(tables, "case");
        page += &format!("<details><summary>{number} {name}</summary>\n<table>\n{heading}");
        for name in of_number {
            page += &format!("<tr><th>{}", escape(name));
            for kernel in &tables.kernels {
                for backend in tables.backends() {
                    let cases = on(kernel, backend).unwrap_or_default();
                    page += &case_cell(cases.iter().find(|case| case.name == **name));
                }
            }
            page += "</tr>\n";
        }
        page += "</table></details>\n";
    }
    page
}

fn case_cell(case: Option<&CaseResult>) -> String {
    let Some(case) = case else { return "<td class=none>–</td>".to_owned() };
    let (class, word) = match case.result {
        Outcome::Pass => ("works", "works"),
        Outcome::NotApplicable => ("part", "substitute"),
        Outcome::Fail => ("fails", "FAILS"),
    };
    let title = format!("{:.1} s. {}", case.seconds, reason(case));
    format!(
        "<td class={class} title=\"{}\">{word}</td>",
        escape(title.trim_end_matches([' ', '.']))
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
