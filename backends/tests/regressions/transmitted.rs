//! When bytes have left for the device.

use crate::apart::{DEVICE, apart};
use crate::world::{World, reached};
use lastbyte::{AttachOptions, BackendKind, Evidence, Stage, Watch};
use std::process::Command;
use std::time::{Duration, Instant};

/// No more than TCP sends before anything is acknowledged.
const LEN: u32 = 14_000;

/// What TCP had sent was taken for transmitted, though most of it waited in a queue of
/// the device's; and the stamp that came when it had left was thrown away.
#[test]
fn what_waits_in_a_queue_is_not_transmitted() {
    apart(|peer| {
        if !queue_slowly() {
            return eprintln!("n/a here: tc cannot make a queue");
        }
        for (kind, without) in [
            (BackendKind::Epoll, ""),
            (BackendKind::Epoll, "timestamps"),
            (BackendKind::Fallback, ""),
        ] {
            let accepted = peer.begin();
            peer.acknowledge_to(0);
            let mut world = World::new(kind, without);
            let attached = world.driver.attach(accepted, &AttachOptions::default());
            let connection = attached.expect("attaches").connection;
            world.submit(connection, vec![1; LEN as usize], Watch::ALL);
            let end = Instant::now() + Duration::from_secs(30);
            let mut told = Vec::new();
            while told.is_empty() {
                assert!(Instant::now() < end, "{kind} without {without:?}: not told");
                let (_, events) = world.turns(Duration::from_millis(5));
                let left = peer.read_all();
                told = reached(&events, Stage::Transmitted).iter().map(|it| it.evidence).collect();
                assert!(
                    told.is_empty() || left == LEN,
                    "{kind} without {without:?}: {left} of {LEN} bytes have left: {told:?}"
                );
                peer.acknowledge_to(left);
            }
            if world.driver.counters().stamps_recovered == 0 && without.is_empty() {
                let exact = kind == BackendKind::Epoll;
                assert_eq!(told == [Evidence::Kernel], exact, "{kind}: {told:?}");
            }
        }
    });
}

/// Has the device take some ten kilobytes a second, and lets the rest wait.
fn queue_slowly() -> bool {
    let made = Command::new("tc")
        .args(["qdisc", "add", "dev", DEVICE, "root", "tbf"])
        .args(["rate", "80kbit", "burst", "2000", "limit", "200000"])
        .status();
    made.is_ok_and(|status| status.success())
}
