//! More connections have input than there is memory to receive ahead into.

use lastbyte::{
    AttachOptions, Choice, ConnectionId, Driver, DriverConfig, Event, Payload, Received,
    Restrictions, Watch,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PEERS: usize = 300;

/// From room for one receive to room for a few.
const AHEAD: [u64; 3] = [0, 256 << 10, 768 << 10];

/// Peers that ask again as soon as they are answered, until told to stop.
fn peers(address: std::net::SocketAddr, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut peers: Vec<_> =
            (0..PEERS).map(|_| TcpStream::connect(address).expect("connects")).collect();
        for peer in &mut peers {
            peer.set_nonblocking(true).expect("sets");
            peer.write_all(b"?").expect("asks");
        }
        while !stop.load(Ordering::Relaxed) {
            for peer in &mut peers {
                if matches!(peer.read(&mut [0; 16]), Ok(1..)) {
                    peer.write_all(b"?").expect("asks");
                }
            }
        }
    })
}

/// Whoever asks is answered, however few can be received from ahead.
#[test]
fn everybody_is_received_from() {
    for (&kind, ahead) in lastbyte_backends::BUILT.iter().flat_map(|kind| AHEAD.map(|n| (kind, n)))
    {
        let backend =
            lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()).expect("opens");
        let (sink, events) = lastbyte::event_channel();
        let mut config = DriverConfig::default();
        config.receive_ahead = ahead;
        let mut driver = backend.movable_driver(&config, Box::new(sink)).expect("a driver");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stop = Arc::new(AtomicBool::new(false));
        let asking = peers(listener.local_addr().expect("an address"), &stop);
        let mut served: HashMap<ConnectionId, u32> = HashMap::new();
        for _ in 0..PEERS {
            let (socket, _) = listener.accept().expect("accepts");
            let attached = driver.attach(socket.into(), &AttachOptions::default());
            let connection = attached.expect("attaches").connection;
            driver.receive(connection).expect("asks");
            served.insert(connection, 0);
        }
        let turned = serve(&mut *driver, &events, &mut served);
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("no peer fails");
        let (all, most) = (served.values().sum::<u32>(), served.values().max());
        let least = served.values().min().copied().unwrap_or_default();
        assert!(
            least >= 3,
            "{kind}, {ahead}: {least} times, others {most:?} times, {all} in {turned} turns"
        );
    }
}

/// Answers until everybody was answered three times, or somebody forty times as often.
fn serve(
    driver: &mut dyn Driver,
    events: &mpsc::Receiver<Event>,
    served: &mut HashMap<ConnectionId, u32>,
) -> u32 {
    let end = Instant::now() + Duration::from_secs(20);
    let mut turned = 0;
    while served.values().any(|&times| times < 3)
        && served.values().all(|&times| times < 120)
        && Instant::now() < end
    {
        driver.turn(Some(Duration::from_millis(100))).expect("turns");
        turned += 1;
        for event in events.try_iter() {
            let Event::Received { connection, received: Received::Data(_), .. } = event else {
                continue;
            };
            *served.get_mut(&connection).expect("it is known") += 1;
            let answer = Payload::from(&b"!"[..]);
            driver.submit(connection, answer, Watch::NONE).expect("submits");
            driver.receive(connection).expect("asks");
        }
    }
    turned
}
