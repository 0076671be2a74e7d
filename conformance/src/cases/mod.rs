//! The contract, one file a number.

mod c01_connecting;
mod c01_exactly_once;
mod c02_order;
mod c03_truth;
#[cfg(target_os = "linux")]
mod c03_truth_between_namespaces;
mod c03_truth_over_a_link;
mod c04_nothing_lost;
mod c05_memory;
#[cfg(target_os = "linux")]
mod c05_memory_elsewhere;
#[cfg(target_os = "linux")]
mod c05_memory_in_a_queue;
#[cfg(target_os = "linux")]
mod c05_memory_over_a_link;
#[cfg(target_os = "linux")]
mod c05_registered_memory;
mod c06_time;
mod c07_refusal;
mod c08_degradation;
mod c09_zero_copy;
mod c10_no_plaintext_leak;
#[cfg(target_os = "linux")]
mod c10_refused_keys;
mod c11_keys_of_others;
mod c11_tls_is_complete;
mod c11_tls_is_robust;
mod c11_tls_of_others;
mod c12_close;
mod c12_finish;
mod c13_table;
mod c14_hostile_peers;
mod c15_any_runtime;

pub(crate) use c13_table::C13_CELLS;

use crate::failure::{Failure, ensure};
use crate::peers::{End, Peer};
use crate::rig::{PATIENCE, Rig};
use crate::{Case, Lack, Proof};
use lastbyte::{CloseOutcome, ConnectionId, Driver, StageEvidence, Watch};
use std::time::{Duration, Instant};

/// Every case, in the order of the contract.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        c01_exactly_once::cases(),
        c01_connecting::cases(),
        c02_order::cases(),
        c03_truth::cases(),
        c03_truth_over_a_link::cases(),
        #[cfg(target_os = "linux")]
        c03_truth_between_namespaces::cases(),
        c04_nothing_lost::cases(),
        c05_memory::cases(),
        #[cfg(target_os = "linux")]
        c05_memory_elsewhere::cases(),
        #[cfg(target_os = "linux")]
        c05_memory_over_a_link::cases(),
        #[cfg(target_os = "linux")]
        c05_memory_in_a_queue::cases(),
        #[cfg(target_os = "linux")]
        c05_registered_memory::cases(),
        c06_time::cases(),
        c07_refusal::cases(),
        c08_degradation::cases(),
        c09_zero_copy::cases(),
        c10_no_plaintext_leak::cases(),
        #[cfg(target_os = "linux")]
        c10_refused_keys::cases(),
        c11_tls_is_complete::cases(),
        c11_keys_of_others::cases(),
        c11_tls_is_robust::cases(),
        c11_tls_of_others::cases(),
        c12_close::cases(),
        c12_finish::cases(),
        c13_table::cases(),
        c14_hostile_peers::cases(),
        c15_any_runtime::cases(),
    ]
    .concat()
}

/// Every set of stages that can be watched.
const WATCHES: [Watch; 8] = [
    Watch::NONE,
    Watch::QUEUED,
    Watch::TRANSMITTED,
    Watch::ACKED,
    Watch::QUEUED.union(Watch::TRANSMITTED),
    Watch::QUEUED.union(Watch::ACKED),
    Watch::TRANSMITTED.union(Watch::ACKED),
    Watch::ALL,
];

/// Ends the connection gracefully; the peer must have got every byte and FIN.
fn close_and_compare<D: Driver + ?Sized>(
    rig: &mut Rig<D>,
    connection: ConnectionId,
    peer: Peer,
) -> Result<(), Failure> {
    let len = rig.position(connection);
    rig.close(connection)?;
    expect_graceful(rig, connection)?;
    peer.join()?.expect(len, End::Finished)
}

/// The connection closed without loss, and says whether that is certain.
fn expect_graceful<D: Driver + ?Sized>(
    rig: &Rig<D>,
    connection: ConnectionId,
) -> Result<(), Failure> {
    match &rig.record.line(connection).closed {
        Some(CloseOutcome::Graceful) => Ok(()),
        Some(CloseOutcome::Unconfirmed) if !rig.learns_of_fin => Ok(()),
        other => Err(Failure::new(format!("closed as {other:?}"))),
    }
}

/// Nothing may be left behind when every transfer has ended.
fn expect_nothing_held<D: Driver + ?Sized>(rig: &mut Rig<D>) -> Result<(), Failure> {
    let counters = rig.driver().counters();
    let held = (counters.unreleased_bytes, counters.pinned_bytes, counters.leaked_bytes);
    ensure!(held == (0, 0, 0), "(unreleased, pinned, leaked) bytes are {held:?} after the end");
    let sealed = counters.ciphertext_bytes;
    ensure!(sealed == 0, "{sealed} bytes of ciphertext are held after the end");
    let alive = rig.record.transfers().filter_map(|told| told.canary.as_ref());
    let alive = alive.filter(|canary| canary.is_alive()).count();
    ensure!(alive == 0, "{alive} payloads that came back and were dropped still exist");
    Ok(())
}

/// What a case about acknowledgement has shown: where a connection cannot know
/// of them, that it says so every time (the record insists on that).
fn acks_shown<D: Driver + ?Sized>(rig: &Rig<D>, connection: ConnectionId) -> Proof {
    match rig.record.line(connection).support.acked {
        StageEvidence::Unavailable => Proof::substitute(
            Lack::of("any way to learn of acknowledgement"),
            "each Acked says that it is Unavailable, and every byte arrives",
        ),
        _ => Proof::full(),
    }
}

/// A driver may linger for a peer that has not closed, but not for ever.
fn expect_let_go(rig: &mut Rig) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while rig.driver().counters().connections > 0 {
        ensure!(Instant::now() < deadline, "closed connections are counted for ever");
        rig.turn(Duration::from_millis(10))?;
    }
    Ok(())
}

/// That the kernel had no room to pin a payload, for a case in which nothing
/// was zero-copied: the facility exists then, and there is no room for it.
fn no_room<D: Driver + ?Sized>(rig: &mut Rig<D>) -> Option<Lack> {
    let no_room = rig.driver().counters().zero_copy_no_room;
    (no_room > 0).then(|| Lack {
        what: "room for zero copy (RLIMIT_MEMLOCK or net.core.optmem_max)".into(),
        errno: Some(libc::ENOBUFS),
    })
}
