//! C11 and C14 on TLS: peers that end, complain, cheat, babble or dawdle.

use super::{expect_graceful, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::peers::{End, RecordPeer, reader};
use crate::rig::{PATIENCE, Rig};
use crate::tls::{
    self, ALERT, CIPHERS, DATA, HANDSHAKE, HELLO, KEY_UPDATE, KEY_UPDATE_REQUESTED, Known, VERSIONS,
};
use crate::wire::Wire;
use crate::{Case, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, CloseOutcome, ConnectionId, FailReason, TlsAlert, TlsCipher, TlsFailure,
    TlsVersion, Transport, Watch,
};
use std::io::Write;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    [
        Case::new(
            "C11-truncation-is-not-the-end",
            "a FIN without close_notify is told as such, and what was asked for is still sent",
            truncation,
        ),
        Case::new("C11-the-peers-alert-is-named", "a peer that gives up is quoted", peer_alert),
        Case::new(
            "C11-wrong-records-get-the-right-alert",
            "what must not be is answered with the alert that the specifications want",
            violations,
        ),
        Case::new(
            "C14-tls-storms-are-bounded",
            "KeyUpdates, empty records, warnings and second handshakes without end are ended",
            storms,
        ),
        Case::new(
            "C14-tls-requests-are-answered-once-while-the-peer-does-not-read",
            "a peer that asks for KeyUpdates and reads nothing costs no memory",
            unread_answers,
        ),
        Case::new(
            "C14-tls-records-of-one-byte-byte-by-byte",
            "the smallest records in the smallest pieces come out whole",
            tiny_records,
        ),
        Case::new(
            "C14-a-stalled-handshake-disturbs-nobody",
            "others are served while ten peers do not finish theirs, and those are given up",
            stalled_handshakes,
        ),
        Case::new(
            "C12-close-while-the-peer-changes-its-keys",
            "a peer that goes on sending, with one key after another, gets all and no reset",
            closed_among_keys,
        ),
        Case::new(
            "C14-tls-a-peers-last-words-keep-nobody-busy",
            "whatever a peer says last, before or after the end, a driver waits for what comes",
            calm_at_the_end,
        ),
        Case::new(
            "C11-an-end-in-the-handshake-is-told",
            "a peer that leaves before it is done did not come to terms",
            leaves_in_handshake,
        ),
    ]
    .map(Case::over_tls)
    .to_vec()
}

/// A connection with known keys.
fn join(
    subject: &Subject,
    version: TlsVersion,
    cipher: TlsCipher,
) -> Result<(Rig, ConnectionId, RecordPeer), Failure> {
    let known = Known::new(version, cipher);
    let subject = subject.knowing(&known);
    let mut rig = Rig::new(&subject)?;
    let (connection, peer) = RecordPeer::join(&mut rig, &subject, &known, Wire::default())?;
    Ok((rig, connection, peer))
}

/// Receives until `len` bytes have come.
fn receive(rig: &mut Rig, connection: ConnectionId, len: usize) -> Result<(), Failure> {
    while rig.record.line(connection).input.len() < len {
        let inputs = rig.record.line(connection).inputs;
        rig.driver().receive(connection)?;
        rig.until("input", |record| {
            record.line(connection).inputs > inputs || record.is_closed(connection)
        })?;
        let closed = &rig.record.line(connection).closed;
        ensure!(closed.is_none(), "closed as {closed:?} instead of yielding input");
    }
    Ok(())
}

fn truncation(subject: &Subject) -> Result<Proof, Failure> {
    for version in VERSIONS {
        for cut in [0, 3, 10] {
            let (mut rig, connection, mut peer) = join(subject, version, TlsCipher::Aes128Gcm)?;
            peer.send(DATA, b"all of it?")?;
            let half = peer.sealing.seal(DATA, b"the rest")?;
            peer.send_raw(&half[..cut])?;
            peer.finish()?;
            receive(&mut rig, connection, 10)?;
            rig.driver().receive(connection)?;
            rig.until("the end", |record| record.line(connection).ended)?;
            let line = rig.record.line(connection);
            ensure!(line.truncated, "{version:?}: a cut stream is told as whole (cut at {cut})");
            ensure!(line.input == b"all of it?", "half a record was yielded");
            rig.send(connection, 1000, Watch::ALL)?;
            rig.driver().close(connection, PATIENCE)?;
            peer.read_to_end(&mut rig)?;
            peer.expect_all(1000)?;
            rig.until("the connection to close", |record| record.is_closed(connection))?;
            expect_graceful(&rig, connection)?;
        }
    }
    Ok(Proof::full())
}

