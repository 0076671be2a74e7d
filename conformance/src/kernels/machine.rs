//! QEMU: its command line, and watching over it.

use super::channel::{Heard, Message, hear};
use super::tools::{self, cannot_start};
use crate::sys::parent;
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The program and its Debian package.
const QEMU: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Only a guest that hangs, or does not boot, is silent for so long: it says
/// every second that it is alive.
const SILENCE: Duration = Duration::from_secs(90);

/// How long an interruption may go unnoticed.
const ATTENTION: Duration = Duration::from_millis(200);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Accelerator {
    /// QEMU itself, in software: slow, and works everywhere.
    Tcg,
    /// The processor, by the host's kernel.
    Kvm,
}

impl Accelerator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// QEMU, as it is on this machine.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    pub(super) version: String,
    /// Whether guests can have a network that needs no privilege.
    pub(super) network: bool,
}

impl Qemu {
    pub(super) fn find() -> Result<Self, String> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(QEMU);
            command.args(arguments);
            tools::output(command, PACKAGE)
        };
        let version = ask(&["--version"])?;
        let network = ask(&["-netdev", "help"])?.lines().any(|line| line.trim() == "user");
        Ok(Self { version: version.lines().next().unwrap_or_default().to_owned(), network })
    }
}

/// What a guest is connected to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Network {
    /// Nothing.
    None,
    /// QEMU's own network, which needs no privilege and no set-up.
    User,
    /// A TAP device of that name, which is there already: the guest's segments
    /// go out whole and without a check sum, as to a network card.
    Tap(String),
}

/// A machine to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'m> {
    pub(super) image: &'m Path,
    pub(super) initramfs: &'m Path,
    /// Where the kernel's log goes.
    pub(super) console: &'m Path,
    pub(super) accelerator: Accelerator,
    pub(super) cpus: usize,
    pub(super) network: &'m Network,
    /// See `Hardware`.
    pub(super) icount: Option<u8>,
    /// When it is killed.
    pub(super) limit: Duration,
    /// Whether everything is to end.
    pub(super) interrupted: &'m AtomicBool,
}

/// How a machine ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// It turned itself off, or its kernel panicked.
    Off,
    /// It was killed: this was its time.
    Late(Duration),
    /// It was killed: it had said nothing for this long.
    Silent(Duration),
    /// It was killed: so will this program be.
    Interrupted,
    /// QEMU would not run it.
    Refused(String),
}

impl Machine<'_> {
    /// Runs the machine to its end and passes on what it says.
    pub(super) fn run(&self, mut heard: impl FnMut(Heard)) -> Stop {
        let mut qemu = match self.command().spawn() {
            Ok(child) => Running(child),
            Err(error) => return Stop::Refused(cannot_start(QEMU, PACKAGE, &error)),
        };
        let complaints = qemu.0.stderr.take().map(lines);
        let Some(said) = qemu.0.stdout.take().map(lines) else { return Stop::Off };
        let until = Instant::now() + self.limit;
        let mut silent_since = Instant::now();
        loop {
            if self.interrupted.load(Ordering::SeqCst) {
                return Stop::Interrupted;
            }
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return Stop::Late(self.limit);
            }
            let bearable = (silent_since + SILENCE).saturating_duration_since(now);
            if bearable.is_zero() {
                return Stop::Silent(SILENCE);
            }
            match said.recv_timeout(left.min(bearable).min(ATTENTION)) {
                Ok(line) => {
                    let what = hear(&line);
                    if !matches!(what, Heard::Other) {
                        silent_since = Instant::now();
                    }
                    let over = matches!(&what, Heard::Message(message)
                        if matches!(**message, Message::Over { .. }));
                    heard(what);
                    if over {
                        qemu.finish(Duration::from_secs(10));
                        return Stop::Off;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = qemu.0.wait();
        if status.is_ok_and(|status| status.success()) {
            return Stop::Off;
        }
        let complaint = complaints.and_then(|lines| lines.into_iter().last());
        let complaint = complaint.as_deref().unwrap_or("died");
        Stop::Refused(format!("{QEMU}: {}", complaint.replace(&format!("{QEMU}: "), "")))
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new(QEMU);
        qemu.args(["-M", "q35", "-m", "1024", "-smp", &self.cpus.to_string()]);
        match self.accelerator {
            Accelerator::Tcg if self.icount.is_some() => {
                // A copy by `rep movsb` would count each byte; without these
                // the kernel copies words (arch/x86/lib/copy_user_64.S).
                qemu.args(["-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm"])
            }
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        };
        if let Some(shift) = self.icount {
            qemu.args(["-icount", &format!("shift={shift},sleep=on")]);
        }
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        qemu.args(["-append", COMMAND_LINE]);
        let mut console = std::ffi::OsString::from("file:");
        console.push(self.console);
        qemu.arg("-serial").arg(console);
        qemu.args(["-chardev", "stdio,id=channel,signal=off", "-serial", "chardev:channel"]);
        match self.network {
            Network::None => {}
            Network::User => {
                qemu.args(["-nic", "user,model=virtio-net-pci,ipv6=off"]);
            }
            Network::Tap(name) => {
                let netdev =
                    format!("tap,id=net,ifname={name},script=no,downscript=no,vnet_hdr=on");
                qemu.args(["-netdev", &netdev, "-device", "virtio-net-pci,netdev=net"]);
            }
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        parent::ends_with_this_thread(&mut qemu, Signal::KILL);
        qemu
    }
}

/// The kernel's log on the first serial line, where a panic ends the machine;
/// so does anything after which the results would mean nothing. What follows
/// the dashes goes to the first process
/// (`Documentation/admin-guide/kernel-parameters.txt`).
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic softlockup_panic=1 \
                            watchdog_thresh=30 mitigations=off random.trust_cpu=on \
                            cryptomgr.notests=1 rdinit=/conformance -- guest";

/// QEMU, which does not outlive this.
#[derive(Debug)]
struct Running(Child);

impl Running {
    /// Waits for it to end by itself, as it is about to.
    fn finish(&mut self, within: Duration) {
        let until = Instant::now() + within;
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Lines of `from`, which end when it does.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
