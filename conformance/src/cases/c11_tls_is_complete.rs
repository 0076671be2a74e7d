//! C11: whatever TLS asks for, with a TLS library as the peer.

use super::{close_and_compare, expect_graceful, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::material::{Kind, Material};
use crate::peers::{RecordPeer, half_closing, reader};
use crate::rig::{PATIENCE, Rig};
use crate::tls::{
    self, ALERT, CIPHERS, Clients, DATA, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED, Known, Terms,
    VERSIONS,
};
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, CloseOutcome, FailReason, TlsCipher, TlsFailure, TlsRole, TlsVersion, Transport,
    Watch,
};
use std::io::Write;

pub(super) fn cases() -> Vec<Case> {
    [
        Case::new(
            "C11-each-version-and-cipher",
            "TLS 1.2 and 1.3 with each cipher: both directions, and close_notify both ways",
            versions_and_ciphers,
        ),
        Case::new(
            "C11-sessions-are-resumed-by-tickets",
            "a client that comes again shows its ticket, and is taken at its word",
            tickets,
        ),
        Case::new(
            "C11-a-client-gets-on-with-a-server",
            "the side that connects: a name, tickets and changed keys of the server's",
            as_a_client,
        ),
        Case::new(
            "C11-records-have-no-edges",
            "payloads and records of 0, 1, 16383, 16384 and 16385 bytes, both ways",
            edges,
        ),
        Case::new(
            "C11-the-peer-changes-its-keys",
            "KeyUpdate with and without request, again and again; each request is answered",
            peer_key_updates,
        ),
        Case::new(
            "C11-a-key-update-in-pieces",
            "a KeyUpdate of one byte a record is understood, or ends the connection with a reason",
            key_update_in_pieces,
        ),
        Case::new(
            "C11-own-keys-are-changed-in-time",
            "no key seals more records than the cipher allows; TLS 1.2 ends before that",
            own_key_updates,
        ),
        Case::new(
            "C11-input-at-the-hand-over-is-not-lost",
            "records that come with the end of the handshake, whole and in part",
            hand_over,
        ),
    ]
    .map(Case::over_tls)
    .to_vec()
}

fn combinations() -> impl Iterator<Item = Terms> {
    VERSIONS.into_iter().flat_map(|version| {
        CIPHERS.map(|cipher| Terms { version: Some(version), cipher: Some(cipher) })
    })
}

fn versions_and_ciphers(subject: &Subject) -> Result<Proof, Failure> {
    let material = Material::new(400_000)?;
    for terms in combinations() {
        let tried = || -> Result<(), Failure> {
            let subject = subject.agreeing_to(terms)?;
            let mut rig = Rig::eager(&subject)?;
            let (connection, peer) = rig.connect(&subject, Wire::narrow_sender())?;
            rig.driver().receive(connection)?;
            let request = pattern::bytes(0, 30_000);
            let peer = half_closing(peer, &request)?;
            while !rig.record.line(connection).ended {
                let inputs = rig.record.line(connection).inputs;
                rig.until("the request", |record| record.line(connection).inputs > inputs)?;
                rig.driver().receive(connection)?;
            }
            let line = rig.record.line(connection);
            ensure!(line.input == request, "another request arrived");
            ensure!(!line.truncated, "an announced end is called a truncation");
            for kind in [Kind::Memory, Kind::HeaderAndFile, Kind::Pooled, Kind::File] {
                rig.send_kind(connection, &material, kind, 90_000, Watch::ALL)?;
            }
            rig.settle()?;
            expect_nothing_held(&mut rig)?;
            close_and_compare(&mut rig, connection, peer)
        };
        tried().map_err(|failure| failure.while_doing(format!("{terms:?}")))?;
    }
    Ok(Proof::full())
}