/// How it closed.
fn outcome(rig: &mut Rig, connection: ConnectionId) -> Result<Option<CloseOutcome>, Failure> {
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    Ok(rig.record.line(connection).closed.clone())
}

fn peer_alert(subject: &Subject) -> Result<Proof, Failure> {
    for version in VERSIONS {
        for cipher in CIPHERS {
            let (mut rig, connection, mut peer) = join(subject, version, cipher)?;
            rig.driver().receive(connection)?;
            peer.send(ALERT, &[2, 42])?;
            let closed = outcome(&mut rig, connection)?;
            let bad_certificate = TlsFailure::PeerAlert(TlsAlert::new(42));
            let expected = CloseOutcome::Failed(FailReason::Tls(bad_certificate));
            ensure!(closed == Some(expected), "{version:?} closed as {closed:?}");
            let Some(CloseOutcome::Failed(reason)) = closed else { continue };
            let text = reason.to_string();
            ensure!(text.contains("bad_certificate"), "the alert is called '{text}'");
        }
    }
    Ok(Proof::full())
}

/// The peer did `what`: that has to end the connection, and the peer has to be
/// told why.
fn expect_violation(
    what: &str,
    rig: &mut Rig,
    connection: ConnectionId,
    mut peer: RecordPeer,
    alert: TlsAlert,
) -> Result<(), Failure> {
    // It may be over already.
    drop(rig.driver().receive(connection));
    drop(peer.finish());
    peer.read_to_end(rig).map_err(|failure| failure.while_doing(what))?;
    let closed = outcome(rig, connection)?;
    let told = match &closed {
        Some(CloseOutcome::Failed(FailReason::Tls(TlsFailure::PeerViolation {
            alert, ..
        }))) => *alert,
        other => return Err(Failure::new(format!("{what}: closed as {other:?}"))),
    };
    ensure!(told == alert, "{what}: answered with {told} instead of {alert}");
    let last = peer.records.last().map(|record| (record.kind, record.content.clone()));
    let expected = Some((ALERT, vec![2, alert.code()]));
    ensure!(last == expected, "{what}: the peer was told {last:?}");
    rig.settle()?;
    expect_nothing_held(rig)
}

