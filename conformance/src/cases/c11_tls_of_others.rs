//! C11 with programs that others have written, and much of it.

use super::{close_and_compare, expect_graceful, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::far_end::FarEnd;
use crate::peers::reader;
use crate::rig::{PATIENCE, Rig};
use crate::tls::{CIPHERS, Terms, VERSIONS};
use crate::wire::Wire;
use crate::{Case, Lack, Proof, Subject, pattern};
use bytes::Bytes;
use lastbyte::{
    AttachOptions, ConnectionId, FileRange, Payload, RefuseReason, TlsCipher, TlsVersion,
    Transport, Watch,
};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C11-openssl-changes-its-keys-and-ours",
            "openssl s_client in both versions with each cipher; its commands k and K in TLS 1.3",
            openssl,
        )
        .over_tls(),
        Case::new(
            "C11-curl-gets-what-was-sent",
            "curl gets a file over HTTPS, in both versions",
            curl,
        )
        .over_tls(),
        Case::new(
            "C13-much-is-sent-and-hashed",
            "as much as --bulk says, SHA-256 the same at both ends, and in memory never much",
            much,
        )
        .over_each_transport(),
    ]
}

/// Why that program cannot be run.
fn lacks_program(name: &str, version: &str) -> Option<Lack> {
    let run = Command::new(name).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => None,
        Ok(status) => Some(Lack::of(format!("{name}: it ends with {status}"))),
        Err(error) => Some(Lack::refused(format!("{name}: starting it"), &error)),
    }
}

/// The other program, which does not outlive the case.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads all that the program prints, as it comes.
struct Output {
    count: Arc<AtomicUsize>,
    thread: JoinHandle<std::io::Result<Vec<u8>>>,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let thread = std::thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                match pipe.read(&mut buffer)? {
                    0 => return Ok(all),
                    n => all.extend_from_slice(&buffer[..n]),
                }
                counted.store(all.len(), Ordering::SeqCst);
            }
        });
        Self { count, thread }
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn all(self) -> Result<Vec<u8>, Failure> {
        let all = self.thread.join().map_err(|_| Failure::new("a reader panicked"))?;
        Ok(all?)
    }
}

fn combinations() -> impl Iterator<Item = (TlsVersion, TlsCipher)> {
    VERSIONS.into_iter().flat_map(|version| CIPHERS.map(|cipher| (version, cipher)))
}

fn openssl(subject: &Subject) -> Result<Proof, Failure> {
    if let Some(lack) = lacks_program("openssl", "version") {
        for (version, cipher) in combinations() {
            with_library(subject, version, cipher)?;
        }
        return Ok(Proof::substitute(lack, "rustls does the same, and changes its own keys"));
    }
    for (version, cipher) in combinations() {
        with_openssl(subject, version, cipher)
            .map_err(|failure| failure.while_doing(format!("{version:?} with {cipher:?}")))?;
    }
    Ok(Proof::full())
}

