//! Connections without TLS on a driver that has it.

use crate::records::{ALERT, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE, keys};
use crate::scripted::{Scripted, ScriptedBackend};
use crate::world::{World, options, pair, provider};
use lastbyte::{
    BackendKind, ConnectionId, ControlRecord, Driver, DriverConfig, Event, OffloadError,
    OffloadOptions, OffloadWish, Offloaded, Received, ReceivedRecord, RefuseReason, TlsCipher,
    TlsRole, TlsSession, TlsVersion, Transport,
};
use lastbyte_backends::tls::TlsTerms;
use std::io::Write;
use std::sync::Arc;

const CIPHER: TlsCipher = TlsCipher::Aes128Gcm;

fn offload(driver: &mut dyn Driver, id: ConnectionId) -> Result<Offloaded, OffloadError> {
    let session = TlsSession {
        version: TlsVersion::Tls13,
        cipher: CIPHER,
        transmit: keys(CIPHER, 1, 0),
        receive: keys(CIPHER, 2, 0),
        early_data: Vec::new(),
        record_limit: u64::MAX,
    };
    driver.offload_tls(id, session, OffloadOptions::from(OffloadWish::Require))
}

#[test]
fn they_can_be_read_by_length() {
    let mut world = World::new(BackendKind::Epoll);
    let (near, mut far) = pair();
    let id = world.attach_as(near, &TlsRole::Plain);
    far.write_all(b"header and body").unwrap();
    let mut got = Vec::new();
    while got.len() < 15 {
        world.driver.receive_at_most(id, 5).unwrap();
        let events = world.until(|events| !events.is_empty());
        let [Event::Received { received: Received::Data(data), .. }] = &events[..] else {
            panic!("{events:?}");
        };
        assert!(data.len() <= 5, "{} bytes at once", data.len());
        got.extend_from_slice(data);
    }
    assert_eq!(got, b"header and body");
}

/// The user's own TLS session, where the kernel takes its records.
#[test]
fn their_record_layer_can_be_handed_on() {
    let script = Scripted::default();
    script.line().takes_records = true;
    let inner = Arc::new(ScriptedBackend::new(&script));
    let terms = provider(&TlsTerms::default());
    let mut world = World::with(inner, terms, options(), &DriverConfig::default());
    let id = world.attach_as(pair().0, &TlsRole::Plain);
    let offloaded = offload(&mut *world.driver, id).unwrap();
    assert_eq!(offloaded.transmit, Transport::KernelTls);
    let update = ControlRecord { content_type: HANDSHAKE, content: KEY_UPDATE.to_vec() };
    let bye = ControlRecord { content_type: ALERT, content: CLOSE_NOTIFY.to_vec() };
    world.driver.update_transmit_key(id, update.clone(), keys(CIPHER, 1, 1)).unwrap();
    world.driver.submit_record(id, bye.clone()).unwrap();
    assert_eq!(script.line().control, [update.clone(), bye]);
    script.line().records.push_back(update.clone());
    let events = world.turn();
    let [Event::ReceivedRecord { record: ReceivedRecord::Control(told), .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(*told, update);
    world.driver.update_receive_key(id, keys(CIPHER, 2, 1)).unwrap();
    assert_eq!(script.line().next_keys, 1);
}

/// What the TLS layer does for a connection nobody else does, as well.
#[test]
fn those_with_tls_are_left_to_it() {
    let script = Scripted::default();
    script.line().takes_records = true;
    let inner = Arc::new(ScriptedBackend::new(&script));
    let terms = provider(&TlsTerms::default());
    let mut world = World::with(inner, terms, options(), &DriverConfig::default());
    let id = world.attach(pair().0);
    let driver = &mut *world.driver;
    let asked = driver.receive_at_most(id, 5);
    assert!(matches!(asked, Err(RefuseReason::Unsupported { .. })), "{asked:?}");
    let refused = offload(driver, id);
    assert!(matches!(refused, Err(OffloadError::Refused(_))), "{refused:?}");
    let bye = ControlRecord { content_type: ALERT, content: CLOSE_NOTIFY.to_vec() };
    assert_eq!(driver.submit_record(id, bye.clone()).unwrap_err().value, bye);
    assert!(driver.update_transmit_key(id, bye, keys(CIPHER, 1, 1)).is_err());
    assert!(driver.update_receive_key(id, keys(CIPHER, 2, 1)).is_err());
    let line = script.line();
    assert!(line.control.is_empty() && line.next_keys == 0, "it got through");
}
