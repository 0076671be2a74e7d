//! Network devices, by `rtnetlink(7)`: just what a link under test needs.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send,
    socket_with,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Message and attribute numbers (`include/uapi/linux/{rtnetlink,if_link,pkt_sched}.h`).
mod number {
    pub(super) const NLMSG_ERROR: u16 = 2;
    pub(super) const RTM_NEWLINK: u16 = 16;
    pub(super) const RTM_NEWADDR: u16 = 20;
    pub(super) const RTM_NEWQDISC: u16 = 36;
    pub(super) const NLM_F_REQUEST: u16 = 0x1;
    pub(super) const NLM_F_ACK: u16 = 0x4;
    pub(super) const NLM_F_REPLACE: u16 = 0x100;
    pub(super) const NLM_F_EXCL: u16 = 0x200;
    pub(super) const NLM_F_CREATE: u16 = 0x400;
    pub(super) const IFF_UP: u32 = 0x1;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_NET_NS_FD: u16 = 28;
    pub(super) const IFLA_INFO_KIND: u16 = 1;
    pub(super) const IFLA_INFO_DATA: u16 = 2;
    pub(super) const VETH_INFO_PEER: u16 = 1;
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const TC_H_ROOT: u32 = 0xffff_ffff;
    pub(super) const TCA_KIND: u16 = 1;
    pub(super) const TCA_OPTIONS: u16 = 2;
    pub(super) const IFLA_TXQLEN: u16 = 13;
    pub(super) const TCA_TBF_PARMS: u16 = 1;
    pub(super) const TCA_TBF_BURST: u16 = 6;
    pub(super) const TC_LINKLAYER_ETHERNET: u8 = 1;
    pub(super) const TCA_NETEM_RATE: u16 = 6;
    pub(super) const TCA_NETEM_LATENCY64: u16 = 10;
}
use number::*;

/// Devices of one network namespace: the one that the thread was in when this
/// was opened.
#[derive(Debug)]
pub(crate) struct Devices {
    socket: OwnedFd,
}

/// What a device does to what it sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Netem {
    pub(crate) delay: Duration,
    /// Packets lost of a thousand.
    pub(crate) loss: u32,
    /// Bytes a second; `None` without bound.
    pub(crate) rate: Option<u64>,
}

