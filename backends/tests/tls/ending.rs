//! What a peer sends while the inner driver ends a connection whose records it opens.

use crate::records::{ALERT, Fixed, HANDSHAKE, HELLO, KEY_UPDATE};
use crate::scripted::{ID, Scripted, ScriptedBackend};
use crate::world::{PATIENCE, World, content, pair};
use lastbyte::{ControlRecord, DriverConfig, OffloadWish, TlsCipher, TlsVersion, Watch};
use lastbyte_backends::tls::TlsOptions;
use std::sync::Arc;

#[test]
fn keys_are_changed_until_the_peer_does_not_keep_to_tls() {
    let script = Scripted::default();
    script.line().takes_records = true;
    let (version, cipher) = (TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let provider = Fixed { version, cipher, record_limit: u64::MAX };
    let mut options = TlsOptions::default();
    options.offload = OffloadWish::Prefer;
    let inner = Arc::new(ScriptedBackend::new(&script));
    let mut world = World::with(inner, Arc::new(provider), options, &DriverConfig::default());
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
