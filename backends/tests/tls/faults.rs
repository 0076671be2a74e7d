//! Each step of handing a session to the kernel fails in turn, by the kernel's
//! own refusal of the call (seccomp): whatever fails, nothing leaves in the
//! clear.
//!
//! A filter holds for the rest of its thread's life, so each case is a thread.

use crate::records::{Crypto, DATA, Fixed, HANDSHAKE, HELLO, KEY_UPDATE_REQUESTED};
use crate::world::{PATIENCE, World, is_closed, outcome_in, pair, plain};
use lastbyte::{
    BackendKind, CloseOutcome, DriverConfig, Event, Facility, FailReason, OffloadWish,
    Restrictions, TlsCipher, TlsFailure, TlsVersion, Transport, Watch,
};
use lastbyte_backends::tls::TlsOptions;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

/// `include/uapi/linux/tls.h`, `include/linux/socket.h`, `asm-generic/unistd.h`.
const SOL_TLS: u64 = 282;
const TLS_TX: u64 = 1;
const TLS_RX: u64 = 2;
const IPPROTO_TCP: u64 = 6;
const TCP_ULP: u64 = 31;
const ENOMEM: u32 = 12;

const SECRET: &[u8] = b"this must never be seen on the wire as it is";

/// From now on this thread's calls fail that set (or read) the option.
fn refuse(call: i64, level: u64, option: u64) {
    let equals = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .expect("a condition")
    };
    let rule = SeccompRule::new(vec![equals(1, level), equals(2, option)]).expect("a rule");
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let filter = SeccompFilter::new(
        [(call, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(ENOMEM),
        arch,
    );
    let program: BpfProgram = filter.expect("a filter").try_into().expect("compiles");
    seccompiler::apply_filter(&program).expect("applies");
}

#[cfg(target_arch = "x86_64")]
const SETSOCKOPT: i64 = 54;
#[cfg(target_arch = "x86_64")]
const GETSOCKOPT: i64 = 55;
#[cfg(not(target_arch = "x86_64"))]
const SETSOCKOPT: i64 = 208;
#[cfg(not(target_arch = "x86_64"))]
const GETSOCKOPT: i64 = 209;

/// What is expected of a step that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    /// No key is in yet: user space goes on.
    UserSpace,
    /// A key is in: the connection is reset.
    Reset,
}

#[test]
fn nothing_leaves_in_the_clear_whatever_step_fails() {
    let report = lastbyte_backends::report(&Restrictions::none());
    if !report.has(Facility::TlsReceive) {
        println!("n/a: {:?}", report.support(Facility::TlsReceive));
        return;
    }
    for kind in [BackendKind::Epoll, BackendKind::IoUring] {
        if lastbyte_backends::open(lastbyte::Choice::Only(kind), &Restrictions::none()).is_err() {
            continue;
        }
        for version in crate::world::VERSIONS {
            if version == TlsVersion::Tls13 && !report.has(Facility::TlsRekey) {
                continue;
            }
            for (call, level, option, then) in [
                (SETSOCKOPT, IPPROTO_TCP, TCP_ULP, Then::UserSpace),
                (SETSOCKOPT, SOL_TLS, TLS_TX, Then::UserSpace),
                (GETSOCKOPT, SOL_TLS, TLS_TX, Then::Reset),
                (SETSOCKOPT, SOL_TLS, TLS_RX, Then::Reset),
            ] {
                for wish in [OffloadWish::Prefer, OffloadWish::Require] {
                    println!("{kind} {version} {call} {option} {wish:?}");
                    thread::spawn(move || {
                        fail_at_hand_over(kind, version, wish, then, || {
                            refuse(call, level, option)
                        });
                    })
                    .join()
                    .expect("the case holds");
                }
            }
        }
        if report.has(Facility::TlsRekey) {
            for (call, option) in [(SETSOCKOPT, TLS_TX), (SETSOCKOPT, TLS_RX), (GETSOCKOPT, TLS_TX)]
            {
                println!("{kind} rekey {call} {option}");
                thread::spawn(move || fail_at_rekey(kind, || refuse(call, SOL_TLS, option)))
                    .join()
                    .expect("the case holds");
            }
        }
    }
}

fn start(
    kind: BackendKind,
    version: TlsVersion,
    wish: OffloadWish,
) -> (World, std::net::TcpStream, lastbyte::ConnectionId) {
    let fixed = Fixed { version, cipher: TlsCipher::Aes128Gcm, record_limit: 1 << 20 };
    let mut options = TlsOptions::default();
    options.offload = wish;
    let mut world = World::with(plain(kind), Arc::new(fixed), options, &DriverConfig::default());
    let (near, far) = pair();
    let id = world.attach(near);
    (world, far, id)
}

