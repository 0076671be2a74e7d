//! C6: times are plausible and say how far off they can be. (That they are
//! ordered and not in the future is checked of every event of every case.)

use super::close_and_compare;
use crate::failure::{Failure, ensure};
use crate::peers::reader;
use crate::rig::Rig;
use crate::wire::Wire;
use crate::{Case, Proof, Subject};
use lastbyte::{Evidence, Watch};
use std::time::{Duration, SystemTime};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C06-wall-time-agrees-with-monotonic-time",
            "both clocks of every completion belong together and to now",
            wall_time,
        )
        .over_each_transport(),
        Case::new(
            "C06-error-is-stated-and-small",
            "a time that was read has no error, a converted stamp a small one",
            error_is_stated,
        )
        .over_each_transport(),
        Case::new(
            "C06-clock-goes-on",
            "the driver's clock never goes back, and deadlines lie on it",
            clock_goes_on,
        )
        .over_each_transport(),
    ]
}

/// No kernel stamp is that far off, and no clock was stepped by less that
/// matters here.
const WILD: u64 = 1_000_000_000;

fn wall_time(subject: &Subject) -> Result<Proof, Failure> {
    let before = nanos(SystemTime::now());
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..50 {
        rig.send(connection, 3000, Watch::ALL)?;
        rig.turn(Duration::from_millis(1))?;
    }
    rig.settle()?;
    let after = nanos(SystemTime::now());
    let mut offset = None;
    for told in rig.record.transfers() {
        let all = [told.queued, told.transmitted, told.acked, told.released];
        for happened in all.into_iter().flatten() {
            let wall = happened.at.wall.as_nanos();
            ensure!(
                wall + WILD > before && wall < after + WILD,
                "{happened:?} is not between {before} and {after}"
            );
            let apart = i128::from(wall) - i128::from(happened.at.monotonic.as_nanos());
            let first = *offset.get_or_insert(apart);
            ensure!(
                (apart - first).unsigned_abs() < u128::from(WILD),
                "the clocks were {first} ns apart, now {apart}: {happened:?}"
            );
        }
    }
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn error_is_stated(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..20 {
        rig.send(connection, 3000, Watch::ALL)?;
        rig.settle()?;
    }
    let (mut stamps, mut inexact) = (0, 0);
    for told in rig.record.transfers() {
        let (Some(queued), Some(acked)) = (told.queued, told.acked) else {
            return Err(Failure::new("a watched stage is missing"));
        };
        ensure!(queued.at.error.is_zero(), "Queued was read, but may be off: {queued:?}");
        ensure!(acked.at.error < Duration::from_millis(100), "that error says nothing: {acked:?}");
        if acked.evidence == Evidence::Kernel {
            stamps += 1;
            inexact += usize::from(!acked.at.error.is_zero());
            let span = acked.at.monotonic.since(told.submitted);
            ensure!(
                acked.at.error <= span + Duration::from_millis(1),
                "the error is larger than what was measured: {acked:?}"
            );
        }
    }
    // A clock may read the same before and after the other, but not each time.
    ensure!(stamps == 0 || inexact > 0, "{stamps} stamps were converted without any error");
    close_and_compare(&mut rig, connection, peer)?;
    Ok(match subject.lacks(lastbyte::Facility::Timestamps) {
        None => Proof::noting(format!("{stamps} of 20 by kernel stamp")),
        Some(lack) => Proof::substitute(lack, "times are read, in brackets, and without error"),
    })
}

fn clock_goes_on(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::new(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let mut last = rig.now();
    for _ in 0..50 {
        rig.send(connection, 100, Watch::ACKED)?;
        rig.turn(Duration::from_millis(1))?;
        let now = rig.now();
        ensure!(now > last, "the clock stood still over a turn: {last:?}, {now:?}");
        last = now;
        if let Some(by) = rig.driver().next_turn_by() {
            // Any deadline set by now is at most the stall timeout away, or a
            // periodic one; a day off means another clock.
            let day = Duration::from_secs(24 * 3600);
            ensure!(by <= now.after(day), "a deadline on another clock: {by:?} at {now:?}");
        }
    }
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)?;
    Ok(Proof::full())
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
