//! How much of a transfer the peer had when the connection was given up.

use crate::world::{BACKENDS, World, client, content, options, pair, payloads, plain, provider};
use lastbyte::{Completion, DriverConfig, Event, OffloadWish, Payload, Reached, TlsVersion, Watch};
use lastbyte_backends::tls::TlsTerms;
use std::io::Read;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const LEN: usize = 16 << 20;
/// What the peer reads of it.
const READ: usize = 8 << 20;
/// What may be missing: acknowledgements are asked for every mebibyte, and one call
/// to the kernel is of two at the most.
const UNKNOWN: u64 = 3 << 20;

#[test]
fn what_the_peer_had_is_told_whatever_a_transfer_is_made_of() {
    for &kind in BACKENDS.iter() {
        for (name, payload) in payloads(LEN) {
            let mut options = options();
            options.offload = OffloadWish::Prefer;
            let terms = provider(&TlsTerms::default());
            let mut world = World::with(plain(kind), terms, options, &DriverConfig::default());
            let acked = acked_when_given_up(&mut world, payload);
            let range = READ as u64 - UNKNOWN..LEN as u64;
            assert!(range.contains(&acked), "{kind}, {name}: {acked} of {READ} at least");
        }
    }
}

/// Sends `payload`, gives up once the peer has read enough, and says how much of it
/// the peer is told to have had.
fn acked_when_given_up(world: &mut World, payload: Payload) -> u64 {
    let (near, far) = pair();
    socket2::SockRef::from(&near).set_send_buffer_size(256 << 10).expect("sets");
    socket2::SockRef::from(&far).set_recv_buffer_size(256 << 10).expect("sets");
    let id = world.attach(near);
    let (told, has_read) = channel();
    let (failed, has_failed) = channel::<()>();
    let peer = std::thread::spawn(move || {
        let mut stream = client(far, TlsVersion::Tls13);
        let mut got = vec![0; READ];
        stream.read_exact(&mut got).expect("reads");
        assert!(got == content(LEN)[..READ], "another payload came");
        told.send(()).expect("tells");
        // Holds the socket, and takes no more.
        let _ = has_failed.recv();
    });
    world.driver.submit(id, payload, Watch::ACKED).expect("submits");
    let end = Instant::now() + Duration::from_secs(60);
    while has_read.try_recv().is_err() {
        assert!(Instant::now() < end, "the peer does not get it");
        world.turn_for(Duration::from_millis(1));
    }
    world.driver.abort(id).expect("aborts");
    let mut acked = None;
    while acked.is_none() {
        assert!(Instant::now() < end, "no end");
        acked = world.turn().into_iter().find_map(|event| match event {
            Event::Transfer(Completion { reached: Reached::Failed(failure), .. }) => {
                Some(failure.acked_bytes)
            }
            _ => None,
        });
    }
    drop(failed);
    peer.join().expect("the peer");
    acked.unwrap_or_default()
}
