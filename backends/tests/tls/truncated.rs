//! A file that is shorter than was said: the peer is told, by an alert that it can open.

use crate::world::{BACKENDS, World, client, content, pair};
use lastbyte::{CloseOutcome, FailReason, FileRange, FileSource, Payload, TlsVersion, Watch};
use rustls::{AlertDescription, Error};
use std::io::Read;
use std::sync::Arc;

#[test]
fn the_alert_can_be_opened_whatever_was_sealed_before_the_file() {
    const HEAD: usize = 200;
    for &kind in BACKENDS.iter() {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let mut world = World::new(kind);
            let (near, far) = pair();
            let id = world.attach(near);
            let peer = std::thread::spawn(move || {
                client(far, version).read_to_end(&mut Vec::new()).expect_err("it is cut")
            });
            let empty: Arc<dyn FileSource> = Arc::new(tempfile::tempfile().expect("a file"));
            let payload = Payload::from(content(HEAD)).with(FileRange::new(empty, 0, 100_000));
            world.driver.submit(id, payload, Watch::ACKED).expect("submits");
            let outcome = world.outcome();
            let cut = FailReason::FileTruncated { missing: 100_000 };
            assert_eq!(outcome, CloseOutcome::Failed(cut), "{kind}, {version}");
            let error = peer.join().expect("the peer");
            let told = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
            let alert = Error::AlertReceived(AlertDescription::InternalError);
            assert_eq!(told, Some(&alert), "{kind}, {version}: {error}");
        }
    }
}
