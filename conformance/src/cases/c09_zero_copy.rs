//! C9: zero copy only where it can pay.

use super::{close_and_compare, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::peers::{Puppet, reader};
use crate::rig::{PATIENCE, Rig};
use crate::sys::limits::{self, Resource};
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject};
use lastbyte::{BackendKind, DriverConfig, Facility, Method, Watch};
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C09-a-route-that-copies-is-left-alone",
            "loopback copies what was to be zero-copied; after some sends nobody asks any more",
            latch,
        ),
        Case::new(
            "C09-short-payloads-are-copied",
            "zero copy is not tried below the threshold",
            threshold,
        ),
        Case::new(
            "C09-no-room-means-copy",
            "where the kernel has no room for zero copy, the same bytes are copied at once",
            no_room,
        ),
    ]
}

fn latch(subject: &Subject) -> Result<Proof, Failure> {
    let mut rig = Rig::eager(subject)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    let mut methods = Vec::new();
    for _ in 0..40 {
        let transfer = rig.send(connection, 64 << 10, Watch::ACKED)?;
        rig.settle()?;
        methods.extend(rig.record.told(connection, transfer).released.map(|r| r.method));
    }
    let copied = methods.iter().all(|m| *m == Method::Copy);
    let no_room = super::no_room(&mut rig).filter(|_| copied);
    let lack = subject.lacks(Facility::ZeroCopy).or(no_room);
    close_and_compare(&mut rig, connection, peer)?;
    let last = methods.last().copied();
    if let Some(lack) = lack {
        ensure!(methods.iter().all(|m| *m == Method::Copy), "by {methods:?} without zero copy");
        return Ok(Proof::substitute(lack, "every payload was copied, and says so"));
    }
    ensure!(methods[0] != Method::Copy, "zero copy was not even tried: {methods:?}");
    if methods.iter().all(|m| *m == Method::ZeroCopy) {
        return Ok(Proof::noting("this kernel's loopback does not copy"));
    }
    ensure!(methods.contains(&Method::ZeroCopyRefused), "refusals are not said: {methods:?}");
    ensure!(last == Some(Method::Copy), "still asked for after 40 refusals: {methods:?}");
    let asked = methods.iter().filter(|m| **m != Method::Copy).count();
    Ok(Proof::noting(format!("asked for {asked} times")))
}

fn threshold(subject: &Subject) -> Result<Proof, Failure> {
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 50_000;
    let mut rig = Rig::configured(subject, &config)?;
    let (connection, peer) = rig.connect(subject, Wire::default())?;
    let peer = reader(peer)?;
    for _ in 0..5 {
        rig.send(connection, 49_999, Watch::ACKED)?;
        rig.settle()?;
    }
    let asked = rig.driver().counters().method(Method::ZeroCopy);
    ensure!(asked == 0, "{asked} bytes of short payloads by zero copy");
    rig.send(connection, 50_000, Watch::ACKED)?;
    rig.settle()?;
    let asked = rig.driver().counters().method(Method::ZeroCopy);
    let lack = subject.lacks(Facility::ZeroCopy).or_else(|| super::no_room(&mut rig));
    ensure!(lack.is_some() || asked == 50_000, "{asked} of 50000 bytes by zero copy");
    close_and_compare(&mut rig, connection, peer)?;
    Ok(lack.map_or(Proof::full(), |lack| Proof::substitute(lack, "every payload was copied")))
}

/// The most that is sent to run into the limit.
const MOST: u64 = 64 << 20;

