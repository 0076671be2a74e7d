//! Running out of descriptors, in a process of its own.
#![cfg(all(target_os = "linux", not(lastbyte_portable)))]

use lastbyte::{Choice, DriverConfig, Event, EventQueue, Restrictions};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Fewer than a ring accepts ahead.
const ROOM: usize = 100;

fn limits() -> libc::rlimit {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limits` is valid for writes.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) }, 0);
    limits
}

fn set(limits: &libc::rlimit) {
    // SAFETY: `limits` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limits) }, 0);
}

/// Lets no descriptor be made from `limit` on.
fn bound(limit: usize) {
    set(&libc::rlimit { rlim_cur: limit as libc::rlim_t, ..limits() });
}

/// Those for whom there was a descriptor waited with those for whom there was none,
/// and the pause was told before them.
#[test]
fn who_was_accepted_is_told_before_the_pause() {
    for &kind in lastbyte_backends::BUILT {
        let backend = lastbyte_backends::open(Choice::Only(kind), &Restrictions::none());
        let queue = EventQueue::default();
        let mut config = DriverConfig::default();
        config.accept_burst = 8;
        let driver = backend.expect("opens").driver(&config, Box::new(queue.sink()));
        let mut driver = driver.expect("a driver");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let peers: Vec<_> = (0..ROOM + 4).map(|_| TcpStream::connect(address)).collect();
        assert!(peers.iter().all(Result::is_ok), "{kind}");
        let usual = limits();
        let next = std::fs::File::open("/dev/null").expect("opens");
        bound(std::os::fd::AsRawFd::as_raw_fd(&next) as usize + ROOM);
        drop(next);
        driver.listen(listener).expect("listens");
        let (mut accepted, mut told_before) = (Vec::new(), None);
        let end = Instant::now() + Duration::from_secs(20);
        while told_before.is_none() {
            assert!(Instant::now() < end, "{kind}: no pause after {} accepted", accepted.len());
            driver.turn(Some(Duration::from_millis(20))).expect("turns");
            while let Some(event) = queue.pop() {
                match event {
                    Event::Accepted { socket, .. } => accepted.push(socket),
                    Event::AcceptPaused { .. } => {
                        told_before.get_or_insert(accepted.len());
                    }
                    other => panic!("{kind}: {other:?}"),
                }
            }
        }
        set(&usual);
        assert_eq!(told_before, Some(ROOM), "{kind}");
    }
}
