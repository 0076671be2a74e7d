//! What the runner makes of what guests say.
#![cfg(target_os = "linux")]

mod fake_qemu;

use fake_qemu::FakeQemu;
use std::fs;

/// A line as a guest writes it.
fn frame(text: &str) -> String {
    format!("~lastbyte {:08x} {text}\n", crc32fast::hash(text.as_bytes()))
}

#[test]
fn a_kernel_that_says_hello_shows_that_kvm_works() {
    let qemu = FakeQemu::new("echo \"$*\" >> boots; cat said");
    let said = [
        r#"{"guest":"booted","release":"1.2","failed":[]}"#,
        r#"{"guest":"printed","line":"{}"}"#,
        r#"{"guest":"over","why":{"exited":0}}"#,
    ];
    fs::write(qemu.folder().join("said"), said.map(frame).concat()).unwrap();
    let output = qemu.kernels_run("kvm").args(["--format", "json"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    // After the trial the kernel was booted for a run, of which it says nothing.
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["kernels"][0]["accelerator"], "kvm", "{complaint}");
    let boots = fs::read_to_string(qemu.folder().join("boots")).unwrap();
    assert_eq!(boots.matches("-accel kvm").count(), 2, "{boots}");
}

#[test]
fn a_kernel_that_does_not_boot_shows_that_kvm_does_not_work() {
    let qemu = FakeQemu::new("echo no such thing >&2; exit 1");
    let output = qemu.kernels_run("kvm").output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("KVM does not work here") && complaint.contains("no such thing"));
}
