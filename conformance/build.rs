//! Notes which commit is built, so that results can say what they are results of.

use std::process::Command;

/// What the binary is made from, beside this folder.
const SOURCES: [&str; 5] = [".", "../core", "../backends", "../Cargo.toml", "../Cargo.lock"];

fn main() {
    for source in ["src", "../core/src", "../backends/src", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={source}");
    }
    for of_git in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", of_git]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let changed = git(&status).is_some_and(|files| !files.is_empty());
    println!("cargo:rustc-env=LASTBYTE_COMMIT={commit}{}", if changed { "+changes" } else { "" });
}

/// What git says; `None` outside of a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
