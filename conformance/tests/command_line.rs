//! What the runner says to what it cannot do, and to those who do not listen.
#![cfg(target_os = "linux")]

use std::fs::{self, File, OpenOptions};
use std::process::{Command, Output, Stdio};

fn runner(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    runner(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is refused is refused with exit code 2 and one line, which has `words`.
fn assert_refused(arguments: &[&str], words: &[&str]) {
    let output = output(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    assert!(said.starts_with("conformance: "), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: '{word}' is not in: {said}");
    }
}

#[test]
fn kernels_are_not_booted_for_what_no_guest_would_run() {
    assert_refused(&["kernels", "run", "--backend", "apoll"], &["'apoll'", "epoll", "fallback"]);
    let nothing = ["kernels", "run", "--filter", "C10", "--transport", "plain"];
    assert_refused(&nothing, &["'C10'", "'plain'"]);
    assert_refused(&["kernels", "run", "--restrict", "no-sugar"], &["sugar"]);
    assert_refused(&["kernels", "run", "--transport", "tls"], &["'tls'"]);
}

#[test]
fn what_excludes_something_else_says_so() {
    let both = ["kernels", "exec", "--accel", "kvm", "--icount", "0", "/bin/true"];
    assert_refused(&both, &["--icount", "--accel kvm"]);
    let two = ["kernels", "exec", "--cpus", "2", "--icount", "0", "/bin/true"];
    assert_refused(&two, &["--icount", "--cpus 1"]);
}

#[test]
fn a_program_that_no_kernel_can_run_alone_is_told_by_its_own_name() {
    let error = output(&["kernels", "exec", "/bin/true"]);
    let said = text(&error.stderr);
    assert_eq!(error.status.code(), Some(2), "{said}");
    assert!(said.contains("/bin/true") && !said.contains("--binary"), "{said}");
}

#[test]
fn numbers_that_are_too_great_are_told_as_such() {
    for name in ["memlock", "rcvbuf", "optmem-max"] {
        let item = format!("{name}=99999999999999999999");
        assert_refused(&["run", "--restrict", &item], &[&item, "at most"]);
    }
    assert_refused(&["run", "--restrict", "memlock=much"], &["'memlock=much'", "not a number"]);
}

#[test]
fn axes_come_as_junit_and_as_lines() {
    let of = |format| {
        let axes =
            ["axes", "--axis", "no-epoll", "--filter", "C15-a-turn-is-bounded", "--format", format];
        let output = output(&axes);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let xml = of("junit");
    assert!(xml.starts_with("<?xml"), "{xml}");
    assert!(xml.contains("<testsuite name=\"seccomp-no-epoll-enosys/fallback\""), "{xml}");
    assert!(
        xml.contains("<testcase classname=\"seccomp-no-epoll\" name=\"axis\"></testcase>"),
        "{xml}"
    );
    assert!(xml.trim_end().ends_with("</testsuites>"), "{xml}");
    let lines = of("json-lines");
    let axes: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(axes.len(), 2, "{lines}");
    assert_eq!(axes[1]["axis"], "seccomp-no-epoll-enosys");
    let all: Vec<serde_json::Value> = serde_json::from_str(&of("json")).unwrap();
    assert_eq!(all.len(), 2);
}

#[test]
fn an_environment_does_not_keep_a_restriction_from_being_imposed() {
    // No kernel takes this value, and no user but root may write one.
    let mut run = runner(&["run", "--restrict", "io-uring-disabled=77", "--filter", "C15-woken"]);
    let output = run.env("LASTBYTE_CONFORMANCE_CHILD", "1").output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("io-uring-disabled=77"), "{said}");
}

/// Ends of output that take nothing.
fn deaf() -> Vec<Stdio> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    vec![full().into(), writer.into()]
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn nobody_has_to_listen_to_complaints() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.json");
    let run = output(&["run", "--filter", "C15", "--transport", "plain", "--format", "json"]);
    fs::write(&results, run.stdout).unwrap();
    for stderr in deaf() {
        assert_eq!(
            runner(&["run", "--backend", "apoll"]).stderr(stderr).status().unwrap().code(),
            Some(2)
        );
    }
    for stderr in deaf() {
        // Not every case was run, which is a complaint.
        let mut report = runner(&["report"]);
        report.arg(&results).current_dir(folder.path());
        report.args(["--markdown", "a", "--html", "b", "--together", "c"]);
        let code = report.stdout(Stdio::null()).stderr(stderr).status().unwrap().code();
        assert_eq!(code, Some(1), "a panic is not a result");
    }
}

#[test]
fn a_result_that_is_cut_off_is_not_taken_for_one() {
    let short = ["--filter", "C15", "--transport", "plain"];
    let run = [&["run"], &short[..]].concat();
    let list = vec!["list"];
    let peer = vec!["peer", "--listen", "127.0.0.1:0"];
    let help = vec!["--help"];
    for arguments in [run, list, peer, help] {
        let output = runner(&arguments).stdout(full()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("standard output"), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_report_is_written_only_of_something_and_each_part_to_its_own_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let nothing =
        r#"{"kernels": [], "date": "today", "commit": "none", "binary": "none", "qemu": "none"}"#;
    fs::write(at("nothing.json"), nothing).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(at);
    let report = |results: &str, html: &str| {
        let to = ["--markdown", &a, "--html", html, "--together", &c].map(str::to_owned);
        [vec!["report".to_owned(), results.to_owned()], to.to_vec()].concat()
    };
    let refused = |arguments: Vec<String>, words: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        assert_refused(&arguments, words);
        assert!(!fs::exists(&a).unwrap(), "nothing is written when it is refused");
    };
    refused(report(&at("nothing.json"), &b), &["no case was run"]);
    let run = output(&["run", "--filter", "C15-woken", "--transport", "plain", "--format", "json"]);
    fs::write(at("run.json"), &run.stdout).unwrap();
    refused(report(&at("run.json"), &a), &["more than one", &a]);
    fs::write(at("cut.json"), &run.stdout[..1000]).unwrap();
    refused(report(&at("cut.json"), &b), &["cut.json", "not JSON"]);
}

#[test]
fn a_folder_that_takes_no_results_is_refused_before_there_are_any() {
    let out = ["kernels", "run", "--backend", "all", "--out", "/proc/self/fd"];
    let output = output(&out);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/proc/self/fd"), "{}", text(&output.stderr));
}
