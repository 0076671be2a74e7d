//! What a peer sends while a connection is being closed.

use crate::records::{ALERT, Fixed, HANDSHAKE, HELLO, KEY_UPDATE};
use crate::scripted::{ID, Scripted, ScriptedBackend};
use crate::world::{PATIENCE, World, content, pair};
use lastbyte::{
    AttachOptions, ControlRecord, DriverConfig, OffloadWish, TlsCipher, TlsRole, TlsVersion, Watch,
};
use lastbyte_backends::tls::TlsOptions;
use std::sync::Arc;

fn world(script: &Scripted, wish: OffloadWish) -> World {
    script.line().takes_records = wish == OffloadWish::Prefer;
    let (version, cipher) = (TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let provider = Fixed { version, cipher, record_limit: u64::MAX };
    let mut options = TlsOptions::default();
    options.offload = wish;
    let inner = Arc::new(ScriptedBackend::new(script));
    World::with(inner, Arc::new(provider), options, &DriverConfig::default())
}

/// A peer that is not read may not read either, whoever seals what it is to get.
#[test]
fn what_comes_is_discarded_while_the_rest_waits_for_room() {
    for wish in [OffloadWish::Never, OffloadWish::Prefer] {
        let script = Scripted::default();
        let mut world = world(&script, wish);
        let mut options = AttachOptions::default();
        options.max_memory = 64 << 10;
        world.driver.attach_tls(pair().0.into(), &options, &TlsRole::Server).unwrap();
        world.driver.submit(ID, content(1 << 20).into(), Watch::ACKED).unwrap();
        script.line().peer_sends(HELLO.to_vec());
        while world.driver.counters().handshakes == 0 {
            world.turn();
        }
        world.driver.close(ID, PATIENCE).unwrap();
        for _ in 0..100 {
            script.line().peer_sends(content(10_000));
        }
        world.until(|_| script.line().is_all_read());
        assert!(!script.line().is_closing(), "{wish:?}: nothing had to wait");
    }
}

#[test]
fn keys_are_changed_until_the_peer_does_not_keep_to_tls() {
    let script = Scripted::default();
    let mut world = world(&script, OffloadWish::Prefer);
    world.attach(pair().0);
    script.line().peer_sends(HELLO.to_vec());
    while world.driver.counters().handshakes == 0 {
        world.turn();
    }
    // Nobody takes this, so that it does not end.
    world.driver.submit(ID, content(1000).into(), Watch::ACKED).unwrap();
    world.driver.close(ID, PATIENCE).unwrap();
    let mut tell = |content_type, content: &[u8]| {
        script.line().records.push_back(ControlRecord { content_type, content: content.to_vec() });
        world.turn();
        assert!(!script.line().is_closed(), "it did not wait for its payload");
        script.line().next_keys
    };
    // More of them than there may be in a row: what came between is not known here.
    for n in 1..=40 {
        assert_eq!(tell(HANDSHAKE, &KEY_UPDATE), n);
    }
    // An alert that is cut.
    tell(ALERT, &[1]);
    for _ in 0..3 {
        assert_eq!(tell(HANDSHAKE, &KEY_UPDATE), 40, "it was heeded all the same");
    }
}
