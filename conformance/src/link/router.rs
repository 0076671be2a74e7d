//! The thread that carries packets between two TUN devices.

use super::LinkOptions;
use super::lane::{Dice, Lane};
use super::segment::Segment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running router. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Router {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How soon the end is noticed.
const BEAT: Duration = Duration::from_millis(50);

impl Router {
    pub(super) fn start(devices: [File; 2], options: LinkOptions) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("router".into()).spawn(move || {
            // What it died of, if it did, shows as a link that carries nothing.
            drop(carry(devices, options, &told));
        })?;
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn carry(mut devices: [File; 2], options: LinkOptions, ended: &AtomicBool) -> io::Result<()> {
    let mut dice = Dice::default();
    // What comes from a device waits in its lane for the other one.
    let mut lanes = [Lane::default(), Lane::default()];
    let mut packet = vec![0; 64 << 10];
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (lane, from) in lanes.iter_mut().zip([0, 1]) {
            while let Some(due) = lane.due(now) {
                deliver(&mut devices[1 - from], &due.packet)?;
            }
        }
        let next = lanes.iter().filter_map(Lane::next).min();
        let wait = next.map_or(BEAT, |at| at.saturating_duration_since(now).min(BEAT));
        wait_for(&devices, wait)?;
        for (device, lane) in devices.iter_mut().zip(&mut lanes) {
            loop {
                let len = match device.read(&mut packet) {
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                // What is neither TCP nor IPv4 is the kernel talking to itself.
                let Some(segment) = Segment::parse(&packet[..len]) else { continue };
                // A handshake is no part of what is measured, and a lost SYN
                // costs a second.
                if segment.syn || dice.below(1000) >= options.loss {
                    lane.push(packet[..len].to_vec(), (), Instant::now(), options);
                }
            }
        }
    }
    Ok(())
}

fn deliver(device: &mut File, packet: &[u8]) -> io::Result<()> {
    match device.write_all(packet) {
        // The kernel has no room: one more packet is lost.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

/// Waits until a device has a packet, to the microsecond.
fn wait_for(devices: &[File; 2], wait: Duration) -> io::Result<()> {
    let [one, other] = devices;
    let mut fds = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    let wait = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
