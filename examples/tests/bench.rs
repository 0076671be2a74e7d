//! The bench, each of its commands with as little to do as there can be: what
//! comes out is whole and consistent. How fast anything is, is not looked at.

#![cfg(target_os = "linux")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.env_remove("LASTBYTE_DISABLE").args(arguments.split_whitespace());
    command
}

/// Its result; `None` where this process may not have network namespaces.
fn result(arguments: &str) -> Option<Value> {
    let Output { status, stdout, stderr } = bench(arguments).arg("--json").output().unwrap();
    let complaint = String::from_utf8(stderr).unwrap();
    if complaint.contains("no link between two network namespaces") {
        assert_eq!(status.code(), Some(2), "{complaint}");
        return None;
    }
    assert!(status.success(), "{complaint}");
    let result: Value = serde_json::from_slice(&stdout).unwrap();
    let about = &result["about"][0];
    for field in ["command", "date", "kernel", "machine", "commit", "wire"] {
        assert!(about[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {about}");
    }
    Some(result)
}

fn rows(result: &Value) -> &Vec<Value> {
    result["rows"].as_array().unwrap()
}

#[test]
fn transaction_times_are_taken_on_both_sides() {
    let arguments = "txtime --sizes 3k,50k --rtt 20ms --loss 0,1 --samples 2 --backend all \
                     --transport plain,user-tls --warm 1 --client closes";
    let Some(result) = result(arguments) else { return };
    let backends = rows(&result).len() / (2 * 2 * 2);
    assert!(backends >= 2, "{result}");
    for row in rows(&result) {
        let samples = row["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 2, "{row}");
        for sample in samples {
            let actual = sample["actual"].as_f64().unwrap();
            assert!(actual >= 0.020, "{sample} is sooner than the link allows");
            assert!(sample["written"].as_f64().unwrap() > 0.0);
            let acked = &sample["acked"];
            let (after, at) = (acked["after"].as_f64().unwrap(), acked["at"].as_f64().unwrap());
            assert!(after <= at && at >= 0.020, "{sample} is sooner than the link allows");
        }
    }
    assert_eq!(result["verdicts"].as_array().unwrap().len(), backends * 2 * 2);
}

fn has_figures(row: &Value) {
    for field in ["requests_per_second", "cpu_us"] {
        let of = |part: &str| row[field][part].as_f64().unwrap();
        assert!(
            of("lowest") > 0.0 && of("lowest") <= of("median") && of("median") <= of("highest")
        );
    }
    assert!(row["copied"].as_f64().unwrap() >= 0.0);
}

#[test]
fn the_cost_of_knowing_is_told_for_each_backend() {
    let arguments = "stamps --sizes 4k,40k --backend all --rounds 1 --seconds 1 --connections 3";
    let result = result(arguments).unwrap();
    assert_eq!(rows(&result).len() % (3 * 2), 0, "{result}");
    rows(&result).iter().for_each(has_figures);
    let verdicts = result["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), rows(&result).len() / 6, "of 4 KiB, for each backend");
}

#[test]
fn zero_copy_is_held_against_copying() {
    let arguments = "zerocopy --sizes 2k,100k --rounds 1 --seconds 1 --connections 2";
    let result = result(arguments).unwrap();
    rows(&result).iter().for_each(has_figures);
    let of = |way: &str, size: u64| {
        let mut rows = rows(&result).iter();
        rows.find(|row| row["way"] == way && row["size"] == size && row["transport"] == "plain")
    };
    assert!(of("copy", 2048).unwrap()["copied"].as_f64().unwrap() >= 1.0);
    assert!(of("sendfile", 102_400).unwrap()["copied"].as_f64().unwrap() < 0.1);
    assert!(of("zero-copy", 2048).is_some());
    let advice = result["advice"][0].as_str().unwrap();
    assert!(advice.contains("this path copies"), "{advice}");
}

#[test]
fn zero_copy_is_measured_between_namespaces() {
    let arguments = "zerocopy --path veth --sizes 100k --transport plain --rounds 1 --seconds 1";
    let Some(result) = result(arguments) else { return };
    assert_eq!(rows(&result)[0]["path"], "veth");
    rows(&result).iter().for_each(has_figures);
}

#[test]
fn tls_is_measured_and_what_is_lacking_is_said() {
    let result = result("tls --sizes 20k --rounds 1 --seconds 1 --connections 2").unwrap();
    rows(&result).iter().for_each(has_figures);
    let has = |transport: &str| rows(&result).iter().any(|row| row["transport"] == transport);
    assert!(has("plain") && has("user-tls"));
    let lacks = result["notes"][0].as_str().is_some_and(|note| note.starts_with("kernel-tls: "));
    assert!(has("kernel-tls") != lacks, "either measured or lacking: {result}");
}

#[test]
fn a_load_can_be_elsewhere() {
    let mut peer =
        bench("peer --listen 127.0.0.1:0 --once").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(peer.stderr.take().unwrap()).lines().map_while(Result::ok);
    let waiting = lines.next().unwrap();
    let address = waiting.split(' ').find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let arguments = "zerocopy --sizes 10k --transport user-tls --rounds 1 --seconds 1 --peer ";
    let result = result(&(arguments.to_owned() + address)).unwrap();
    assert_eq!(rows(&result)[0]["path"], "peer");
    rows(&result).iter().for_each(has_figures);
    assert!(peer.wait().unwrap().success());
}

#[test]
fn results_are_joined_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, size) in [("one.json", "3k"), ("two.json", "30k")] {
        let arguments = format!("stamps --sizes {size} --rounds 1 --seconds 1 --json");
        let output = bench(&arguments).output().unwrap();
        std::fs::write(path(name), output.stdout).unwrap();
    }
    let mut render = bench("render --markdown");
    render.arg(path("one.json")).arg(path("two.json")).arg("--svg").arg(path("both.svg"));
    let output = render.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("| 3 KiB | ") && text.contains("| 30 KiB | "), "{text}");
    let drawing = std::fs::read_to_string(path("both.svg")).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.contains("acked"));

    std::fs::write(path("no.json"), "{}").unwrap();
    let output = bench("render").arg(path("no.json")).output().unwrap();
    expect_refusal(&output, "no result of a bench");
}

