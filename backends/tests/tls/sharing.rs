//! The driver's memory is for all of its connections.

use crate::records::{Fixed, HELLO};
use crate::scripted::{Scripted, ScriptedBackend};
use crate::world::{
    BACKENDS, PATIENCE, World, client, content, is_closed, options, pair, plain, provider, reached,
};
use lastbyte::{
    AttachOptions, DriverConfig, Event, FileRange, FileSource, OffloadWish, Stage, TlsCipher,
    TlsRole, TlsVersion, Watch,
};
use lastbyte_backends::tls::{TlsOptions, TlsTerms};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One connection that always has something to seal does not keep another from its
/// handshake, nor from what it has to send.
#[test]
fn who_has_much_to_send_leaves_room_for_the_others() {
    const LEN: u64 = 64 << 20;
    for &kind in BACKENDS.iter() {
        let mut config = DriverConfig::default();
        config.max_memory = 128 << 10;
        let terms = provider(&TlsTerms::default());
        let mut world = World::with(plain(kind), terms, options(), &config);
        let (near, far) = pair();
        socket2::SockRef::from(&near).set_send_buffer_size(64 << 10).unwrap();
        let busy = world.attach(near);
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let file: Arc<dyn FileSource> = Arc::new(file);
        world.driver.submit(busy, FileRange::new(file, 0, LEN).into(), Watch::ACKED).unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let is_enough = Arc::clone(&enough);
        let slow = thread::spawn(move || {
            let (mut stream, mut piece, mut got) = (client(far, TlsVersion::Tls13), [0; 8192], 0);
            while !is_enough.load(Ordering::Relaxed) {
                got += stream.read(&mut piece).unwrap() as u64;
                thread::sleep(Duration::from_millis(2));
            }
            got
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            world.turn();
        }
        let (near, far) = pair();
        let other = world.attach(near);
        let peer = thread::spawn(move || {
            let (mut stream, mut got) = (client(far, TlsVersion::Tls13), [0; 5]);
            stream.write_all(b"hi")?;
            stream.read_exact(&mut got).map(|()| (got, stream))
        });
        world.driver.submit(other, b"hello".to_vec().into(), Watch::ACKED).unwrap();
        let of_other = |events: &[Event]| {
            reached(events, Stage::Acked).iter().any(|told| told.connection == other)
        };
        let events = world.until(|events| of_other(events) || events.iter().any(is_closed));
        assert!(of_other(&events), "{kind}: {events:?}");
        assert_eq!(&peer.join().unwrap().unwrap().0, b"hello", "{kind}");
        // And the first one goes on all the while.
        let before = world.driver.counters().sealed_bytes;
        let end = Instant::now() + PATIENCE;
        while world.driver.counters().sealed_bytes < before + (1 << 20) {
            assert!(Instant::now() < end, "{kind}: the first one waits for ever");
            world.turn();
        }
        enough.store(true, Ordering::Relaxed);
        world.until(|_| slow.is_finished());
        let got = slow.join().unwrap();
        assert!(got < LEN, "{kind}: it was all there");
    }
}

/// Room of its own comes with a completion of its own. Thousands of connections whose
/// peers do not read would otherwise be tried with each turn of everybody else's.
#[test]
fn who_lacks_room_of_its_own_is_not_tried_again_before_there_is_some() {
    for wish in [OffloadWish::Never, OffloadWish::Prefer] {
        let script = Scripted::default();
        script.line().takes_records = wish == OffloadWish::Prefer;
        let cipher = TlsCipher::Aes128Gcm;
        let fixed = Fixed { version: TlsVersion::Tls13, cipher, record_limit: u64::MAX };
        let mut options = TlsOptions::default();
        options.offload = wish;
        let inner = Arc::new(ScriptedBackend::new(&script));
        let mut world = World::with(inner, Arc::new(fixed), options, &DriverConfig::default());
        let mut attach = AttachOptions::default();
        attach.max_memory = 64 << 10;
        let attached = world.driver.attach_tls(pair().0.into(), &attach, &TlsRole::Server);
        let id = attached.unwrap().connection;
        world.driver.submit(id, content(1 << 20).into(), Watch::ACKED).unwrap();
        script.line().peer_sends(HELLO.to_vec());
        while world.driver.counters().handshakes == 0 {
            world.turn();
        }
        // The handshake's answer is in the way, and the peer takes nothing.
        world.turn();
        let before = script.line().submissions;
        for _ in 0..10 {
            world.turn();
        }
        let tries = script.line().submissions - before;
        assert_eq!(tries, 0, "{wish:?}: tried again while nothing had changed");
        world.until(|events| {
            let mut line = script.line();
            line.accept(1 << 14, false);
            line.acknowledge(usize::MAX);
            !reached(events, Stage::Acked).is_empty()
        });
    }
}
