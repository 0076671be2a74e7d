//! The layer over a scripted inner driver: whatever happens in whatever order,
//! the contract holds.

use crate::records::{
    ALERT, CLOSE_NOTIFY, Crypto, DATA, Fixed, HANDSHAKE, HELLO, KEY_UPDATE, KEY_UPDATE_REQUESTED,
};
use crate::scripted::{ID, Scripted, ScriptedBackend};
use lastbyte::{
    AttachOptions, Backend, CloseOutcome, Driver, DriverConfig, Event, EventQueue, FailReason,
    FileRange, Memory, Payload, Reached, Received, Segment, Stage, TlsCipher, TlsFailure,
    TlsVersion, TransferId, Transport, Watch,
};
use lastbyte_backends::tls::{TlsBackend, TlsOptions};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Buffers of ciphertext that a connection may have in flight: see
/// `connection.rs`, plus one for the alert that ends it.
const MAX_IN_FLIGHT: u64 = 33 * (16_384 + 29);

/// Any socket: nothing is ever done with it.
static SOCKET: LazyLock<TcpStream> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    TcpStream::connect(listener.local_addr().expect("an address")).expect("connects")
});

/// A file of 100,000 bytes.
static FILE: LazyLock<Arc<std::fs::File>> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("lastbyte-tls-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&content(100_000, 3)).expect("writes");
    let file = std::fs::File::open(&path).expect("opens");
    std::fs::remove_file(path).expect("removes");
    Arc::new(file)
});

fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 ^ seed).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Submit { pieces: Vec<Piece>, watch: u8 },
    Accept { bytes: usize, zero_copy: bool },
    LetGo { which: prop::sample::Index },
    Acknowledge { share: u8 },
    Refuse { times: u32 },
    PeerSends { what: Sent, cut: usize },
    Receive,
    Turn,
    Finish,
    Close,
    Abort,
    Reset,
}

#[derive(Clone, Debug)]
enum Piece {
    Memory { len: usize, seed: u8 },
    File { offset: u64, len: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Data { len: usize },
    KeyUpdate { requested: bool },
    CloseNotify,
    Alert { description: u8 },
    Garbage,
    End,
}

fn piece() -> impl Strategy<Value = Piece> {
    let len = prop_oneof![4 => 1..300_usize, 2 => 16_000..17_000_usize, 1 => 30_000..200_000_usize];
    prop_oneof![
        3 => (len, any::<u8>()).prop_map(|(len, seed)| Piece::Memory { len, seed }),
        1 => (0..99_000_u64, 1..40_000_u64)
            .prop_map(|(offset, len)| Piece::File { offset, len: len.min(100_000 - offset) }),
        // Reaches behind the end of the file.
        1 => Just(Piece::File { offset: 99_000, len: 30_000 }),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        8 => prop_oneof![0..300_usize, 16_300..=16_384_usize].prop_map(|len| Sent::Data { len }),
        3 => any::<bool>().prop_map(|requested| Sent::KeyUpdate { requested }),
        1 => Just(Sent::CloseNotify),
        1 => any::<u8>().prop_map(|description| Sent::Alert { description }),
        1 => Just(Sent::Garbage),
        1 => Just(Sent::End),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![1..100_usize, 1_000..20_000_usize, Just(1 << 20)];
    prop_oneof![
        6 => (prop::collection::vec(piece(), 1..4), 0..8_u8)
            .prop_map(|(pieces, watch)| Step::Submit { pieces, watch }),
        8 => (bytes, any::<bool>())
            .prop_map(|(bytes, zero_copy)| Step::Accept { bytes, zero_copy }),
        4 => any::<prop::sample::Index>().prop_map(|which| Step::LetGo { which }),
        4 => any::<u8>().prop_map(|share| Step::Acknowledge { share }),
        1 => (1..4_u32).prop_map(|times| Step::Refuse { times }),
        4 => (sent(), 1..4000_usize).prop_map(|(what, cut)| Step::PeerSends { what, cut }),
        4 => Just(Step::Receive),
        8 => Just(Step::Turn),
        1 => Just(Step::Finish),
    ]
}

fn last_step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => Just(Step::Close), 1 => Just(Step::Abort), 1 => Just(Step::Reset)]
}

