//! Users who hand their own TLS sessions to the kernel, and ask for input before they
//! have given it the key.

use crate::records::{Crypto, DATA, HANDSHAKE, KEY_UPDATE, keys};
use crate::world::{BACKENDS, PATIENCE, pair, plain};
use lastbyte::{
    AttachOptions, BackendKind, ConnectionId, ControlRecord, Driver, DriverConfig, Event,
    EventQueue, Facility, OffloadOptions, OffloadWish, Received, ReceivedRecord, Restrictions,
    TlsCipher, TlsSession, TlsVersion,
};
use std::io::Write;
use std::time::{Duration, Instant};

const CIPHER: TlsCipher = TlsCipher::Aes128Gcm;

/// The answer to one `receive`: what was opened, or the record.
fn answer(
    driver: &mut dyn Driver,
    queue: &mut EventQueue,
    id: ConnectionId,
) -> Result<Vec<u8>, ReceivedRecord> {
    driver.receive(id).unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "no answer comes");
        driver.turn(Some(Duration::from_millis(50))).unwrap();
        if let Some(event) = queue.pop() {
            match event {
                Event::Received { received: Received::Data(data), .. } => return Ok(data.to_vec()),
                Event::ReceivedRecord { record, .. } => return Err(record),
                event => panic!("{event:?}"),
            }
        }
    }
}

#[test]
fn who_asks_before_the_key_is_there_is_answered_and_goes_on_with_it() {
    let report = lastbyte_backends::report(&Restrictions::none());
    if !report.has(Facility::TlsRekey) {
        println!("n/a: this kernel does not change keys");
        return;
    }
    for &kind in BACKENDS.iter().filter(|kind| **kind != BackendKind::Fallback) {
        let mut queue = EventQueue::default();
        let mut driver =
            plain(kind).driver(&DriverConfig::default(), Box::new(queue.sink())).unwrap();
        let (near, mut far) = pair();
        let id = driver.attach(near.into(), &AttachOptions::default()).unwrap().connection;
        let session = TlsSession {
            version: TlsVersion::Tls13,
            cipher: CIPHER,
            transmit: keys(CIPHER, 1, 0),
            receive: keys(CIPHER, 2, 0),
            early_data: Vec::new(),
            record_limit: u64::MAX,
        };
        let options = OffloadOptions::from(OffloadWish::Require);
        let _offloaded = driver.offload_tls(id, session, options).unwrap();
        let mut sealing = Crypto::new(TlsVersion::Tls13, CIPHER, 2);
        far.write_all(&sealing.seal(HANDSHAKE, &KEY_UPDATE)).unwrap();
        sealing.update();
        far.write_all(&sealing.seal(DATA, b"with the next key")).unwrap();
        let driver = &mut *driver;
        let update = ControlRecord { content_type: HANDSHAKE, content: KEY_UPDATE.to_vec() };
        let first = answer(driver, &mut queue, id);
        assert_eq!(first, Err(ReceivedRecord::Control(update)), "{kind}");
        // Each time, not only the first.
        for _ in 0..3 {
            let early = answer(driver, &mut queue, id);
            assert!(matches!(early, Err(ReceivedRecord::Unopened { .. })), "{kind}: {early:?}");
        }
        driver.update_receive_key(id, keys(CIPHER, 2, 1)).unwrap();
        let opened = answer(driver, &mut queue, id);
        assert_eq!(opened, Ok(b"with the next key".to_vec()), "{kind}");
    }
}