fn fail_at_hand_over(
    kind: BackendKind,
    version: TlsVersion,
    wish: OffloadWish,
    then: Then,
    refuse: impl FnOnce(),
) {
    let (mut world, mut far, id) = start(kind, version, wish);
    world.driver.submit(id, SECRET.into(), Watch::ALL).unwrap();
    refuse();
    far.write_all(&HELLO).unwrap();
    let is_over = then == Then::Reset || wish == OffloadWish::Require;
    if is_over {
        let mut wire = Vec::new();
        let reading = far.try_clone().unwrap();
        let peer = thread::spawn(move || {
            let ended = (&reading).read_to_end(&mut wire);
            (wire, ended)
        });
        let events = world.until(|events| events.iter().any(is_closed));
        let CloseOutcome::Failed(FailReason::Tls(failure)) = outcome_in(&events) else {
            panic!("{events:?}");
        };
        match then {
            Then::Reset => {
                assert!(
                    matches!(failure, TlsFailure::OffloadBroken { errno: 12, .. }),
                    "{failure}"
                );
            }
            Then::UserSpace => {
                assert!(matches!(failure, TlsFailure::NotOffloaded { .. }), "{failure}");
            }
        }
        assert!(!events.iter().any(|event| matches!(event, Event::TlsEstablished { .. })));
        drop(far);
        let (wire, ended) = peer.join().unwrap();
        assert!(!wire.windows(8).any(|bytes| SECRET.windows(8).any(|own| own == bytes)));
        if then == Then::Reset {
            // The handshake's answer, and not a byte more.
            assert_eq!((wire.len(), ended.is_err()), (6, true), "{wire:?}");
        }
    } else {
        let events =
            world.until(|events| events.iter().any(|e| matches!(e, Event::TlsEstablished { .. })));
        let transports = events.iter().find_map(|event| match event {
            Event::TlsEstablished { tls, .. } => Some((tls.transmit, tls.receive)),
            _ => None,
        });
        assert_eq!(transports, Some((Transport::UserTls, Transport::UserTls)));
        let mut sealing = Crypto::new(version, TlsCipher::Aes128Gcm, 2);
        far.write_all(&sealing.seal(DATA, b"hello")).unwrap();
        assert_eq!(world.read(id, 5).0, b"hello");
        world.driver.close(id, PATIENCE).unwrap();
        let reading = far.try_clone().unwrap();
        let peer = thread::spawn(move || {
            let mut wire = Vec::new();
            (&reading).read_to_end(&mut wire).unwrap();
            wire
        });
        assert_eq!(world.outcome(), CloseOutcome::Graceful);
        drop(far);
        let wire = peer.join().unwrap();
        let mut opening = Crypto::new(version, TlsCipher::Aes128Gcm, 1);
        assert_eq!(opening.open(&wire[6..]).unwrap().1, SECRET);
    }
    let counters = world.driver.counters();
    assert_eq!((counters.unreleased_bytes, counters.ciphertext_bytes), (0, 0));
}

/// A key that cannot be changed when it has to be ends the connection: the peer
/// gets nothing that it could not open.
fn fail_at_rekey(kind: BackendKind, refuse: impl FnOnce()) {
    let (mut world, mut far, id) = start(kind, TlsVersion::Tls13, OffloadWish::Require);
    far.write_all(&HELLO).unwrap();
    world.until(|events| events.iter().any(|e| matches!(e, Event::TlsEstablished { .. })));
    refuse();
    let mut sealing = Crypto::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm, 2);
    far.write_all(&sealing.seal(HANDSHAKE, &KEY_UPDATE_REQUESTED)).unwrap();
    sealing.update();
    far.write_all(&sealing.seal(DATA, b"with the next key")).unwrap();
    world.driver.receive(id).unwrap();
    let events = world.until(|events| events.iter().any(is_closed));
    let CloseOutcome::Failed(FailReason::Tls(TlsFailure::OffloadBroken { .. })) =
        outcome_in(&events)
    else {
        panic!("{events:?}");
    };
    let received = |event: &Event| matches!(event, Event::Received { .. });
    assert!(!events.iter().any(received), "{events:?}");
    let mut wire = Vec::new();
    let _ = far.read_to_end(&mut wire);
    let mut opening = Crypto::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm, 1);
    let mut at = 6;
    while let Some((kind, _, len)) = opening.open(&wire[at..]) {
        assert_eq!(kind, HANDSHAKE);
        opening.update();
        at += len;
    }
    assert_eq!(at, wire.len(), "all that came opens");
}
