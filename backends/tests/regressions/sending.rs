//! Files on their way out.

use crate::world::{BOTH, World, content, is_closed, pair, reached, reader};
use lastbyte::{BackendKind, CloseOutcome, Event, FileRange, Payload, Stage, Watch};
use lastbyte_backends::SealedMemory;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What `sendfile` refused ended the connection.
#[test]
fn a_file_that_sendfile_refuses_is_read() {
    for kind in BOTH {
        let mut world = World::new(kind, "");
        let (near, far) = pair();
        let peer = reader(far, Duration::ZERO);
        let connection = world.attach(near).connection;
        // A file without a page cache, and with content that is known.
        let memory = content(200_003);
        let file = File::open("/proc/self/mem").expect("procfs");
        let address = memory.as_ptr().addr() as u64;
        let mut read = vec![0; memory.len()];
        if file.read_exact_at(&mut read, address).is_err() || read != memory {
            return; // An emulator shows its own memory there.
        }
        let range = FileRange::new(Arc::new(file), address, memory.len() as u64);
        let payload = Payload::from(&b"header"[..]).with(range).with(&b"trailer"[..]);
        world.submit(connection, payload, Watch::ALL);
        world.close(connection);
        let events = world.until(is_closed);
        let last = events.last();
        assert!(
            matches!(last, Some(Event::Closed { outcome: CloseOutcome::Graceful, .. })),
            "{kind}: {events:?}"
        );
        assert_eq!(reached(&events, Stage::Acked).len(), 1, "{kind}: {events:?}");
        drop(world);
        let expected = [&b"header"[..], &memory, b"trailer"].concat();
        assert!(peer.join().expect("the peer") == expected, "{kind}: other bytes");
    }
}

/// A call that a signal cut short was taken for one that had filled the send
/// buffer, and nothing signals room that was there all the time.
#[test]
fn a_signal_in_sendfile_does_not_stop_the_transfer() {
    const LEN: usize = 64 << 20;
    let mut world = World::new(BackendKind::Epoll, "");
    let (near, far) = pair();
    let got = Arc::new(AtomicUsize::new(0));
    let peer = {
        let got = Arc::clone(&got);
        std::thread::spawn(move || check(far, &got))
    };
    let body = SealedMemory::filled(LEN, &content(251)).expect("sealed memory");
    let connection = world.attach(near).connection;
    let alarms = alarms(Duration::from_micros(300));
    let range = FileRange::new(Arc::new(body), 0, LEN as u64);
    world.submit(connection, range, Watch::ALL);
    world.close(connection);

    // Stuck is who has nothing under way, something to send, and does not.
    let mut events = Vec::new();
    let (mut before, mut since, mut waits) = (0, Instant::now(), 0);
    while !is_closed(&events) {
        events.extend(world.turn(Duration::from_millis(20)));
        let taken = world.driver.counters().bytes.iter().sum::<u64>();
        let arrived = got.load(Ordering::Relaxed) as u64 == taken;
        if taken != before || !arrived {
            (before, since, waits) = (taken, Instant::now(), 0);
            continue;
        }
        waits += 1;
        let stuck = waits > 20 && since.elapsed() > Duration::from_millis(700);
        assert!(!stuck, "nothing moves after {taken} of {LEN} bytes");
    }
    drop(alarms);
    assert_eq!(reached(&events, Stage::Acked).len(), 1, "{events:?}");
    assert_eq!(peer.join().expect("the peer"), LEN);
}

/// Reads to the end and compares.
fn check(mut far: std::net::TcpStream, got: &AtomicUsize) -> usize {
    const PIECE: usize = 1 << 18;
    let expected = content(PIECE + 251);
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let n = far.read(&mut piece).expect("reads");
        if n == 0 {
            return at;
        }
        let from = at % 251;
        assert!(piece[..n] == expected[from..from + n], "other bytes from {at} on");
        at += n;
        got.store(at, Ordering::Relaxed);
    }
}

/// Interrupts the calling thread, no other, every so often until dropped.
fn alarms(every: Duration) -> Arc<()> {
    extern "C" fn ignore(_: libc::c_int) {}
    let handler = ignore as extern "C" fn(libc::c_int);
    // SAFETY: all-zero bytes are a valid `sigaction`: integers, an empty set of
    // signals, and no function.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid for reads, and its handler does nothing.
    let set = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: takes nothing, and cannot fail.
    let thread = unsafe { libc::gettid() };
    let process = libc::pid_t::try_from(std::process::id()).expect("a process id");
    let wanted = Arc::new(());
    let still = Arc::downgrade(&wanted);
    std::thread::spawn(move || {
        while still.strong_count() > 0 {
            // SAFETY: takes integers only. If the thread is gone, it fails.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGALRM) };
            std::thread::sleep(every);
        }
    });
    wanted
}

/// Each call looked for the place where the last had stopped from the first segment on,
/// so that a payload of many kept its driver busy for a time that grew with their square.
#[test]
fn many_segments_take_a_time_that_grows_with_them() {
    for &kind in lastbyte_backends::BUILT {
        let fastest = |segments| (0..5).map(|_| time_to_queue(kind, segments)).min();
        let few = fastest(10_000).expect("five").as_secs_f64();
        let many = fastest(100_000).expect("five").as_secs_f64();
        assert!(many < few * 40.0, "{kind}: {many} s instead of {few} s for a tenth of them");
    }
}

/// How long it takes until the kernel has all of `segments` bytes, each of them a
/// segment, and checks what arrives. It has room for all, and the peer reads when the
/// time is taken, so that waiting for it is no part of that.
fn time_to_queue(kind: BackendKind, segments: usize) -> Duration {
    let mut world = World::new(kind, "");
    let (near, far) = pair();
    let connection = world.attach(near).connection;
    let all = bytes::Bytes::from(content(segments));
    let mut payload = Payload::new();
    for at in 0..segments {
        payload.push(all.slice(at..=at));
    }
    let began = Instant::now();
    world.submit(connection, payload, Watch::ALL);
    world.until(|events| !reached(events, Stage::Queued).is_empty());
    let took = began.elapsed();
    let peer = reader(far, Duration::ZERO);
    world.close(connection);
    world.until(is_closed);
    drop(world);
    assert!(peer.join().expect("the peer") == all, "{kind}: other bytes");
    took
}

/// A call with few bytes took little off what a connection may write in a row, so that
/// a payload of many small segments kept all others waiting until it was written.
#[test]
fn many_segments_let_others_have_their_turn() {
    for &kind in lastbyte_backends::BUILT {
        let mut world = World::new(kind, "");
        let (near, far) = pair();
        let peer = reader(far, Duration::ZERO);
        let connection = world.attach(near).connection;
        let mut payload = Payload::new();
        for _ in 0..100_000 {
            payload.push(&b"x"[..]);
        }
        world.submit(connection, payload, Watch::QUEUED);
        let written = world.driver.counters().bytes.iter().sum::<u64>();
        assert!(written < 50_000, "{kind}: {written} bytes before anybody else's turn");
        world.close(connection);
        world.until(is_closed);
        drop(world);
        assert_eq!(peer.join().expect("the peer").len(), 100_000, "{kind}");
    }
}