impl Devices {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        Ok(Self { socket })
    }

    /// Makes two devices that are each other's wire, the other one in another
    /// namespace.
    pub(crate) fn add_veth(
        &self,
        name: &str,
        other: &str,
        namespace: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.link(0, 0);
        message.text(IFLA_IFNAME, name);
        message.nested(IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_KIND, "veth");
            message.nested(IFLA_INFO_DATA, |message| {
                message.nested(VETH_INFO_PEER, |message| {
                    message.link(0, 0);
                    message.text(IFLA_IFNAME, other);
                    message.number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
                });
            });
        });
        self.request(message)
    }

    pub(crate) fn up(&self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.link(self.index(name)?, IFF_UP);
        self.request(message)
    }

    /// How many packets may wait in the device.
    pub(crate) fn queue(&self, name: &str, packets: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.link(self.index(name)?, 0);
        message.number(IFLA_TXQLEN, packets);
        self.request(message)
    }

    pub(crate) fn address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        const AF_INET: u8 = 2;
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        // struct ifaddrmsg: family, length of the prefix, flags, scope, index.
        message.bytes(&[AF_INET, prefix, 0, 0]);
        message.bytes(&self.index(name)?.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS] {
            message.attribute(kind, &address.octets());
        }
        self.request(message)
    }

    /// Has the device send late, or not at all.
    pub(crate) fn netem(&self, name: &str, netem: Netem) -> io::Result<()> {
        /// Packets that may wait: more than any case has under way.
        const LIMIT: u32 = 100_000;
        let mut message = self.discipline(name, "netem")?;
        message.nested(TCA_OPTIONS, |message| {
            let loss = u64::from(u32::MAX) * u64::from(netem.loss.min(1000)) / 1000;
            let loss = u32::try_from(loss).unwrap_or(u32::MAX);
            // struct tc_netem_qopt: latency (below), limit, loss of 2^32, gap,
            // duplicate, jitter.
            for field in [0, LIMIT, loss, 0, 0, 0] {
                message.bytes(&field.to_ne_bytes());
            }
            let nanos = u64::try_from(netem.delay.as_nanos()).unwrap_or(u64::MAX);
            message.attribute(TCA_NETEM_LATENCY64, &nanos.to_ne_bytes());
            if let Some(rate) = netem.rate {
                // struct tc_netem_rate: rate, and three fields for links that
                // add to each packet.
                let rate = u32::try_from(rate).unwrap_or(u32::MAX);
                message.attribute(TCA_NETEM_RATE, &[rate, 0, 0, 0].map(u32::to_ne_bytes).concat());
            }
        });
        self.request(message)
    }

    /// Has the device send so many bytes a second, after the largest packet of a
    /// loopback, which goes out at once.
    pub(crate) fn shape(&self, name: &str, bytes_per_second: u32) -> io::Result<()> {
        const BURST: u32 = 70_000;
        /// Bytes that may wait.
        const LIMIT: u32 = 16 << 20;
        let mut message = self.discipline(name, "tbf")?;
        message.nested(TCA_OPTIONS, |message| {
            // struct tc_tbf_qopt: the rate (a struct tc_ratespec: cell_log,
            // linklayer, overhead, cell_align, mpu, rate) and a peak rate, limit,
            // buffer, mtu. The burst below takes the place of the buffer.
            let rate = bytes_per_second.to_ne_bytes();
            let rate = [&[0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0][..], &rate].concat();
            let rest = [LIMIT, 0, 0].map(u32::to_ne_bytes).concat();
            message.attribute(TCA_TBF_PARMS, &[&rate[..], &[0; 12], &rest].concat());
            message.attribute(TCA_TBF_BURST, &BURST.to_ne_bytes());
        });
        self.request(message)
    }

    /// The start of a message that gives the device a queueing discipline.
    fn discipline(&self, name: &str, kind: &str) -> io::Result<Message> {
        let mut message = Message::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE);
        // struct tcmsg: family and padding, index, handle, parent, info.
        message.bytes(&[0; 4]);
        message.bytes(&self.index(name)?.to_ne_bytes());
        for field in [0, TC_H_ROOT, 0] {
            message.bytes(&field.to_ne_bytes());
        }
        message.text(TCA_KIND, kind);
        Ok(message)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(netdevice::name_to_index(&self.socket, name)?)
    }

    fn request(&self, message: Message) -> io::Result<()> {
        send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (len, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let field =
            |at: usize| answer[..len].get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        // struct nlmsghdr: length, type and flags, sequence, port; then the
        // error, negative, which is 0 for an acknowledgement.
        let is_answer = answer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
        match field(16).filter(|_| is_answer) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "no netlink answer")),
        }
    }
}

/// A request that is being written.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; 4]);
        message.bytes(&kind.to_ne_bytes());
        message.bytes(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        // The sequence and our port, neither of which matters with one request
        // at a time.
        message.bytes(&[0; 8]);
        message
    }

    /// `struct ifinfomsg`: family and type, index, flags, which of them to change.
    fn link(&mut self, index: u32, flags: u32) {
        for field in [0, index, flags, flags] {
            self.bytes(&field.to_ne_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes(value));
    }

    /// An attribute of what `inside` writes.
    fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.bytes(&[0; 2]);
        self.bytes(&kind.to_ne_bytes());
        inside(self);
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        // Attributes begin at multiples of four; the length is without padding.
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_aligned() {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.nested(9, |message| message.text(3, "abcd"));
        let bytes = message.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 16_u16.to_ne_bytes(), "the outer holds the inner's padding");
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes(), "the inner's length is without it");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let devices = Devices::open().unwrap();
        assert!(devices.up("no-such-device").is_err());
    }
}
