//! The router of the link: takes each packet off the device and puts it back
//! with its addresses exchanged, when its time has come.

use super::LinkOptions;
use super::journal::{Arrival, Journal};
use super::lane::{Dice, Lane, Waiting};
use super::segment::{Segment, turn_round};
use crate::sys::poll;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the case wants done to packets from now on.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) hold_acks: bool,
    pub(super) cut: bool,
    pub(super) ended: bool,
    pub(super) lost: u64,
}

/// How soon a change of [`Control`] is noticed.
const BEAT: Duration = Duration::from_millis(5);

/// Carries packets until it is told to end.
pub(super) fn hop(
    mut device: File,
    options: LinkOptions,
    control: &Mutex<Control>,
    journal: &Mutex<Journal>,
) -> io::Result<()> {
    let mut dice = Dice::default();
    let mut lanes = [Lane::default(), Lane::default()];
    let mut packet = vec![0; 64 << 10];
    loop {
        let now = Instant::now();
        let (hold, cut, ended) = {
            let control = lock(control);
            (control.hold_acks, control.cut, control.ended)
        };
        if ended {
            return Ok(());
        }
        for (lane, held) in lanes.iter_mut().zip([false, hold]) {
            while let Some(mut due) = lane.due(now).filter(|_| !held) {
                turn_round(&mut due.packet);
                deliver(&mut device, &due, cut, journal)?;
            }
        }
        let next = lanes.iter().filter_map(Lane::next).min();
        let wait = next.map_or(BEAT, |at| at.saturating_duration_since(now).min(BEAT));
        // A held packet is due all the time and must not make this spin.
        let wait = if hold { BEAT } else { wait };
        if !poll::readable(device.as_fd(), wait)? {
            continue;
        }
        loop {
            let len = match device.read(&mut packet) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let Some(segment) = Segment::parse(&packet[..len]) else {
                continue;
            };
            if !segment.syn && dice.below(1000) < options.loss {
                lock(control).lost += 1;
                continue;
            }
            let from_client = lock(journal).is_from_client(&segment);
            let lane = &mut lanes[usize::from(from_client)];
            lane.push(packet[..len].to_vec(), segment, Instant::now(), options);
        }
    }
}

fn deliver(
    device: &mut File,
    due: &Waiting<Segment>,
    cut: bool,
    journal: &Mutex<Journal>,
) -> io::Result<()> {
    if cut {
        return Ok(());
    }
    let before = Instant::now();
    match device.write_all(&due.packet) {
        // The device's own queue is full: one more packet is lost.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        result => result?,
    }
    let after = Instant::now();
    lock(journal).arrived(&due.note, Arrival { before, after });
    Ok(())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
