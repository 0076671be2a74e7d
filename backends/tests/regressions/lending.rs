//! Memory lent to the kernel on sockets that somebody else has used before.

use crate::world::{World, pair, reached};
use lastbyte::{
    BackendKind, Choice, DriverConfig, Facility, Method, Payload, Pool, PooledBuf, Restrictions,
    Socket, Stage, Watch,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Longer than any of the payloads.
const SIZE: usize = 300_000;
const LENS: [usize; 3] = [2_000, SIZE, SIZE];
/// What memory is filled with as soon as it is back, and nothing else is.
const REUSED: u8 = b'X';

/// Where `MSG_ZEROCOPY` had been used and was switched off again, each notification
/// gave back the next call's memory, which was still being sent, and the last call's
/// was never given back.
#[test]
fn memory_is_kept_on_a_socket_that_was_lent_memory_before() {
    for kind in lends() {
        // Done before, and with most of it still to be sent.
        for early in [&[100][..], &[130_000; 3]] {
            let (near, mut far) = pair();
            set_zero_copy(&near, true);
            let early: usize = early.iter().map(|&len| send_zero_copy(&near, len)).sum();
            set_zero_copy(&near, false);
            let mut world = world(kind);
            let connection = world.attach(near).connection;
            let pool = Pool::new(SIZE, LENS.len());
            for (n, len) in LENS.into_iter().enumerate() {
                let mut buffer = pool.take();
                buffer.fill_from(&vec![b'0' + n as u8; len]);
                world.submit(connection, Payload::from(buffer), Watch::ACKED);
            }
            let total = early + LENS.iter().sum::<usize>();
            let (mut got, mut methods, mut reused) = (Vec::new(), Vec::new(), Vec::new());
            let end = Instant::now() + Duration::from_secs(20);
            while got.len() < total || world.driver.counters().unreleased_bytes > 0 {
                let counters = world.driver.counters();
                assert!(Instant::now() < end, "{kind}: {} of {total}, {counters:?}", got.len());
                let (_, events) = world.turns(Duration::from_millis(20));
                let released = reached(&events, Stage::Released);
                methods.extend(released.iter().map(|completion| completion.method));
                drop(events);
                reuse(&pool, &mut reused);
                read_some(&mut far, &mut got, total);
            }
            let early = got.iter().filter(|&&byte| byte == REUSED).count();
            assert_eq!(early, 0, "{kind}: bytes of memory that was given back too early");
            assert_eq!(world.driver.counters().pinned_bytes, 0, "{kind}");
            assert_eq!(methods.len(), LENS.len(), "{kind}");
            if kind == BackendKind::Epoll {
                assert_eq!(methods, [Method::Copy; 3], "{kind}");
            }
        }
    }
}

/// The same would do for sockets on which zero copy is known never to have been
/// used, and those are most that a user connects.
#[test]
fn memory_is_lent_on_a_socket_that_nothing_was_written_to() {
    for kind in lends() {
        for (written, unlent) in [(false, false), (true, false), (true, true)] {
            let (mut near, far) = pair();
            if written {
                near.write_all(b"hello").expect("writes");
            }
            let mut world = world(kind);
            let socket = Socket::from(near);
            let socket = if unlent { socket.unlent() } else { socket };
            let connection = world.attach(socket).connection;
            let peer = crate::world::reader(far, Duration::ZERO);
            world.submit(connection, vec![1; SIZE], Watch::ACKED);
            let events = world.until(|events| !reached(events, Stage::Released).is_empty());
            let method = reached(&events, Stage::Released)[0].method;
            let lent = matches!(method, Method::ZeroCopy | Method::ZeroCopyRefused);
            // The notifications of a ring say by themselves what they are of.
            let expected = !written || unlent || kind == BackendKind::IoUring;
            assert_eq!(lent, expected, "{kind}, {written}, {unlent}");
            drop(world);
            // It may have been reset.
            drop(peer.join());
        }
    }
}

/// The backends that lend memory on this kernel.
fn lends() -> Vec<BackendKind> {
    let ways =
        [(BackendKind::Epoll, Facility::ZeroCopy), (BackendKind::IoUring, Facility::UringZeroCopy)];
    let mut kinds = Vec::new();
    for (kind, needed) in ways {
        let backend = lastbyte_backends::open(Choice::Only(kind), &Restrictions::none());
        if backend.is_ok_and(|backend| backend.report().has(needed)) {
            kinds.push(kind);
        } else {
            eprintln!("n/a on this kernel: {kind} lends no memory");
        }
    }
    kinds
}

fn world(kind: BackendKind) -> World {
    let mut config = DriverConfig::default();
    config.zero_copy_threshold = 1_000;
    World::configured(kind, "", &config)
}

/// Whoever gets memory back may fill it with something else at once.
fn reuse(pool: &Pool, reused: &mut Vec<PooledBuf>) {
    while pool.idle() > 0 {
        let mut buffer = pool.take();
        buffer.fill_from(&[REUSED; SIZE]);
        reused.push(buffer);
    }
}

/// Slower than it is sent.
fn read_some(far: &mut TcpStream, got: &mut Vec<u8>, total: usize) {
    far.set_nonblocking(true).expect("O_NONBLOCK");
    let mut buffer = vec![0; 64 << 10];
    if got.len() < total
        && let Ok(n) = far.read(&mut buffer)
    {
        got.extend_from_slice(&buffer[..n]);
    }
}

fn set_zero_copy(socket: &TcpStream, on: bool) {
    let value = libc::c_int::from(on);
    // SAFETY: `value` is valid for reads of its size, which is four.
    let result = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ZEROCOPY);
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sends up to `len` bytes by one call, and says how many.
fn send_zero_copy(socket: &TcpStream, len: usize) -> usize {
    // The kernel may read it for as long as it likes.
    let bytes: &'static [u8] = vec![b'p'; len].leak();
    // SAFETY: `bytes` is valid for reads of `len` bytes, for ever.
    let sent = unsafe {
        let flags = libc::MSG_ZEROCOPY | libc::MSG_DONTWAIT;
        libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), len, flags)
    };
    usize::try_from(sent).expect("sends")
}