fn tickets(subject: &Subject) -> Result<Proof, Failure> {
    for version in VERSIONS {
        let subject = subject.agreeing_to(Terms { version: Some(version), cipher: None })?;
        let mut rig = Rig::new(&subject)?;
        let clients = Clients::new()?;
        let mut resumed = Vec::new();
        for _ in 0..3 {
            let pair = Wire::default().pair(&subject)?;
            let connection = rig.attach(pair.own, &AttachOptions::default())?;
            let far = rig.shake_hands(FarEnd::tls(pair.peer, clients.next()?))?;
            resumed.push(far.is_resumed());
            // A TLS 1.3 ticket comes with the data.
            let peer = reader(far)?;
            rig.send(connection, 5000, Watch::ACKED)?;
            rig.settle()?;
            close_and_compare(&mut rig, connection, peer)?;
        }
        ensure!(resumed == [false, true, true], "{version:?}: resumed were {resumed:?}");
    }
    Ok(Proof::full())
}

fn as_a_client(subject: &Subject) -> Result<Proof, Failure> {
    for terms in combinations() {
        let tried = || -> Result<(), Failure> {
            let subject = subject.agreeing_to(terms)?;
            let mut rig = Rig::new(&subject)?;
            let pair = Wire { active: true, ..Wire::default() }.pair(&subject)?;
            let role = TlsRole::Client { server_name: "localhost".to_owned() };
            let options = AttachOptions::default();
            let connection = rig.attach_as(pair.own, &options, &role)?;
            let mut far = rig.shake_hands(FarEnd::tls(pair.peer, tls::server()?))?;
            // The server speaks, changes its keys, and speaks again.
            let server = std::thread::spawn(move || {
                far.write_all(&pattern::bytes(0, 40_000))?;
                if terms.version == Some(TlsVersion::Tls13) {
                    far.change_keys()?;
                }
                far.write_all(&pattern::bytes(40_000, 40_000))?;
                Ok::<_, std::io::Error>(far)
            });
            while rig.record.line(connection).input.len() < 80_000 {
                let inputs = rig.record.line(connection).inputs;
                rig.driver().receive(connection)?;
                rig.until("input", |record| record.line(connection).inputs > inputs)?;
            }
            let intact = rig.record.line(connection).input == pattern::bytes(0, 80_000);
            ensure!(intact, "the server's bytes were changed");
            let far = server.join().map_err(|_| Failure::new("the server panicked"))??;
            let peer = reader(far)?;
            rig.send(connection, 70_000, Watch::ALL)?;
            rig.settle()?;
            close_and_compare(&mut rig, connection, peer)
        };
        tried().map_err(|failure| failure.while_doing(format!("{terms:?}")))?;
    }
    Ok(Proof::full())
}

fn edges(subject: &Subject) -> Result<Proof, Failure> {
    const SIZES: [usize; 7] = [1, 16_383, 16_384, 16_385, 32_768, 2, 49_153];
    for terms in combinations() {
        let known = known(terms);
        let subject = subject.knowing(&known);
        let mut rig = Rig::new(&subject)?;
        let wire = Wire::default();
        let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
        let mut sent = 0;
        for size in SIZES {
            let transfer = rig.send(connection, size, Watch::ALL)?;
            rig.until_outside("the transfer", |record| {
                peer.read(1 << 16).is_ok() && record.told(connection, transfer).is_over()
            })?;
            // The same in the other direction, in records that are as long as
            // any may be, and an empty one in front.
            peer.send(DATA, &[])?;
            for piece in pattern::bytes(sent, size).chunks(1 << 14) {
                peer.send(DATA, piece)?;
            }
            sent += size as u64;
            while (rig.record.line(connection).input.len() as u64) < sent {
                let inputs = rig.record.line(connection).inputs;
                rig.driver().receive(connection)?;
                rig.until("input", |record| record.line(connection).inputs > inputs)?;
            }
        }
        let got = rig.record.line(connection).input.len();
        let intact = rig.record.line(connection).input == pattern::bytes(0, got);
        ensure!(intact && got as u64 == sent, "{terms:?}: the peer's bytes were changed");
        let inputs = rig.record.line(connection).inputs;
        ensure!(inputs > 0, "nothing was received");
        rig.driver().close(connection, PATIENCE)?;
        peer.read_to_end(&mut rig)?;
        peer.expect_all(sent)?;
        let empty = peer.of(DATA).filter(|record| record.content.is_empty()).count();
        ensure!(empty == 0, "{empty} records without content were sent");
    }
    Ok(Proof::full())
}