fn no_room(subject: &Subject) -> Result<Proof, Failure> {
    // The privilege is this thread's alone, and so is the lack of it.
    limits::give_up_pinning()?;
    let (limit, _) = limits::limits(Resource::PinnedMemory)?;
    let (no_room, sent) = fill(subject)?;
    let intact = format!("{} MiB arrived intact", sent >> 20);
    if let Some(lack) = subject.lacks(Facility::ZeroCopy) {
        return Ok(Proof::substitute(lack, intact));
    }
    if no_room > 0 {
        return Ok(Proof::noting(format!("no room {no_room} times within {} MiB", sent >> 20)));
    }
    if limit > MOST {
        let lack = Lack::of(format!("a limit to run into: RLIMIT_MEMLOCK is {limit}"));
        return Ok(Proof::substitute(lack, intact));
    }
    ensure!(uncounted(subject), "{} MiB under way with a limit of {limit} bytes", sent >> 20);
    // The limit is there all the same, for what this kernel counts.
    let by_calls = subject.without(Facility::UringZeroCopy);
    let lack = Lack::of("a limit to run into: this kernel does not count what a ring lends");
    let Some(by_calls) = by_calls else { return Ok(Proof::substitute(lack, intact)) };
    let (no_room, _) = fill(&by_calls)?;
    ensure!(no_room > 0, "MSG_ZEROCOPY does not run into the limit of {limit} bytes either");
    Ok(Proof::substitute(lack, format!("{intact}, and MSG_ZEROCOPY runs into the limit")))
}

/// Sends until the kernel has no room to pin more, or enough was sent, then has
/// it all read and compared. Says how often there was no room, and how many bytes
/// were sent.
fn fill(subject: &Subject) -> Result<(u64, usize), Failure> {
    const LEN: usize = 256 << 10;
    let mut rig = Rig::eager(subject)?;
    let mut puppets = Vec::new();
    let mut sent = 0;
    while (sent as u64) < MOST && rig.driver().counters().zero_copy_no_room == 0 {
        let (connection, peer) = rig.connect(subject, Wire::default())?;
        puppets.push((connection, Puppet::new(peer)?));
        for _ in 0..4 {
            rig.send(connection, LEN, Watch::ACKED)?;
            sent += LEN;
        }
        rig.turn(Duration::ZERO)?;
    }
    let no_room = rig.driver().counters().zero_copy_no_room;
    let deadline = Instant::now() + PATIENCE;
    while !rig.record.is_settled() {
        ensure!(Instant::now() < deadline, "stuck after the kernel had no room");
        for (_, puppet) in &mut puppets {
            puppet.read(LEN)?;
        }
        rig.turn(Duration::from_millis(1))?;
    }
    rig.settle()?;
    for (connection, puppet) in &mut puppets {
        while puppet.read(LEN)? > 0 {}
        puppet.seen.expect(rig.position(*connection), crate::peers::End::Left)?;
    }
    expect_nothing_held(&mut rig)?;
    Ok((no_room, sent))
}

/// Whether the kernel may leave what is sent by zero copy out of its accounts:
/// up to Linux 6.12 it does so for `IORING_OP_SENDMSG_ZC` (`io_uring/net.c`,
/// where only `io_send_zc` calls `io_notif_account_mem`), from 6.17 on it does
/// not (both seen). A kernel of either kind is told by its release: nothing else
/// tells of it.
fn uncounted(subject: &Subject) -> bool {
    let (report, ring) = (subject.backend().report(), subject.backend().kind());
    ring == BackendKind::IoUring
        && subject.lacks(Facility::UringZeroCopy).is_none()
        && is_before(report.kernel(), (6, 17))
}

/// Whether `kernel`, as in the report, is older than this version of Linux.
fn is_before(kernel: &str, version: (u32, u32)) -> bool {
    let release = kernel.strip_prefix("Linux ").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_before("Linux 5.10.0-32-cloud-amd64", (6, 17)));
        assert!(is_before("Linux 6.12.117+deb13", (6, 17)) && is_before("Linux 6.9-rc1", (6, 17)));
        assert!(!is_before("Linux 6.17.13", (6, 17)) && !is_before("Linux 7.3.4", (6, 17)));
        assert!(!is_before("FreeBSD 5.1", (6, 17)));
    }
}
