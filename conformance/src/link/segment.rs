//! The few fields of an IPv4 TCP packet that the link looks at.

/// A packet, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) syn: bool,
    pub(super) ack: bool,
    /// Bytes of data.
    pub(super) len: u32,
}

impl Segment {
    /// Reads `packet`; `None` for anything but TCP over IPv4.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        const TCP: u8 = 6;
        let first = *packet.first()?;
        if first >> 4 != 4 || *packet.get(9)? != TCP {
            return None;
        }
        let header = usize::from(first & 15) * 4;
        let total = usize::from(u16::from_be_bytes(bytes(packet, 2)?)).min(packet.len());
        let tcp = packet.get(header..total)?;
        let data = usize::from(*tcp.get(12)? >> 4) * 4;
        let flags = *tcp.get(13)?;
        Some(Self {
            source_port: u16::from_be_bytes(bytes(tcp, 0)?),
            sequence: u32::from_be_bytes(bytes(tcp, 4)?),
            acknowledgement: u32::from_be_bytes(bytes(tcp, 8)?),
            syn: flags & 2 != 0,
            ack: flags & 16 != 0,
            len: u32::try_from(tcp.len().saturating_sub(data)).ok()?,
        })
    }
}

/// Exchanges source and destination. Both checksums are sums in which the order
/// does not matter, so they stay right.
pub(super) fn turn_round(packet: &mut [u8]) {
    if packet.len() >= 20 && packet[0] >> 4 == 4 {
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 43];
        packet[0] = 0x45;
        packet[3] = 43;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
        packet[20..22].copy_from_slice(&80_u16.to_be_bytes());
        packet[24..28].copy_from_slice(&7_u32.to_be_bytes());
        packet[32] = 5 << 4;
        packet[33] = 16;
        packet
    }

    #[test]
    fn fields_are_where_they_are() {
        let segment = Segment::parse(&packet()).unwrap();
        assert_eq!((segment.source_port, segment.sequence, segment.len), (80, 7, 3));
        assert!(segment.ack && !segment.syn);
    }

    #[test]
    fn no_packet_makes_it_panic() {
        for len in 0..43 {
            let mut cut = packet()[..len].to_vec();
            turn_round(&mut cut);
            let _: Option<Segment> = Segment::parse(&cut);
        }
        assert_eq!(Segment::parse(&[0x60; 60]), None, "IPv6 is not spoken here");
    }

    #[test]
    fn addresses_are_exchanged() {
        let mut packet = packet();
        turn_round(&mut packet);
        assert_eq!(packet[12..20], [10, 9, 0, 2, 10, 9, 0, 1]);
    }
}
