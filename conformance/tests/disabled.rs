//! What the operator has switched off is not even tried: a sandbox may kill
//! whoever does.
#![cfg(target_os = "linux")]

use lastbyte::{Restrictions, Support};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::process::Command;

/// Set in the child that is killed if it tries it: what that is.
const CHILD: &str = "LASTBYTE_TEST_KILLED_FOR";

/// A facility, the calls that it begins with, and of `setsockopt` the level and
/// the options.
type Deadly = (&'static str, &'static [libc::c_long], libc::c_int, &'static [libc::c_int]);

/// `SO_TIMESTAMPING` with the new layout of time
/// (include/uapi/asm-generic/socket.h).
const SO_TIMESTAMPING_NEW: libc::c_int = 65;

const DEADLY: [Deadly; 4] = [
    (
        "io_uring",
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
        0,
        &[],
    ),
    ("kernel-tls", &[libc::SYS_setsockopt], libc::IPPROTO_TCP, &[libc::TCP_ULP]),
    (
        "timestamps",
        &[libc::SYS_setsockopt],
        libc::SOL_SOCKET,
        &[libc::SO_TIMESTAMPING, SO_TIMESTAMPING_NEW],
    ),
    ("zerocopy", &[libc::SYS_setsockopt], libc::SOL_SOCKET, &[libc::SO_ZEROCOPY]),
];

#[test]
fn what_is_switched_off_is_not_tried() {
    const NAME: &str = "what_is_switched_off_is_not_tried";
    if let Ok(name) = std::env::var(CHILD) {
        return report_or_die(&name);
    }
    for (name, ..) in DEADLY {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", NAME]).env(CHILD, name).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "without {name}: {}: {said}", output.status);
        assert!(said.contains("1 passed"), "{said}");
    }
}

/// Makes a report without `name`, where to try it is to be killed.
fn report_or_die(name: &str) {
    let (_, calls, level, options) = DEADLY.into_iter().find(|deadly| deadly.0 == name).unwrap();
    kill_for(calls, level, options);
    let restrictions: Restrictions = name.parse().unwrap();
    let report = lastbyte_backends::report(&restrictions);
    assert_eq!(*report.support(name.parse().unwrap()), Support::Disabled);
}

/// Has the kernel kill this process for any of these calls.
fn kill_for(calls: &[libc::c_long], level: libc::c_int, options: &[libc::c_int]) {
    let equals = |argument, value: libc::c_int| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let rule = |option: &libc::c_int| {
        SeccompRule::new(vec![equals(1, level), equals(2, *option)]).unwrap()
    };
    let rules = calls.iter().map(|call| (*call, options.iter().map(rule).collect())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