/// What is known of a transfer that was submitted.
#[derive(Debug)]
struct Sending {
    bytes: Vec<u8>,
    watch: Watch,
    /// Where its last byte is in the stream of payloads.
    end: usize,
    stages: Vec<Stage>,
    is_over: bool,
    is_released: bool,
    acked_bytes: Option<u64>,
    /// Bytes of the wire that the peer had acknowledged when it was said to
    /// have the last byte.
    acked_at: Option<usize>,
    is_truncated_file: bool,
}

struct World {
    script: Scripted,
    driver: Option<Box<dyn Driver>>,
    queue: EventQueue,
    sealing: Crypto,
    version: TlsVersion,
    cipher: TlsCipher,
    sendings: BTreeMap<u64, Sending>,
    submitted: usize,
    outcome: Option<CloseOutcome>,
    /// What the peer has sent, and what came of that.
    sent: Vec<u8>,
    got: Vec<u8>,
    ended: Option<Sent>,
    told_end: Option<bool>,
    established: bool,
    asked: bool,
    closed_by_user: bool,
    finished_by_user: bool,
    /// Everything is sent, and the end behind it.
    is_ended: bool,
}

impl World {
    fn new(version: TlsVersion, cipher: TlsCipher, record_limit: u64, receive: usize) -> Self {
        let script = Scripted::default();
        let provider = Fixed { version, cipher, record_limit };
        let backend = TlsBackend::new(
            Arc::new(ScriptedBackend::new(&script)),
            Arc::new(provider),
            TlsOptions::default(),
        );
        let queue = EventQueue::default();
        let mut config = DriverConfig::default();
        config.receive_buffer = receive;
        let mut driver = backend.driver(&config, Box::new(queue.sink())).expect("a driver");
        let socket = SOCKET.try_clone().expect("a socket");
        driver.attach(socket.into(), &AttachOptions::default()).expect("attaches");
        Self {
            script,
            driver: Some(driver),
            queue,
            sealing: Crypto::new(version, cipher, 2),
            version,
            cipher,
            sendings: BTreeMap::new(),
            submitted: 0,
            outcome: None,
            sent: Vec::new(),
            got: Vec::new(),
            ended: None,
            told_end: None,
            established: false,
            asked: false,
            closed_by_user: false,
            finished_by_user: false,
            is_ended: false,
        }
    }