fn known(terms: Terms) -> Known {
    let version = terms.version.unwrap_or(TlsVersion::Tls13);
    Known::new(version, terms.cipher.unwrap_or(TlsCipher::Aes128Gcm))
}

fn peer_key_updates(subject: &Subject) -> Result<Proof, Failure> {
    for cipher in CIPHERS {
        let known = Known::new(TlsVersion::Tls13, cipher);
        let subject = subject.knowing(&known);
        let mut rig = Rig::new(&subject)?;
        let wire = Wire::default();
        let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
        let mut input = 0;
        for round in 0..6_usize {
            let message = if round % 2 == 0 { KEY_UPDATE_REQUESTED } else { KEY_UPDATE };
            peer.send(HANDSHAKE, &message)?;
            peer.sealing.update();
            peer.send(DATA, &pattern::bytes(input, 3000))?;
            input += 3000;
            while (rig.record.line(connection).input.len() as u64) < input {
                let inputs = rig.record.line(connection).inputs;
                rig.driver().receive(connection)?;
                rig.until("what was sealed with the new keys", |record| {
                    record.line(connection).inputs > inputs
                })?;
            }
            let transfer = rig.send(connection, 20_000, Watch::ALL)?;
            rig.until_outside("the transfer", |record| {
                peer.read(1 << 16).is_ok() && record.told(connection, transfer).is_over()
            })?;
        }
        let got = &rig.record.line(connection).input;
        ensure!(*got == pattern::bytes(0, got.len()), "the peer's bytes were changed");
        rig.close(connection)?;
        peer.read_to_end(&mut rig)?;
        expect_graceful(&rig, connection)?;
        peer.expect_all(rig.position(connection))?;
        // One answer for each request, which asks for none itself.
        let answers: Vec<_> = peer.of(HANDSHAKE).map(|record| &*record.content).collect();
        ensure!(answers == [KEY_UPDATE; 3], "{cipher:?}: the requests were answered {answers:?}");
    }
    Ok(Proof::full())
}

fn key_update_in_pieces(subject: &Subject) -> Result<Proof, Failure> {
    let known = Known::new(TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let subject = subject.knowing(&known);
    let mut rig = Rig::new(&subject)?;
    let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, Wire::default())?;
    for byte in KEY_UPDATE {
        peer.send(HANDSHAKE, &[byte])?;
    }
    peer.sealing.update();
    peer.send(DATA, b"after that")?;
    rig.driver().receive(connection)?;
    rig.until("input, or the end", |record| {
        let line = record.line(connection);
        line.inputs > 0 || line.closed.is_some()
    })?;
    let line = rig.record.line(connection);
    if subject.directions().receive == Transport::KernelTls
        && let Some(CloseOutcome::Failed(FailReason::Tls(reason))) = &line.closed
    {
        // The kernel wants the next key as soon as a KeyUpdate begins
        // (tls_check_pending_rekey() in net/tls/tls_sw.c), and the rest of the
        // message is sealed with the old one.
        let what = "a KeyUpdate over several records, of which the kernel sees the first";
        let verified = format!("the connection ends, and says: {reason}");
        return Ok(Proof::substitute(Lack::of(what), verified));
    }
    ensure!(line.input == b"after that", "{:?} came, and {:?}", line.input, line.closed);
    rig.close(connection)?;
    peer.read_to_end(&mut rig)?;
    peer.expect_all(0)?;
    Ok(Proof::full())
}

