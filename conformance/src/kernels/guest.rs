//! The first process of a kernel under test: mounts, loads, runs the suite, and
//! says on the channel what comes of it. Nothing else is in there: no shell, no
//! libraries.

use super::channel::{Ended, Message, frame};
use super::initramfs::{JOB, Job, MODULES, OTHER, PROGRAM};
use crate::cli::output::note;
use crate::sys::netlink::Devices;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, setrlimit};
use rustix::system::{RebootCommand, init_module, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The serial line that the runner listens on; the kernel's log goes to the
/// first one.
const CHANNEL: &str = "/dev/ttyS1";
/// How often it says that it is alive.
const PULSE: Duration = Duration::from_secs(1);
/// QEMU's user network gives the guest this address, and itself the other.
const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 2, 15), 24);
/// Descriptors: one case opens thousands of connections.
const DESCRIPTORS: u64 = 262_144;

/// Does it all, and turns the machine off.
///
/// # Errors
/// In any process but the first.
pub(crate) fn guest() -> Result<ExitCode, String> {
    if std::process::id() != 1 {
        return Err("'guest' is for the first process of a kernel under test".to_owned());
    }
    // What goes wrong here goes to the kernel's log, whose last lines are shown.
    let done = set_up().and_then(|channel| serve(&channel));
    if let Err(error) = done {
        note(&format!("conformance: the guest: {error}"));
    }
    reboot(RebootCommand::PowerOff).ok();
    Err("the machine cannot be turned off".to_owned())
}

/// The way out, in whole frames.
#[derive(Clone, Debug)]
struct Channel(Arc<Mutex<File>>);

impl Channel {
    fn say(&self, message: &Message) {
        if let Ok(mut file) = self.0.lock() {
            // Nobody is left to tell if this fails.
            drop(file.write_all(frame(message).as_bytes()));
        }
    }

    fn drain(&self) {
        if let Ok(file) = self.0.lock() {
            tcdrain(&*file).ok();
        }
    }
}

fn set_up() -> io::Result<Channel> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")]
    {
        mount(kind, place, kind, MountFlags::empty(), None)
            .map_err(|error| io::Error::other(format!("mount {kind}: {error}")))?;
    }
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    setrlimit(Resource::Nofile, limit)?;
    let file = fs::OpenOptions::new().read(true).write(true).open(CHANNEL)?;
    let mut modes = tcgetattr(&file)?;
    modes.make_raw();
    tcsetattr(&file, OptionalActions::Now, &modes)?;
    Ok(Channel(Arc::new(Mutex::new(file))))
}

fn serve(channel: &Channel) -> io::Result<()> {
    let job = fs::read(format!("/{JOB}"))?;
    let job: Job = serde_json::from_slice(&job)?;
    let failed = job.modules.iter().filter_map(|name| load(name).err()).collect();
    network()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    channel.say(&Message::Booted { release, failed });
    let pulse = channel.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PULSE);
            pulse.say(&Message::Alive);
        }
    });
    let why = suite(&job, channel).unwrap_or_else(|error| Ended::NotStarted(error.to_string()));
    channel.say(&Message::Over { why });
    channel.drain();
    Ok(())
}

fn load(name: &str) -> Result<(), String> {
    let image = fs::read(format!("/{MODULES}/{name}.ko")).map_err(|e| format!("{name}: {e}"))?;
    match init_module(&image, c"") {
        // A processor without the instructions, or built in after all.
        Ok(()) | Err(rustix::io::Errno::NODEV | rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Loopback, and the network card if there is one.
fn network() -> io::Result<()> {
    let devices = Devices::open()?;
    devices.up("lo")?;
    if fs::exists("/sys/class/net/eth0")? {
        devices.address("eth0", ADDRESS.0, ADDRESS.1)?;
        devices.up("eth0")?;
    }
    Ok(())
}

/// Runs the suite, or another program, in a process of its own, for a limited
/// time.
fn suite(job: &Job, channel: &Channel) -> io::Result<Ended> {
    let mut child = Command::new(format!("/{}", if job.other { OTHER } else { PROGRAM }))
        .args(&job.arguments)
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out_of_time = Arc::new(AtomicBool::new(false));
    watch(&child, job.limit, &out_of_time);
    let printed = channel.clone();
    let errors = std::thread::spawn(move || {
        relay(stderr, &printed, |line| Message::Printed { line });
    });
    let other = job.other;
    relay(stdout, channel, move |line| match serde_json::from_str(&line) {
        _ if other => Message::Output { line },
        Ok(event) => Message::Suite(event),
        Err(_) => Message::Printed { line },
    });
    drop(errors.join());
    let status = child.wait()?;
    Ok(if out_of_time.load(Ordering::SeqCst) { Ended::OutOfTime } else { ended(status) })
}

/// Stops `child` and all it started after `limit`.
fn watch(child: &Child, limit: Duration, out_of_time: &Arc<AtomicBool>) {
    let (group, out_of_time) = (Pid::from_child(child), Arc::clone(out_of_time));
    let until = Instant::now() + limit;
    std::thread::spawn(move || {
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        out_of_time.store(true, Ordering::SeqCst);
        kill_process_group(group, Signal::KILL).ok();
    });
}

/// Passes on what comes, line by line.
fn relay(from: Option<impl Read>, channel: &Channel, as_message: impl Fn(String) -> Message) {
    let Some(from) = from else { return };
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        channel.say(&as_message(line));
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signalled(signal),
        (None, None) => Ended::NotStarted(status.to_string()),
    }
}
