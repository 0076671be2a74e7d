//! Where and when something was measured.

use lastbyte::Report;
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::SystemTime;

/// Everything about a run that its figures depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct About {
    /// The command.
    pub command: String,
    /// When it began, in UTC.
    pub date: String,
    /// The kernel.
    pub kernel: String,
    /// The processor, as it calls itself, and how many of it.
    pub machine: String,
    /// What TCP uses.
    pub congestion_control: String,
    /// What the bench was built from.
    pub commit: String,
    /// What is between server and client.
    pub wire: String,
}

impl About {
    /// This run, on this machine.
    #[must_use]
    pub fn now(report: &Report, wire: String) -> Self {
        let arguments = std::env::args().skip(1);
        let command = std::iter::once("bench".to_owned()).chain(arguments);
        let control = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
        Self {
            command: command.collect::<Vec<_>>().join(" "),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: report.kernel().to_owned(),
            machine: machine(),
            congestion_control: control.map_or("unknown".to_owned(), |name| name.trim().to_owned()),
            commit: lastbyte_conformance::COMMIT.to_owned(),
            wire,
        }
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let flags = field("flags").unwrap_or_default();
    let is_virtual = flags.split(' ').any(|flag| flag == "hypervisor");
    let kind = if is_virtual { ", in a virtual machine" } else { "" };
    let s = if cores == 1 { "" } else { "s" };
    format!("{model}, {cores} core{s}{kind}")
}