    fn driver(&mut self) -> &mut dyn Driver {
        &mut **self.driver.as_mut().expect("it is there")
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Submit { pieces, watch } => self.submit(pieces, *watch),
            Step::Accept { bytes, zero_copy } => {
                self.script.line().accept(*bytes, *zero_copy);
            }
            Step::LetGo { which } => {
                let mut line = self.script.line();
                if line.calls() > 0 {
                    let which = which.index(line.calls());
                    line.let_go(which);
                }
            }
            Step::Acknowledge { share } => {
                let mut line = self.script.line();
                let to = line.received().len() * usize::from(*share) / 255;
                line.acknowledge(to);
            }
            Step::Refuse { times } => self.script.line().refuse = *times,
            Step::PeerSends { what, cut } => self.peer_sends(*what, *cut),
            Step::Receive => {
                if !self.asked && self.driver().receive(ID).is_ok() {
                    self.asked = true;
                }
            }
            Step::Turn => self.turn(),
            Step::Finish => self.finished_by_user |= self.driver().finish(ID).is_ok(),
            Step::Close => {
                self.closed_by_user = true;
                let _ = self.driver().close(ID, Duration::from_secs(3600));
            }
            Step::Abort => {
                let _ = self.driver().abort(ID);
            }
            Step::Reset => self.script.line().reset(),
        }
        let line = self.script.line();
        assert!(!line.too_late, "something is submitted behind the end");
        assert!(line.max_unreleased <= MAX_IN_FLIGHT, "{} in flight", line.max_unreleased);
    }

    fn submit(&mut self, pieces: &[Piece], watch: u8) {
        let mut payload = Payload::new();
        let mut bytes = Vec::new();
        let mut is_truncated_file = false;
        for piece in pieces {
            match piece {
                Piece::Memory { len, seed } => {
                    bytes.extend(content(*len, *seed));
                    payload.push(content(*len, *seed));
                }
                Piece::File { offset, len } => {
                    let all = content(100_000, 3);
                    let start = usize::try_from(*offset).unwrap();
                    let end = start + usize::try_from(*len).unwrap();
                    is_truncated_file |= end > all.len();
                    bytes.extend(&all[start..end.min(all.len())]);
                    bytes.resize(bytes.len() + end.saturating_sub(all.len()), 0);
                    let file: Arc<dyn lastbyte::FileSource> = FILE.clone();
                    payload.push(FileRange::new(file, *offset, *len));
                }
            }
        }
        let watch = [Watch::QUEUED, Watch::TRANSMITTED, Watch::ACKED]
            .into_iter()
            .enumerate()
            .filter(|(n, _)| watch & (1 << n) != 0)
            .fold(Watch::NONE, |all, (_, one)| all | one);
        let len = payload.len();
        match self.driver().submit(ID, payload, watch) {
            Ok(transfer) => {
                assert!(!self.finished_by_user, "something goes behind the end");
                assert_eq!(transfer, TransferId::new(self.sendings.len() as u64));
                self.submitted += bytes.len();
                let end = self.submitted;
                let sending = Sending {
                    bytes,
                    watch,
                    end,
                    stages: Vec::new(),
                    is_over: false,
                    is_released: false,
                    acked_bytes: None,
                    acked_at: None,
                    is_truncated_file,
                };
                self.sendings.insert(transfer.number(), sending);
            }
            Err(refused) => assert_eq!(refused.value.len(), len, "a payload comes back whole"),
        }
    }

    fn peer_sends(&mut self, what: Sent, cut: usize) {
        if self.ended.is_some() {
            return;
        }
        let mut wire = Vec::new();
        match what {
            Sent::Data { len } => {
                let bytes = content(len, 9);
                self.sent.extend(&bytes);
                wire = self.sealing.seal(DATA, &bytes);
            }
            Sent::KeyUpdate { requested } if self.version == TlsVersion::Tls13 => {
                let message = if requested { KEY_UPDATE_REQUESTED } else { KEY_UPDATE };
                wire = self.sealing.seal(HANDSHAKE, &message);
                self.sealing.update();
            }
            Sent::KeyUpdate { .. } => {}
            Sent::CloseNotify => wire = self.sealing.seal(ALERT, &CLOSE_NOTIFY),
            Sent::Alert { description } => {
                if description == 0 || description == 90 {
                    return;
                }
                wire = self.sealing.seal(ALERT, &[2, description]);
            }
            Sent::Garbage => wire = content(30, 200),
            Sent::End => {}
        }
        let mut line = self.script.line();
        for piece in wire.chunks(cut) {
            line.peer_sends(piece.to_vec());
        }
        if !matches!(what, Sent::Data { .. } | Sent::KeyUpdate { .. }) {
            self.ended = Some(what);
            line.peer_ends();
        }
    }

    fn turn(&mut self) {
        self.driver().turn(Some(Duration::ZERO)).expect("turns");
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(event) = self.queue.pop() {
            assert!(self.outcome.is_none(), "{event:?} comes after the end");
            match event {
                Event::Transfer(completion) => {
                    assert_eq!(completion.transport, Transport::UserTls);
                    let acked = self.script.line().acked;
                    let number = completion.transfer.number();
                    let sending = self.sendings.get_mut(&number).expect("it was submitted");
                    sending.hear(completion.reached, acked);
                }
                Event::Received { received, .. } => {
                    assert!(std::mem::replace(&mut self.asked, false), "nobody asked");
                    match received {
                        Received::Data(data) => {
                            assert!(self.told_end.is_none() && !data.is_empty());
                            self.got.extend_from_slice(&data);
                        }
                        Received::End => self.told_end = Some(true),
                        Received::Truncated => self.told_end = Some(false),
                    }
                }
                Event::TlsEstablished { tls, .. } => {
                    assert!(!std::mem::replace(&mut self.established, true), "told once");
                    assert!(self.got.is_empty() && self.told_end.is_none(), "told first");
                    assert_eq!(tls.transmit, Transport::UserTls);
                    assert_eq!((tls.receive, tls.declined), (Transport::UserTls, None));
                }
                Event::Closed { outcome, .. } => self.outcome = Some(outcome),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets everything that is on its way arrive.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            {
                let mut line = self.script.line();
                line.refuse = 0;
                let before = line.acked;
                while line.accept(1 << 20, before.is_multiple_of(2)) > 0 {}
                for n in 0..line.calls() {
                    line.let_go(n);
                }
                let all = line.received().len();
                line.acknowledge(all);
            }
            if !self.asked && self.told_end.is_none() && self.driver().receive(ID).is_ok() {
                self.asked = true;
            }
            let before = (self.got.len(), self.script.line().acked, self.told_end);
            self.turn();
            let after = (self.got.len(), self.script.line().acked, self.told_end);
            let line = self.script.line();
            if line.is_closed() && self.outcome.is_some() {
                return;
            }
            let is_idle =
                before == after && line.is_all_accepted() && line.received().len() == line.acked;
            if is_idle && !line.is_closing() && self.queue.is_empty() {
                let unsettled = self.sendings.values().any(|s| !s.has_ended() || !s.is_released);
                if !unsettled && !self.closed_by_user {
                    let is_due = self.finished_by_user && self.established;
                    assert_eq!(line.is_finished(), is_due, "an end is sent where one is due");
                    self.is_ended = is_due;
                    return;
                }
            }
        }
        panic!("it does not settle: {:?}", self.driver);
    }

    fn audit(&mut self) {
        drop(self.driver.take());
        self.hear();
        let outcome = self.outcome.clone().expect("every connection is closed");
        // Every byte on the wire is the handshake's or in a record that opens.
        let wire = self.script.line().received().to_vec();
        let mut opening = Crypto::new(self.version, self.cipher, 1);
        let (mut payload, mut ends) = (Vec::new(), Vec::new());
        let mut last = None;
        let handshake = 6.min(wire.len());
        let mut at = handshake;
        while let Some((kind, content, len)) = opening.open(&wire[at..]) {
            at += len;
            match kind {
                DATA => payload.extend(&content),
                HANDSHAKE => {
                    assert_eq!(content, KEY_UPDATE);
                    opening.update();
                }
                ALERT => {}
                other => panic!("a record of type {other}"),
            }
            ends.push((payload.len(), at));
            assert!(last.is_none(), "something follows an alert");
            last = (kind == ALERT).then_some(content);
        }
        let all: Vec<u8> = self.sendings.values().flat_map(|s| s.bytes.clone()).collect();
        assert!(all.starts_with(&payload), "the payloads came out different");
        for (number, sending) in &self.sendings {
            sending.audit(*number, &ends, handshake, &outcome);
        }
        if self.is_ended {
            assert!(at == wire.len() && payload.len() == all.len());
            assert_eq!(last.as_deref(), Some(&CLOSE_NOTIFY[..]));
        }
        if outcome == CloseOutcome::Graceful {
            assert!(at == wire.len() && payload.len() == all.len());
            // Before the handshake there is nothing to be ended.
            if !wire.is_empty() {
                assert_eq!(last.as_deref(), Some(&CLOSE_NOTIFY[..]));
            }
        }
        if let CloseOutcome::Failed(FailReason::Tls(TlsFailure::PeerAlert(alert))) = outcome {
            let Some(Sent::Alert { description }) = self.ended else { panic!("there was none") };
            assert_eq!(alert.code(), description);
        }
        assert!(self.sent.starts_with(&self.got), "the input came out different");
        if let Some(clean) = self.told_end {
            assert_eq!(self.got.len(), self.sent.len(), "the end came early");
            assert_eq!(clean, matches!(self.ended, Some(Sent::CloseNotify)));
        }
    }
}