fn expect_refusal(output: &Output, part: &str) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(part) && last.starts_with("bench: "), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (arguments, part) in [
        ("txtime --sizes 0", "a number of bytes from 1 to 1024m is needed"),
        ("txtime --loss 70", "a percentage from 0 to 50 is needed"),
        ("txtime --rtt fast", "invalid value 'fast'"),
        ("stamps --backend kqueue", "there is no backend 'kqueue'"),
        ("stamps --rounds 0", "invalid value '0'"),
        ("stamps --seconds 10ms", "more --seconds"),
        ("zerocopy --peer 127.0.0.1:1", "the peer at 127.0.0.1:1: Connection refused"),
        ("zerocopy --path bridge", "[possible values: loopback, veth]"),
        ("tls --transport quic", "[possible values: plain, user-tls, kernel-tls]"),
        ("render", "required arguments were not provided"),
        ("render /nowhere/at/all", "/nowhere/at/all: No such file or directory"),
        ("--frobnicate", "unexpected argument '--frobnicate' found"),
        (&format!("peer --listen {taken}"), "Address already in use"),
    ] {
        expect_refusal(&bench(arguments).output().unwrap(), part);
    }
    let output = bench("tls --transport kernel-tls").env("LASTBYTE_DISABLE", "kernel-tls").output();
    expect_refusal(&output.unwrap(), "kernel-tls: disabled");
}

#[test]
fn a_drawing_that_cannot_be_made_costs_no_measurement() {
    let folder = tempfile::tempdir().unwrap();
    // What cannot be opened is known before anything is measured,
    for command in ["txtime", "stamps", "zerocopy", "tls"] {
        let output = bench(command).arg("--svg").arg(folder.path()).output().unwrap();
        expect_refusal(&output, &format!("cannot write {}", folder.path().display()));
        assert!(output.stdout.is_empty());
    }
    // what cannot be written comes after the result.
    let output = bench("stamps --sizes 3k --rounds 1 --seconds 1 --json --svg /dev/full").output();
    let output = output.unwrap();
    expect_refusal(&output, "cannot write /dev/full: No space left on device");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!rows(&result).is_empty(), "{result}");
    // A place that is looked at stays as it was.
    let path = folder.path().join("kept.svg");
    std::fs::write(&path, "kept").unwrap();
    let mut command = bench("stamps --seconds 10ms --svg");
    expect_refusal(&command.arg(&path).output().unwrap(), "more --seconds");
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    let path = folder.path().join("none.svg");
    let mut command = bench("stamps --seconds 10ms --svg");
    expect_refusal(&command.arg(&path).output().unwrap(), "more --seconds");
    assert!(!path.exists());
}

#[test]
fn a_missing_folder_for_files_is_named() {
    let mut command = bench("stamps --sizes 3k --rounds 1 --seconds 1 --body file");
    let output = command.env("TMPDIR", "/nowhere/at/all").output().unwrap();
    expect_refusal(&output, "a file in /nowhere/at/all (TMPDIR): No such file or directory");
}

/// Whoever is interrupted leaves nothing behind.
#[test]
fn servers_end_with_the_bench() {
    let mut child = bench("stamps --sizes 4k --seconds 60").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // It says so when the servers run.
    assert!(lines.next().unwrap().contains("servers"));
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let servers = std::fs::read_to_string(children).unwrap();
    assert_eq!(servers.split_whitespace().count(), 3);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    child.wait().unwrap();
    let runs = |pid: &str| std::path::Path::new("/proc").join(pid).join("exe").exists();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while servers.split_whitespace().any(runs) {
        assert!(std::time::Instant::now() < until, "servers outlive the bench");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
