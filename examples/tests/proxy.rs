//! The proxy between real sockets, on each backend.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

const LEN: usize = 5_000_000;
const BACKENDS: [&str; 3] = ["io_uring", "epoll", "fallback"];

type Lines = BufReader<ChildStdout>;

struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// `None` where this kernel has no such backend.
    fn start(backend: &str, upstream: SocketAddr) -> Option<Self> {
        let (proxy, lines) = Self::start_unread(backend, upstream)?;
        std::thread::spawn(move || lines.lines().count());
        Some(proxy)
    }

    /// With what it has to say after it has begun.
    fn start_unread(backend: &str, upstream: SocketAddr) -> Option<(Self, Lines)> {
        let child = Command::new(env!("CARGO_BIN_EXE_proxy"))
            .args(["127.0.0.1:0", &upstream.to_string()])
            .env("LASTBYTE_BACKEND", backend)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = Self { child, address: upstream };
        let mut lines = BufReader::new(proxy.child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let Some(address) = line.split(' ').next().and_then(|first| first.parse().ok()) else {
            let mut complaint = String::new();
            proxy.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            assert!(complaint.contains(backend), "{complaint}");
            println!("n/a: {complaint}");
            return None;
        };
        proxy.address = address;
        Some((proxy, lines))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        stream
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..LEN).map(|n| (n / 7) as u8 ^ seed).collect()
}

/// Serves one connection.
fn upstream(serve: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || serve(listener.accept().unwrap().0)))
}

/// Each side hears all that the other has to say, the answer behind the end of what
/// was asked.
#[test]
fn one_end_is_passed_on_while_the_other_direction_goes_on() {
    for backend in BACKENDS {
        let (address, serving) = upstream(|mut stream| {
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            assert!(asked == pattern(1), "{} bytes came", asked.len());
            stream.write_all(&pattern(2)).unwrap();
        });
        let Some(proxy) = Proxy::start(backend, address) else { continue };
        let mut client = proxy.connect();
        client.write_all(&pattern(1)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(2), "{backend}: {} bytes came back", answer.len());
        serving.join().unwrap();
    }
}

/// A side that does not read holds up the other, and nothing grows.
#[test]
fn what_one_does_not_read_the_other_cannot_send() {
    for backend in BACKENDS {
        let (address, serving) = upstream(|mut stream| {
            let mut all = Vec::new();
            let mut first = [0];
            stream.read_exact(&mut first).unwrap();
            // Long enough for all buffers on the way to be full.
            std::thread::sleep(std::time::Duration::from_millis(200));
            stream.read_to_end(&mut all).unwrap();
            assert_eq!(all.len() + 1, 20 * LEN);
        });
        let Some(proxy) = Proxy::start(backend, address) else { continue };
        let mut client = proxy.connect();
        for _ in 0..20 {
            client.write_all(&pattern(3)).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        serving.join().unwrap();
    }
}

/// Both have ended, and the proxy's kernel has everything: closing had ten seconds.
#[test]
fn a_slow_reader_gets_everything() {
    const MUCH: usize = 3_000_000;
    let (address, serving) = upstream(|mut server| {
        server.read_to_end(&mut Vec::new()).unwrap();
        server.write_all(&vec![7; MUCH]).unwrap();
    });
    let Some(proxy) = Proxy::start("epoll", address) else { return };
    let mut client = proxy.connect();
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut piece, mut got) = (vec![0; 24 << 10], 0);
    loop {
        match client.read(&mut piece).unwrap() {
            0 => break,
            len => got += len,
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(got, MUCH);
    serving.join().unwrap();
}

/// It goes on whether its lines are read, or not, or nobody is left to read them.
#[test]
fn nobody_has_to_read_its_lines() {
    // Some 40 bytes a line, two lines an exchange, 64 KiB a pipe.
    const MANY: usize = 1200;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let Some((proxy, lines)) = Proxy::start_unread("epoll", address) else { return };
    let exchange = || assert_eq!(proxy.connect().read(&mut [0]).unwrap(), 0);
    (0..MANY).for_each(|_| exchange());
    drop(lines);
    (0..3).for_each(|_| exchange());
}

/// What was cut off must not look complete.
#[test]
fn a_reset_is_passed_on_as_one() {
    for backend in BACKENDS {
        let (address, serving) = upstream(|mut stream| {
            stream.write_all(b"half of").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        });
        let Some(proxy) = Proxy::start(backend, address) else { continue };
        let mut client = proxy.connect();
        client.read_exact(&mut [0; 7]).unwrap();
        client.write_all(b"!").unwrap();
        let end = client.read(&mut [0]);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{backend}");
        serving.join().unwrap();
    }
}

#[test]
fn a_client_learns_that_nobody_is_there() {
    for backend in BACKENDS {
        // A port that nobody listens on.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Some(proxy) = Proxy::start(backend, address) else { continue };
        // And the next one, too: the proxy goes on.
        for _ in 0..2 {
            let got = proxy.connect().read(&mut [0]);
            assert!(matches!(&got, Ok(0) | Err(_)), "{backend}: {got:?}");
            if let Err(error) = got {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{backend}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_explained() {
    for (arguments, part) in [
        (vec![], "usage"),
        (vec!["127.0.0.1:0"], "usage"),
        (vec!["127.0.0.1:0", "nowhere"], "nowhere"),
        (vec!["here", "127.0.0.1:1"], "here"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_proxy")).args(&arguments).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains(part), "{complaint}");
    }
}