fn with_openssl(subject: &Subject, version: TlsVersion, cipher: TlsCipher) -> Result<(), Failure> {
    let terms = Terms { version: Some(version), cipher: Some(cipher) };
    let subject = subject.agreeing_to(terms)?;
    let mut rig = Rig::new(&subject)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let mut running = Running(
        Command::new("openssl")
            .args(["s_client", "-connect", &address, "-quiet", "-no_ign_eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let (Some(mut input), Some(output)) = (running.0.stdin.take(), running.0.stdout.take()) else {
        return Err(Failure::new("openssl has no pipes"));
    };
    let output = Output::of(output);
    let connection = rig.attach(listener.accept()?.0, &AttachOptions::default())?;
    let mut said = Vec::new();
    say(&mut rig, connection, &mut input, b"one\n", &mut said)?;
    let commands: &[&[u8]] =
        if version == TlsVersion::Tls13 { &[b"K\n", b"k\n", b"K\n"] } else { &[b"", b""] };
    for (n, command) in commands.iter().enumerate() {
        // A command counts only if it is read apart from what follows.
        input.write_all(command)?;
        rig.linger(Duration::from_millis(if command.is_empty() { 0 } else { 200 }))?;
        say(&mut rig, connection, &mut input, format!("{n}\n").as_bytes(), &mut said)?;
        rig.send(connection, 20_000, Watch::ALL)?;
        rig.settle()?;
        let len = rig.position(connection);
        rig.until_outside("openssl to print what it got", |_| output.len() as u64 >= len)?;
    }
    drop(input);
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    let printed = output.all()?;
    let len = usize::try_from(rig.position(connection))?;
    ensure!(printed == pattern::bytes(0, len), "openssl printed something else");
    running.0.wait()?;
    expect_nothing_held(&mut rig)
}

/// Has the program send a line, and receives it.
fn say(
    rig: &mut Rig,
    connection: ConnectionId,
    input: &mut ChildStdin,
    line: &[u8],
    said: &mut Vec<u8>,
) -> Result<(), Failure> {
    input.write_all(line)?;
    said.extend_from_slice(line);
    while rig.record.line(connection).input.len() < said.len() {
        let inputs = rig.record.line(connection).inputs;
        rig.driver().receive(connection)?;
        rig.until("what openssl was told to send", |record| {
            record.line(connection).inputs > inputs || record.is_closed(connection)
        })?;
        let line = rig.record.line(connection);
        ensure!(line.closed.is_none(), "closed as {:?}", line.closed);
        ensure!(!line.ended, "openssl ended the stream");
    }
    let line = rig.record.line(connection);
    ensure!(line.input == *said, "openssl sent {:?}", line.input);
    Ok(())
}

/// The exchange with the suite's own peer instead of another program.
fn with_library(subject: &Subject, version: TlsVersion, cipher: TlsCipher) -> Result<(), Failure> {
    let subject = subject.agreeing_to(Terms { version: Some(version), cipher: Some(cipher) })?;
    let mut rig = Rig::new(&subject)?;
    let (connection, mut peer) = rig.connect(&subject, Wire::default())?;
    for n in 1..4_u64 {
        if version == TlsVersion::Tls13 {
            peer.change_keys()?;
        }
        peer.write_all(&pattern::bytes(5 * (n - 1), 5))?;
        while (rig.record.line(connection).input.len() as u64) < 5 * n {
            let inputs = rig.record.line(connection).inputs;
            rig.driver().receive(connection)?;
            rig.until("a line", |record| record.line(connection).inputs > inputs)?;
        }
        rig.send(connection, 20_000, Watch::ALL)?;
    }
    let intact = rig.record.line(connection).input == pattern::bytes(0, 15);
    ensure!(intact, "the peer's bytes were changed");
    let peer = reader(peer)?;
    rig.settle()?;
    close_and_compare(&mut rig, connection, peer)
}

const FILE: usize = 3_000_001;

fn curl(subject: &Subject) -> Result<Proof, Failure> {
    let lack = lacks_program("curl", "--version");
    let mut file = tempfile::tempfile()?;
    let content = pattern::bytes(0, FILE);
    file.write_all(&content)?;
    let file: Arc<dyn lastbyte::FileSource> = Arc::new(file);
    for version in VERSIONS {
        let subject = subject.agreeing_to(Terms { version: Some(version), cipher: None })?;
        let mut rig = Rig::new(&subject)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (output, running) = if lack.is_none() {
            let mut running = Running(
                Command::new("curl")
                    .args(["--silent", "--insecure", "--http1.1", "--noproxy", "*"])
                    .arg(format!("https://{address}/"))
                    .stdout(Stdio::piped())
                    .spawn()?,
            );
            let Some(pipe) = running.0.stdout.take() else {
                return Err(Failure::new("curl has no pipe"));
            };
            (Output::of(pipe), Some(running))
        } else {
            (Output::of(Getting::new(address)?), None)
        };
        let connection = rig.attach(listener.accept()?.0, &AttachOptions::default())?;
        while !rig.record.line(connection).input.ends_with(b"\r\n\r\n") {
            let inputs = rig.record.line(connection).inputs;
            rig.driver().receive(connection)?;
            rig.until("the request", |record| {
                record.line(connection).inputs > inputs || record.is_closed(connection)
            })?;
            let closed = &rig.record.line(connection).closed;
            ensure!(closed.is_none(), "closed as {closed:?}");
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {FILE}\r\n\r\n");
        let body = FileRange::new(Arc::clone(&file), 0, FILE as u64);
        let response = Payload::from(Bytes::from(head)).with(body);
        rig.submit(connection, response, Watch::ALL, None)?;
        rig.settle()?;
        rig.close(connection)?;
        let got = output.all()?;
        ensure!(got == content, "{version:?}: {} bytes came, or not these", got.len());
        if let Some(mut running) = running {
            let status = running.0.wait()?;
            ensure!(status.success(), "{version:?}: curl ends with {status}");
        }
    }
    Ok(match lack {
        Some(lack) => Proof::substitute(lack, "rustls gets the same by the same request"),
        None => Proof::full(),
    })
}

/// Does what curl would: one request, and the body of its answer.
struct Getting {
    far: FarEnd,
    left: usize,
    skipped: bool,
    began: bool,
}

impl Getting {
    fn new(address: std::net::SocketAddr) -> Result<Self, Failure> {
        let socket = std::net::TcpStream::connect(address)?;
        let far = FarEnd::tls(socket, crate::tls::client()?);
        Ok(Self { far, left: FILE, skipped: false, began: false })
    }
}

impl Read for Getting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !std::mem::replace(&mut self.began, true) {
            self.far.begin()?;
            self.far.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        }
        if !std::mem::replace(&mut self.skipped, true) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                self.far.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
        }
        let most = buffer.len().min(self.left);
        let got = if most == 0 { 0 } else { self.far.read(&mut buffer[..most])? };
        self.left -= got;
        Ok(got)
    }
}