impl Sending {
    /// Nothing is told of the end of one that is not watched, but its failure.
    fn has_ended(&self) -> bool {
        self.is_over || self.watch == Watch::NONE
    }

    fn hear(&mut self, reached: Reached, acked: usize) {
        match reached {
            Reached::Released(Memory::Returned(payload)) => {
                assert!(!std::mem::replace(&mut self.is_released, true), "released twice");
                assert_eq!(payload.len(), self.bytes.len() as u64);
                let mut at = 0;
                for segment in payload.segments() {
                    match segment {
                        Segment::Shared(bytes) => {
                            assert_eq!(bytes, &self.bytes[at..at + bytes.len()]);
                            at += bytes.len();
                        }
                        Segment::File(range) => at += usize::try_from(range.len()).unwrap(),
                        other => panic!("{other:?}"),
                    }
                }
            }
            Reached::Released(memory) => panic!("{memory:?}"),
            Reached::Failed(failure) => {
                assert!(!std::mem::replace(&mut self.is_over, true), "it was over");
                self.acked_bytes = Some(failure.acked_bytes);
                self.acked_at = Some(acked);
            }
            stage => {
                assert!(!self.is_over, "it was over");
                let (stage, watch) = match stage {
                    Reached::Queued => (Stage::Queued, Watch::QUEUED),
                    Reached::Transmitted => (Stage::Transmitted, Watch::TRANSMITTED),
                    _ => (Stage::Acked, Watch::ACKED),
                };
                assert!(self.watch.contains(watch), "{stage} was not asked for");
                assert!(self.stages.last().is_none_or(|before| *before < stage), "out of order");
                self.stages.push(stage);
                if stage == Stage::Acked {
                    self.acked_at = Some(acked);
                }
                let rest = [Watch::ACKED, Watch::TRANSMITTED, Watch::QUEUED];
                let last = rest.into_iter().find(|stage| self.watch.contains(*stage));
                self.is_over = last == Some(watch);
            }
        }
    }

