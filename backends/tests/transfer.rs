//! One transfer, end to end, on every backend of this build.

use bytes::Bytes;
use lastbyte::{
    AttachOptions, Backend, Choice, CloseOutcome, Driver, DriverConfig, Event, EventQueue,
    Evidence, Facility, Payload, Reached, Restrictions, Stage, Watch,
};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

fn backends() -> Vec<Arc<dyn Backend>> {
    lastbyte_backends::BUILT
        .iter()
        .map(|&kind| {
            lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()).expect("opens")
        })
        .collect()
}

/// Turns until `done` says so; a hang is a failure.
fn run(
    driver: &mut dyn Driver,
    queue: &EventQueue,
    mut done: impl FnMut(&mut dyn Driver, Event) -> bool,
) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        driver.turn(Some(Duration::from_millis(100))).expect("turns");
        while let Some(event) = queue.pop() {
            if done(driver, event) {
                return;
            }
        }
        assert!(std::time::Instant::now() < deadline, "nothing more happens: {driver:?}");
    }
}

#[test]
fn a_transfer_reaches_every_stage_in_order_and_the_connection_closes() {
    for backend in backends() {
        let report = backend.report();
        let can_look = report.has(Facility::TcpInfo) || report.has(Facility::OutQueue);
        let queue = EventQueue::default();
        let mut driver =
            backend.driver(&DriverConfig::default(), Box::new(queue.sink())).expect("a driver");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        driver.listen(listener).expect("listens");
        let peer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("connects");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("reads");
            all
        });
        let content: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
        let sent = Bytes::from(content.clone());
        let mut stages = Vec::new();
        run(&mut *driver, &queue, |driver, event| {
            match event {
                Event::Accepted { socket, .. } => {
                    let attached =
                        driver.attach(socket, &AttachOptions::default()).expect("attaches");
                    let payload = Payload::from(sent.clone());
                    driver.submit(attached.connection, payload, Watch::ALL).expect("submits");
                    driver.close(attached.connection, Duration::from_secs(10)).expect("closes");
                }
                Event::Transfer(completion) => {
                    assert!(!matches!(completion.reached, Reached::Failed(_)), "{completion:?}");
                    if let Evidence::Bracketed { after } = completion.evidence {
                        assert!(after <= completion.at.monotonic);
                    }
                    stages.push((completion.stage(), completion.at.monotonic));
                }
                Event::Closed { outcome, .. } => {
                    let expected =
                        if can_look { CloseOutcome::Graceful } else { CloseOutcome::Unconfirmed };
                    assert_eq!(outcome, expected, "{}", backend.kind());
                    return true;
                }
                other => panic!("unexpected: {other:?}"),
            }
            false
        });
        assert_eq!(peer.join().expect("the peer"), content, "{}", backend.kind());
        let order: Vec<_> =
            stages.iter().map(|(stage, _)| *stage).filter(|s| *s != Stage::Released).collect();
        assert_eq!(order, [Stage::Queued, Stage::Transmitted, Stage::Acked], "{}", backend.kind());
        assert_eq!(stages.len(), 4, "released once: {stages:?}");
        let counters = driver.counters();
        assert_eq!(counters.unreleased_bytes, 0);
        println!("{}: {stages:?} {counters:?}", backend.kind());
    }
}
