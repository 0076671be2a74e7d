//! Whatever ends the runner ends what it started.
#![cfg(target_os = "linux")]

mod fake_qemu;

use fake_qemu::FakeQemu;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What processes of a test are known by, in their environment.
const MARK: &str = "LASTBYTE_TEST_MARK";
/// Against hangs only; the cases would go on for longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_run_takes_its_child_along() {
    for signal in ["TERM", "INT", "HUP", "KILL"] {
        let arguments = ["run", "--restrict", "memlock=65536", "--jobs", "1"];
        let status = end_by(signal, 2, &format!("run-{signal}"), &mut runner(&arguments));
        assert_ended_by(signal, status);
    }
}

#[test]
fn axes_take_their_children_and_those_children_along() {
    for signal in ["TERM", "INT", "KILL"] {
        let arguments = ["axes", "--axis", "memlock", "--jobs", "1"];
        let status = end_by(signal, 3, &format!("axes-{signal}"), &mut runner(&arguments));
        assert_ended_by(signal, status);
    }
}

#[test]
fn who_ignores_a_signal_goes_on_ignoring_it() {
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_conformance"));
    nohup.args(["run", "--restrict", "memlock=65536", "--filter", "C01", "--transport", "plain"]);
    let mark = mark("nohup");
    let mut child = start(&mut nohup, &mark);
    wait_for(&mark, |found| found.len() == 2);
    tell(child.id(), "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0), "SIGHUP was to be ignored");
}

#[test]
fn guests_do_not_outlive_the_runner() {
    let qemu = FakeQemu::new("exec sleep 1000");
    for signal in ["TERM", "INT", "HUP", "KILL"] {
        let mut kernels = qemu.kernels_run("tcg");
        let boots = |found: &[u32]| found.iter().any(|id| is_a_sleep(*id));
        let status = end_when(signal, &format!("kernels-{signal}"), &mut kernels, boots);
        if signal == "KILL" {
            assert_eq!(status.signal(), Some(9));
        } else {
            assert!(!status.success());
            assert!(left_in(qemu.folder()).is_empty(), "{signal} leaves a folder behind");
        }
    }
}

/// Whether it is what the QEMU of the test has become.
fn is_a_sleep(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("lastbyte-")).collect()
}

fn runner(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.args(arguments);
    command
}

/// See `end_when`: when there are `count` processes.
fn end_by(signal: &str, count: usize, name: &str, command: &mut Command) -> ExitStatus {
    end_when(signal, name, command, |found| found.len() >= count)
}

/// Starts `command`, and when its processes are `ready`, sends `signal` to the
/// first; none of them may be there for long after.
fn end_when(
    signal: &str,
    name: &str,
    command: &mut Command,
    ready: impl Fn(&[u32]) -> bool,
) -> ExitStatus {
    let mark = mark(name);
    let mut child = start(command, &mark);
    wait_for(&mark, ready);
    tell(child.id(), signal);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && !marked(&mark).is_empty() {
        // Reaps it, for the dead have no environment.
        drop(child.try_wait());
        std::thread::sleep(Duration::from_millis(50));
    }
    let left = marked(&mark);
    left.iter().for_each(|id| tell(*id, "KILL"));
    assert!(left.is_empty(), "{name}: {} processes live on after SIG{signal}", left.len());
    child.wait().unwrap()
}

fn assert_ended_by(signal: &str, status: ExitStatus) {
    let number = match signal {
        "HUP" => 1,
        "INT" => 2,
        "KILL" => return assert_eq!(status.signal(), Some(9)),
        _ => 15,
    };
    assert_eq!(status.code(), Some(128 + number), "SIG{signal}");
}

fn mark(name: &str) -> String {
    format!("{MARK}={name}-{}", std::process::id())
}

fn start(command: &mut Command, mark: &str) -> Child {
    let (name, value) = mark.split_once('=').unwrap();
    command.env(name, value).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn wait_for(mark: &str, enough: impl Fn(&[u32]) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !enough(&marked(mark)) {
        assert!(Instant::now() < until, "{mark}: never as many as there should be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that have `mark` in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let is_marked = |id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(is_marked).collect()
}

fn tell(process: u32, signal: &str) {
    let signal = match signal {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        _ => Signal::TERM,
    };
    let process = process.try_into().ok().and_then(Pid::from_raw).unwrap();
    // It may have ended by itself.
    kill_process(process, signal).ok();
}