fn violations(subject: &Subject) -> Result<Proof, Failure> {
    const TLS13: TlsVersion = TlsVersion::Tls13;
    let start = |version| join(subject, version, TlsCipher::Aes128Gcm);
    let known = Known::new(TLS13, TlsCipher::Aes128Gcm);
    let by_kernel = subject.knowing(&known).directions().receive == Transport::KernelTls;
    // A kernel says less of what it does not open.
    let or_by_kernel = |alert, instead| if by_kernel { instead } else { alert };
    for version in VERSIONS {
        let (mut rig, connection, mut peer) = start(version)?;
        let mut record = peer.sealing.seal(DATA, b"x")?;
        if let Some(last) = record.last_mut() {
            *last ^= 1;
        }
        peer.send_raw(&record)?;
        let what = "a record that was tampered with";
        expect_violation(what, &mut rig, connection, peer, TlsAlert::BAD_RECORD_MAC)?;

        let (mut rig, connection, mut peer) = start(version)?;
        // As much of it as a kernel wants to see before it looks at the length.
        peer.send_raw(&[&[23, 3, 3, 0x49, 1][..], &[0; 40]].concat())?;
        let what = "a record longer than any may be";
        expect_violation(what, &mut rig, connection, peer, TlsAlert::RECORD_OVERFLOW)?;

        let (mut rig, connection, mut peer) = start(version)?;
        peer.send(DATA, &[1; (1 << 14) + 1])?;
        let what = "content that is too long";
        expect_violation(what, &mut rig, connection, peer, TlsAlert::RECORD_OVERFLOW)?;
    }
    let (mut rig, connection, mut peer) = start(TLS13)?;
    peer.send_raw(&[21, 3, 3, 0, 2, 1, 0])?;
    let what = "an alert that is not encrypted";
    let alert = or_by_kernel(TlsAlert::UNEXPECTED_MESSAGE, TlsAlert::BAD_RECORD_MAC);
    expect_violation(what, &mut rig, connection, peer, alert)?;
    let messages: [(u8, &[u8], TlsAlert); 12] = [
        (99, &[0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (0, &[0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (ALERT, &[1], TlsAlert::DECODE_ERROR),
        (ALERT, &[1, 0, 0], TlsAlert::DECODE_ERROR),
        (HANDSHAKE, &[], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[1, 0, 0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[4, 0, 0, 0], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[24, 0, 0, 1, 2], TlsAlert::ILLEGAL_PARAMETER),
        (HANDSHAKE, &[24, 0, 0, 0], TlsAlert::DECODE_ERROR),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24], TlsAlert::UNEXPECTED_MESSAGE),
        (HANDSHAKE, &[24, 255, 0, 0], TlsAlert::DECODE_ERROR),
        (20, &[1], TlsAlert::UNEXPECTED_MESSAGE),
    ];
    for (kind, content, alert) in messages {
        if by_kernel && content.is_empty() {
            // The kernel opens and drops it, and nobody learns of it.
            continue;
        }
        // Content of nothing but padding is not authentic to a kernel.
        let alert = if kind == 0 { or_by_kernel(alert, TlsAlert::BAD_RECORD_MAC) } else { alert };
        let (mut rig, connection, mut peer) = start(TLS13)?;
        peer.send(kind, content)?;
        let what = format!("{content:?} of type {kind}");
        expect_violation(&what, &mut rig, connection, peer, alert)?;
    }
    let (mut rig, connection, mut peer) = start(TLS13)?;
    peer.send(HANDSHAKE, &[24, 0])?;
    peer.send(DATA, b"x")?;
    let what = "data in the middle of a message";
    let alert = or_by_kernel(TlsAlert::UNEXPECTED_MESSAGE, TlsAlert::DECODE_ERROR);
    expect_violation(what, &mut rig, connection, peer, alert)?;

    let (mut rig, connection, mut peer) = start(TLS13)?;
    peer.send(HANDSHAKE, &[4, 0])?;
    peer.send(ALERT, &[1, 0])?;
    let what = "close_notify in the middle of a message";
    expect_violation(what, &mut rig, connection, peer, TlsAlert::UNEXPECTED_MESSAGE)?;
    Ok(Proof::full())
}

fn storms(subject: &Subject) -> Result<Proof, Failure> {
    const ALLOWED: usize = 32;
    let start = |version| join(subject, version, TlsCipher::Aes128Gcm);
    let opened_by =
        |version| subject.knowing(&Known::new(version, TlsCipher::Aes128Gcm)).directions().receive;
    let (mut rig, connection, mut peer) = start(TlsVersion::Tls13)?;
    for _ in 0..ALLOWED {
        peer.send(HANDSHAKE, &KEY_UPDATE_REQUESTED)?;
        peer.sealing.update();
    }
    peer.send(DATA, b"after that")?;
    receive(&mut rig, connection, 10)?;
    rig.send(connection, 100, Watch::ALL)?;
    rig.driver().close(connection, PATIENCE)?;
    peer.read_to_end(&mut rig)?;
    peer.expect_all(100)?;
    let answers = peer.of(HANDSHAKE).count();
    ensure!((1..=ALLOWED).contains(&answers), "{ALLOWED} requests were answered {answers} times");

    let unexpected = TlsAlert::UNEXPECTED_MESSAGE;
    let (mut rig, connection, mut peer) = start(TlsVersion::Tls13)?;
    for _ in 0..=ALLOWED {
        peer.send(HANDSHAKE, &KEY_UPDATE)?;
        peer.sealing.update();
    }
    expect_violation("a storm of KeyUpdates", &mut rig, connection, peer, unexpected)?;
    for version in VERSIONS {
        let (mut rig, connection, mut peer) = start(version)?;
        for _ in 0..=ALLOWED {
            peer.send(DATA, b"")?;
        }
        if opened_by(version) == Transport::KernelTls {
            // The kernel opens and drops them, and nobody learns of it.
            peer.send(DATA, b"after that")?;
            receive(&mut rig, connection, 10)?;
            continue;
        }
        expect_violation("a storm of empty records", &mut rig, connection, peer, unexpected)?;
    }
    let (mut rig, connection, mut peer) = start(TlsVersion::Tls12)?;
    for _ in 0..5 {
        peer.send(ALERT, &[1, 90])?;
    }
    expect_violation("a storm of warnings", &mut rig, connection, peer, unexpected)?;
    let (mut rig, connection, mut peer) = start(TlsVersion::Tls12)?;
    peer.send(HANDSHAKE, &[1, 0, 0, 0])?;
    peer.send(DATA, b"then not")?;
    receive(&mut rig, connection, 8)?;
    peer.send(HANDSHAKE, &[1, 0, 0, 0])?;
    expect_violation("a second handshake, twice", &mut rig, connection, peer, unexpected)?;
    Ok(Proof::full())
}

fn unread_answers(subject: &Subject) -> Result<Proof, Failure> {
    let known = Known::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let subject = subject.knowing(&known);
    let mut rig = Rig::new(&subject)?;
    let wire = Wire { peer_window: Some(64 << 10), ..Wire::narrow_sender() };
    let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
    // Fills the window, so that no answer gets through.
    rig.send(connection, 1_500_000, Watch::ALL)?;
    rig.linger(Duration::from_millis(20))?;
    let mut input = 0;
    let before = rig.driver().counters().ciphertext_bytes;
    for _ in 0..400 {
        peer.send(HANDSHAKE, &KEY_UPDATE_REQUESTED)?;
        peer.sealing.update();
        peer.send(DATA, b"?")?;
        input += 1;
        receive(&mut rig, connection, input)?;
    }
    let held = rig.driver().counters().ciphertext_bytes;
    ensure!(held <= before + 20_000, "400 requests made {before} bytes of ciphertext {held}");
    rig.driver().close(connection, PATIENCE)?;
    peer.read_to_end(&mut rig)?;
    peer.expect_all(1_500_000)?;
    let answers = peer.of(HANDSHAKE).count();
    ensure!((1..=400).contains(&answers), "400 requests were answered {answers} times");
    Ok(Proof::noting(format!("400 requests, {answers} answers")))
}

fn closed_among_keys(subject: &Subject) -> Result<Proof, Failure> {
    const LEN: usize = 1_000_000;
    let known = Known::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let subject = subject.knowing(&known);
    let mut rig = Rig::new(&subject)?;
    let wire = Wire { peer_window: Some(64 << 10), ..Wire::narrow_sender() };
    let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
    rig.send(connection, LEN, Watch::ALL)?;
    rig.driver().close(connection, PATIENCE)?;
    let mut keys = 0;
    while peer.end == End::Left {
        let message = if keys % 2 == 0 { KEY_UPDATE } else { KEY_UPDATE_REQUESTED };
        peer.send(HANDSHAKE, &message)?;
        peer.sealing.update();
        peer.send(DATA, &[b'?'; 300])?;
        keys += 1;
        rig.turn(Duration::from_millis(1))?;
        peer.read(10_000)?;
    }
    peer.expect_all(LEN as u64)?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    expect_graceful(&rig, connection)?;
    // It has learnt of the end, and may say more all the same: nobody is told.
    for _ in 0..10 {
        peer.send(HANDSHAKE, &KEY_UPDATE)?;
        peer.sealing.update();
        peer.send(DATA, b"?")?;
        rig.turn(Duration::from_millis(1))?;
    }
    peer.send(ALERT, &[1, 0])?;
    peer.finish()?;
    rig.expect_calm()?;
    Ok(Proof::noting(format!("{keys} keys")))
}

fn calm_at_the_end(subject: &Subject) -> Result<Proof, Failure> {
    const WRONG_UPDATE: [u8; 5] = [24, 0, 0, 1, 7];
    let start = || join(subject, TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    // What it says is not what it has to say next, and then it says no more.
    for (kind, content) in [
        (ALERT, &[1, 0][..]),
        (HANDSHAKE, &KEY_UPDATE),
        (HANDSHAKE, &WRONG_UPDATE),
        (HANDSHAKE, &[4, 0]),
        (DATA, b"?"),
    ] {
        for closes_first in [true, false] {
            let what = format!("{content:?} of type {kind}, closed before: {closes_first}");
            let in_case = |failure: Failure| failure.while_doing(what.clone());
            let (mut rig, connection, mut peer) = start()?;
            if closes_first {
                rig.driver().close(connection, PATIENCE)?;
                peer.read_to_end(&mut rig)?;
            } else {
                rig.driver().receive(connection)?;
            }
            peer.send(kind, content)?;
            peer.send(ALERT, &[1, 0])?;
            peer.finish()?;
            rig.linger(Duration::from_millis(10)).map_err(in_case)?;
            rig.expect_calm().map_err(in_case)?;
        }
    }
    Ok(Proof::full())
}

fn tiny_records(subject: &Subject) -> Result<Proof, Failure> {
    const RECORDS: usize = 250;
    for version in VERSIONS {
        let (mut rig, connection, mut peer) = join(subject, version, TlsCipher::Aes128Gcm)?;
        let mut wire = Vec::new();
        for byte in pattern::bytes(0, RECORDS) {
            wire.extend(peer.sealing.seal(DATA, &[byte])?);
        }
        let mut socket = peer.socket.try_clone()?;
        socket.set_nonblocking(false)?;
        let writer = std::thread::spawn(move || {
            wire.iter().try_for_each(|byte| socket.write_all(std::slice::from_ref(byte)))
        });
        receive(&mut rig, connection, RECORDS)?;
        writer.join().map_err(|_| Failure::new("the peer panicked"))??;
        let intact = rig.record.line(connection).input == pattern::bytes(0, RECORDS);
        ensure!(intact, "{version:?}: the peer's bytes were changed");
    }
    Ok(Proof::full())
}

/// A good peer needs time for its own handshake, on a slow machine more of it: so
/// the time that is allowed for one grows until it has made it.
fn stalled_handshakes(subject: &Subject) -> Result<Proof, Failure> {
    let [first, others @ ..] = [400, 2000, 8000].map(Duration::from_millis);
    let mut result = stalled_for(subject, first);
    for longer in others {
        if result.is_ok() {
            break;
        }
        result = stalled_for(subject, longer);
    }
    result
}

fn stalled_for(subject: &Subject, allowed: Duration) -> Result<Proof, Failure> {
    let subject = subject.adjusted(|options| options.handshake_timeout = allowed)?;
    let mut rig = Rig::new(&subject)?;
    let mut stalled = Vec::new();
    for n in 0..10_usize {
        let pair = Wire::default().pair(&subject)?;
        let connection = rig.attach(pair.own, &AttachOptions::default())?;
        (&pair.peer).write_all(&[22, 3, 1, 2, 0, 1, 0, 1][..n % 8])?;
        stalled.push((connection, pair.peer));
    }
    let pair = Wire::default().pair(&subject)?;
    let good = rig.attach(pair.own, &AttachOptions::default())?;
    let peer = reader(rig.shake_hands(FarEnd::tls(pair.peer, tls::client()?))?)?;
    for _ in 0..5 {
        let transfer = rig.send(good, 100_000, Watch::ALL)?;
        rig.until("the transfer of a good peer", |record| record.told(good, transfer).is_over())?;
    }
    super::close_and_compare(&mut rig, good, peer)?;
    for (connection, _) in &stalled {
        let closed = outcome(&mut rig, *connection)?;
        let timeout = CloseOutcome::Failed(FailReason::Tls(TlsFailure::HandshakeTimeout));
        ensure!(closed == Some(timeout), "a stalled handshake ended as {closed:?}");
    }
    super::expect_let_go(&mut rig)?;
    Ok(Proof::full())
}

fn leaves_in_handshake(subject: &Subject) -> Result<Proof, Failure> {
    for said in [&[][..], &[22, 3, 1], &HELLO[..5]] {
        let known = Known::new(subject.version(), TlsCipher::Aes128Gcm);
        let subject = subject.knowing(&known);
        let mut rig = Rig::new(&subject)?;
        let pair = Wire::default().pair(&subject)?;
        let connection = rig.attach(pair.own, &AttachOptions::default())?;
        (&pair.peer).write_all(said)?;
        drop(pair.peer);
        let closed = outcome(&mut rig, connection)?;
        let left = CloseOutcome::Failed(FailReason::Tls(TlsFailure::HandshakeTruncated));
        ensure!(closed == Some(left), "after {said:?} it closed as {closed:?}");
        let failed = rig.driver().counters().handshakes_failed;
        ensure!(failed == 1, "{failed} failed handshakes are counted");
    }
    Ok(Proof::full())
}