    fn audit(
        &self,
        number: u64,
        ends: &[(usize, usize)],
        handshake: usize,
        outcome: &CloseOutcome,
    ) {
        assert!(self.is_released, "{number} was never released");
        assert!(self.has_ended(), "{number} never ended: {self:?} {outcome:?}");
        if let Some(acked_at) = self.acked_at {
            let start = self.end - self.bytes.len();
            let acked = ends.iter().take_while(|(_, wire)| *wire <= acked_at).last();
            let acked = acked.map_or(0, |(plain, _)| *plain);
            let own = acked.min(self.end).saturating_sub(start) as u64;
            match self.acked_bytes {
                None => assert_eq!(own, self.bytes.len() as u64, "{number} was acked early"),
                Some(claimed) => assert!(claimed <= own, "{number}: {claimed} of {own} acked"),
            }
            assert!(acked_at >= handshake || own == 0);
        }
        if self.is_truncated_file {
            assert!(self.acked_bytes.is_some(), "{number} cannot have been sent");
        }
    }
}

proptest! {
    #[test]
    fn the_contract_holds_whatever_happens(
        version in prop::sample::select(vec![TlsVersion::Tls12, TlsVersion::Tls13]),
        cipher in prop::sample::select(vec![
            TlsCipher::Aes128Gcm, TlsCipher::Aes256Gcm, TlsCipher::ChaCha20Poly1305,
        ]),
        record_limit in prop_oneof![Just(u64::MAX), 2..20_u64],
        receive in prop_oneof![Just(16_384_usize), 1..2000_usize],
        hello in prop::sample::select(vec![1_usize, 6, 6, 6]),
        before in prop::collection::vec(step(), 0..4),
        steps in prop::collection::vec(step(), 1..60),
        end in prop::option::weighted(0.8, last_step()),
        settles in prop::bool::weighted(0.8),
    ) {
        let mut world = World::new(version, cipher, record_limit, receive);
        // What the peer sends comes after its hello.
        for step in before.iter().filter(|step| !matches!(step, Step::PeerSends { .. })) {
            world.play(step);
        }
        for piece in HELLO.chunks(hello) {
            world.script.line().peer_sends(piece.to_vec());
        }
        for step in &steps {
            world.play(step);
        }
        if let Some(end) = &end {
            world.play(end);
        }
        if settles {
            world.settle();
        }
        world.audit();
    }
}