fn own_key_updates(subject: &Subject) -> Result<Proof, Failure> {
    // No fewer than a driver may keep a call's worth of.
    const LIMIT: u64 = 40;
    for terms in combinations() {
        let mut known = known(terms);
        known.record_limit = LIMIT;
        let subject = subject.knowing(&known);
        let mut rig = Rig::new(&subject)?;
        let wire = Wire::default();
        let (connection, mut peer) = RecordPeer::join(&mut rig, &subject, &known, wire)?;
        if known.version == TlsVersion::Tls12 {
            let lost = rig.send(connection, 100 << 14, Watch::ALL)?;
            peer.read_to_end(&mut rig)?;
            rig.until("the connection to close", |record| record.is_closed(connection))?;
            rig.settle()?;
            let reason = rig.record.told(connection, lost).failed.clone().map(|f| f.reason);
            let exhausted = FailReason::Tls(TlsFailure::KeyExhausted);
            ensure!(reason == Some(exhausted), "{terms:?}: a used-up key ends as {reason:?}");
            peer.expect_intact()?;
            ensure!(peer.records.len() as u64 <= LIMIT, "{} records", peer.records.len());
            continue;
        }
        for len in [200 << 14, 1, 30 << 14] {
            rig.send(connection, len, Watch::ALL)?;
        }
        rig.driver().close(connection, PATIENCE)?;
        peer.read_to_end(&mut rig)?;
        peer.expect_all(rig.position(connection))?;
        let by_key: Vec<_> = peer
            .records
            .split_inclusive(|record| record.kind == HANDSHAKE)
            .map(<[_]>::len)
            .collect();
        ensure!(by_key.len() > 5, "{terms:?}: {by_key:?} records a key");
        let most = by_key.iter().max().copied().unwrap_or(0) as u64;
        ensure!(most <= LIMIT, "{terms:?}: {most} records with one key, and {LIMIT} are allowed");
    }
    Ok(Proof::full())
}

fn hand_over(subject: &Subject) -> Result<Proof, Failure> {
    for terms in combinations() {
        let known = known(terms);
        let subject = subject.knowing(&known);
        // Where the second of two records is cut.
        for cut in [0, 1, 4, 5, 6, 30, 2000, 4000] {
            let mut rig = Rig::new(&subject)?;
            let mut sealing = known.sealing();
            let mut early = sealing.seal(DATA, &pattern::bytes(0, 500))?;
            let second = sealing.seal(DATA, &pattern::bytes(500, 4000))?;
            early.extend_from_slice(&second[..cut]);
            let wire = Wire::default();
            let joined = RecordPeer::join_after(&mut rig, &subject, &known, wire, &early);
            let (connection, mut peer) = joined?;
            peer.sealing = sealing;
            rig.send(connection, 100, Watch::ALL)?;
            rig.settle()?;
            peer.send_raw(&second[cut..])?;
            while rig.record.line(connection).input.len() < 4500 {
                let inputs = rig.record.line(connection).inputs;
                rig.driver().receive(connection)?;
                rig.until("input", |record| record.line(connection).inputs > inputs)?;
            }
            let intact = rig.record.line(connection).input == pattern::bytes(0, 4500);
            ensure!(intact, "{terms:?}, cut at {cut}: the peer's bytes were changed");
            peer.send(ALERT, &[1, 0])?;
            peer.finish()?;
            rig.driver().receive(connection)?;
            rig.until("the peer's end", |record| record.line(connection).ended)?;
            ensure!(!rig.record.line(connection).truncated, "an announced end is a truncation");
            rig.driver().close(connection, PATIENCE)?;
            peer.read_to_end(&mut rig)?;
            peer.expect_all(100)?;
            rig.until("the connection to close", |record| record.is_closed(connection))?;
            expect_graceful(&rig, connection)?;
        }
    }
    Ok(Proof::full())
}
