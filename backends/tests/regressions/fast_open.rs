//! Connections that are accepted with data in their SYN (`TCP_FASTOPEN`, RFC 7413):
//! they can be written to before the peer has completed the handshake.

use crate::apart::apart;
use crate::world::{World, reached};
use lastbyte::{AttachOptions, BackendKind, RefuseReason, Stage, Watch};
use std::io::Write;
use std::time::Duration;

/// As long as a handshake is not complete the kernel shows an empty out-queue, which
/// was taken for everything being acknowledged.
#[test]
fn half_a_handshake_acknowledges_nothing() {
    apart(|peer| {
        for (kind, without) in [
            (BackendKind::Epoll, ""),
            (BackendKind::Epoll, "timestamp-id-tcp"),
            (BackendKind::Epoll, "timestamps,tcp-info"),
            (BackendKind::Fallback, ""),
            (BackendKind::Fallback, "tcp-info"),
        ] {
            let accepted = peer.begin();
            let mut world = World::new(kind, without);
            let attached =
                world.driver.attach(accepted, &AttachOptions::default()).expect("attaches");
            world.submit(attached.connection, &[1; 100][..], Watch::ALL);
            let (_, events) = world.turns(Duration::from_millis(300));
            let told = reached(&events, Stage::Acked);
            assert!(told.is_empty(), "{kind} without {without:?}: {told:?}");
            peer.acknowledge();
            let events = world.until(|events| !reached(events, Stage::Acked).is_empty());
            assert_eq!(reached(&events, Stage::Acked).len(), 1, "{kind} without {without:?}");
        }
    });
}

/// What was written before could not be counted, and its acknowledgement was taken for
/// that of what was written later.
#[test]
fn what_was_written_into_half_a_handshake_acknowledges_nothing() {
    apart(|peer| {
        for (kind, without) in [
            (BackendKind::Epoll, ""),
            (BackendKind::Epoll, "timestamp-id-tcp"),
            (BackendKind::Fallback, ""),
            (BackendKind::Fallback, "tcp-info"),
        ] {
            let accepted = peer.begin();
            accepted.stream().write_all(&[0; 200]).expect("writes");
            let mut world = World::new(kind, without);
            match world.driver.attach(accepted, &AttachOptions::default()) {
                Err(refused) => {
                    let RefuseReason::System { errno, .. } = refused.reason else {
                        panic!("{kind} without {without:?}: {:?}", refused.reason)
                    };
                    assert_eq!(errno, libc::EBUSY, "{kind} without {without:?}");
                }
                Ok(attached) => {
                    world.submit(attached.connection, &[1; 100][..], Watch::ALL);
                    peer.read_to(300);
                    peer.acknowledge_to(200);
                    let (_, events) = world.turns(Duration::from_millis(300));
                    let told = reached(&events, Stage::Acked);
                    assert!(told.is_empty(), "{kind} without {without:?}: {told:?}");
                    peer.acknowledge_to(300);
                    let told = world.until(|events| !reached(events, Stage::Acked).is_empty());
                    assert_eq!(reached(&told, Stage::Acked).len(), 1);
                }
            }
        }
    });
}
