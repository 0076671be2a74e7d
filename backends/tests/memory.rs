//! What is left of drivers that are gone, in a process of its own.
#![cfg(target_os = "linux")]

use lastbyte::{Choice, DriverConfig, EventQueue, Restrictions};
use std::time::Duration;

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("reads");
    let pages = statm.split(' ').nth(1).expect("a second field");
    pages.parse::<u64>().expect("a number") * 4096
}

/// A ring that waits in vain for an operation to end leaks the buffers that it may
/// still write to: four megabytes.
#[test]
fn a_dropped_driver_leaves_nothing_behind() {
    for &kind in lastbyte_backends::BUILT {
        let backend =
            lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()).expect("opens");
        let use_once = || {
            let queue = EventQueue::default();
            let mut driver =
                backend.driver(&DriverConfig::default(), Box::new(queue.sink())).expect("a driver");
            driver.turn(Some(Duration::ZERO)).expect("turns");
            driver.waker().wake();
            driver.turn(Some(Duration::ZERO)).expect("turns");
        };
        use_once();
        let before = resident();
        (0..20).for_each(|_| use_once());
        let more = resident().saturating_sub(before);
        assert!(more < 16 << 20, "{kind}: {more} bytes after 20 drivers");
    }
}
