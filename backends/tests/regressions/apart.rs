//! A peer that does as it is told, in a network namespace of its own.

use lastbyte::Socket;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The name of its device.
pub(crate) const DEVICE: &str = "apart0";

/// Does `work` in a network namespace with a peer of its own, where that can be had.
pub(crate) fn apart(work: impl FnOnce(&mut Peer) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match Peer::new() {
            Ok(mut peer) => work(&mut peer),
            Err(error) => eprintln!("n/a here: a network namespace with a device: {error}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The far end of a TUN device, which acknowledges what and when it is told to.
pub(crate) struct Peer {
    device: File,
    listener: TcpListener,
    port: u16,
    /// The near side's first byte, and how much it has sent.
    first: u32,
    sent: u32,
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const OWN: u32 = 1_000;
/// An MSS, and an empty `TCP_FASTOPEN` option.
const OPTIONS: [u8; 8] = [2, 4, 5, 180, 34, 2, 1, 1];

impl Peer {
    fn new() -> io::Result<Self> {
        // SAFETY: changes which network devices this thread sees.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        // Listeners take data in a SYN, without a cookie.
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1539")?;
        let device = device()?;
        let listener = TcpListener::bind((HERE, 7000))?;
        Ok(Self { device, listener, port: 5000, first: 0, sent: 0 })
    }

    /// Connects without completing the handshake, and hands over what was accepted.
    pub(crate) fn begin(&mut self) -> Socket {
        self.port += 1;
        (self.first, self.sent) = (0, 0);
        self.send(OWN, 0, SYN, &OPTIONS, b"hello");
        let (stream, from) = self.listener.accept().expect("accepts");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        self.read_until(|peer| peer.first != 0);
        Socket::accepted(stream, from)
    }

    pub(crate) fn acknowledge(&mut self) {
        self.read_to(1);
        self.acknowledge_to(self.sent);
    }

    pub(crate) fn acknowledge_to(&mut self, bytes: u32) {
        self.send(OWN + 6, self.first.wrapping_add(bytes), ACK, &[], &[]);
    }

    pub(crate) fn read_to(&mut self, bytes: u32) {
        self.read_until(|peer| peer.sent >= bytes);
    }

    fn read_until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut packet = [0; 4096];
        while !done(self) {
            assert!(Instant::now() < end, "nothing more comes");
            match self.device.read(&mut packet) {
                Ok(n) => self.take_in(&packet[..n]),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// How many bytes have left the near side's device by now.
    pub(crate) fn read_all(&mut self) -> u32 {
        let mut packet = [0; 4096];
        while let Ok(n) = self.device.read(&mut packet) {
            self.take_in(&packet[..n]);
        }
        self.sent
    }

    fn take_in(&mut self, packet: &[u8]) {
        let Some(tcp) = packet.get(20..).filter(|_| packet[0] >> 4 == 4 && packet[9] == 6) else {
            return;
        };
        let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
        if tcp[2..4] != self.port.to_be_bytes() {
            return;
        }
        if tcp[13] & SYN != 0 {
            self.first = number(4).wrapping_add(1);
        }
        let data = tcp.len() - usize::from(tcp[12] >> 4) * 4;
        if data > 0 && tcp[13] & SYN == 0 {
            let end = number(4).wrapping_sub(self.first) + u32::try_from(data).expect("short");
            self.sent = self.sent.max(end);
        }
    }

    fn send(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) {
        let header = u8::try_from((20 + options.len()) / 4).expect("short") << 4;
        let mut tcp = Vec::new();
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(7000_u16.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([header, flags, 255, 255, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let ends = [THERE.octets(), HERE.octets()].concat();
        let len = u16::try_from(tcp.len()).expect("short");
        let pseudo = [&ends[..], &[0, 6], &len.to_be_bytes(), &tcp].concat();
        tcp[16..18].copy_from_slice(&checksum(&pseudo));
        let total = (20 + len).to_be_bytes();
        let mut ip = [&[0x45, 0][..], &total, &[0, 1, 0, 0, 64, 6, 0, 0], &ends].concat();
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        ip.extend(tcp);
        self.device.write_all(&ip).expect("sends");
    }
}

/// The Internet's, RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

/// A TUN device that is up and has the address [`HERE`].
fn device() -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let device = options.open("/dev/net/tun")?;
    let mut request = named(DEVICE);
    let ask = |fd: i32, number: libc::c_ulong, request: &mut libc::ifreq| {
        // SAFETY: these requests read and write an `ifreq`.
        check(unsafe { libc::ioctl(fd, number as _, std::ptr::from_mut(request)) })
    };
    let flags = |flags: i32| libc::c_short::try_from(flags).expect("short");
    request.ifr_ifru.ifru_flags = flags(libc::IFF_TUN | libc::IFF_NO_PI);
    ask(device.as_raw_fd(), libc::TUNSETIFF, &mut request)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let requests =
        [(libc::SIOCSIFADDR, HERE), (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0))];
    for (number, address) in requests {
        // SAFETY: a structure of integers: zeros are valid.
        let mut to: libc::sockaddr = unsafe { std::mem::zeroed() };
        to.sa_family = libc::sa_family_t::try_from(libc::AF_INET).expect("short");
        // A `sockaddr_in` has its address behind a port of two bytes.
        for (to, from) in to.sa_data[2..].iter_mut().zip(address.octets()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_addr = to;
        ask(socket.as_raw_fd(), number, &mut request)?;
    }
    // Loopback is what facilities are tried on.
    for name in [DEVICE, "lo"] {
        request = named(name);
        request.ifr_ifru.ifru_flags = flags(libc::IFF_UP | libc::IFF_RUNNING);
        ask(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request)?;
    }
    Ok(device)
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: a structure of integers: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