fn much(subject: &Subject) -> Result<Proof, Failure> {
    const LEN: usize = 4 << 20;
    let mut rig = Rig::new(subject)?;
    let (connection, mut far) = rig.connect(subject, Wire::default())?;
    let peer = std::thread::spawn(move || -> std::io::Result<(u64, Vec<u8>)> {
        let (mut hash, mut got) = (Sha256::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match far.read(&mut buffer)? {
                0 => return Ok((got, hash.finalize().to_vec())),
                n => {
                    hash.update(&buffer[..n]);
                    got += n as u64;
                }
            }
        }
    });
    let content = pattern::bytes(0, LEN);
    let mut file = tempfile::tempfile()?;
    file.write_all(&content)?;
    let file: Arc<dyn lastbyte::FileSource> = Arc::new(file);
    let content = Bytes::from(content);
    let mut hash = Sha256::new();
    let (mut sent, mut n, mut most) = (0, 0_u64, 0);
    let deadline = Instant::now() + PATIENCE * 20;
    while sent < subject.bulk() {
        // No two are the same, so that none can stand in for another.
        let number = Bytes::from(n.to_be_bytes().to_vec());
        hash.update(&number);
        hash.update(&content);
        let payload = Payload::from(number);
        let mut payload = if n % 2 == 0 {
            payload.with(content.clone())
        } else {
            payload.with(FileRange::new(Arc::clone(&file), 0, LEN as u64))
        };
        sent += payload.len();
        n += 1;
        while let Err(refused) = rig.submit(connection, payload, Watch::ACKED, None) {
            let is_full = matches!(refused.reason, RefuseReason::BackPressure { .. });
            ensure!(is_full, "refused: {}", refused.reason);
            ensure!(Instant::now() < deadline, "refused for ever: {}", refused.reason);
            payload = refused.value;
            rig.turn(PATIENCE)?;
        }
        most = most.max(rig.driver().counters().ciphertext_bytes);
    }
    rig.settle()?;
    rig.close(connection)?;
    expect_graceful(&rig, connection)?;
    let (got, theirs) = peer.join().map_err(|_| Failure::new("the peer panicked"))??;
    ensure!(got == sent, "the peer got {got} of {sent} bytes");
    ensure!(theirs == hash.finalize().to_vec(), "{sent} bytes arrived, and not those");
    expect_nothing_held(&mut rig)?;
    let counters = rig.driver().counters();
    if subject.directions().transmit == Transport::UserTls {
        ensure!(most <= 1 << 20, "{most} bytes of ciphertext were held");
        ensure!(counters.sealed_bytes == sent, "{} bytes were sealed", counters.sealed_bytes);
    }
    Ok(Proof::noting(format!("{} MiB", sent >> 20)))
}
