//! Ethernet, IPv4 and UDP headers: written before a frame, checked in front of a received one.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of the three headers together.
pub(crate) const LINK_BYTES: usize = ETHERNET_BYTES + IP_BYTES + UDP_BYTES;
pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The headers of everything from one address to another, but for what depends on a datagram's length.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: [u8; LINK_BYTES],
    /// Sum of the IP header's words, without length and checksum.
    sum: u32,
}

impl Template {
    pub(crate) fn new(from: (Mac, SocketAddrV4), to: (Mac, SocketAddrV4), ttl: u8) -> Template {
        let mut bytes = [0; LINK_BYTES];
        bytes[0..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&from.0);
        bytes[12..14].copy_from_slice(&[8, 0]);
        let ip = &mut bytes[ETHERNET_BYTES..];
        ip[0] = 0x45;
        // Not to be fragmented: frames are made to fit.
        ip[6] = 0x40;
        ip[8] = ttl;
        ip[9] = libc::IPPROTO_UDP as u8;
        ip[12..16].copy_from_slice(&from.1.ip().octets());
        ip[16..20].copy_from_slice(&to.1.ip().octets());
        let sum = words(&ip[..IP_BYTES]);
        let udp = &mut ip[IP_BYTES..];
        udp[0..2].copy_from_slice(&from.1.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.1.port().to_be_bytes());
        // A UDP checksum of zero says that there is none (RFC 768); CHKSUM does it better.
        Template { bytes, sum }
    }

    /// The headers of a datagram with so many bytes of payload, which must fit an IP datagram; written where they go out
    /// from, for a copy of what was just written in parts waits for these.
    #[inline]
    pub(crate) fn write(&self, payload: usize, bytes: &mut [u8; LINK_BYTES]) {
        debug_assert!(payload + IP_BYTES + UDP_BYTES <= usize::from(u16::MAX));
        *bytes = self.bytes;
        let total = (payload + IP_BYTES + UDP_BYTES) as u16;
        bytes[ETHERNET_BYTES + 2..ETHERNET_BYTES + 4].copy_from_slice(&total.to_be_bytes());
        let checksum = !fold(self.sum + u32::from(total));
        bytes[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12].copy_from_slice(&checksum.to_be_bytes());
        let at = ETHERNET_BYTES + IP_BYTES + 4;
        bytes[at..at + 2].copy_from_slice(&((payload + UDP_BYTES) as u16).to_be_bytes());
    }

    /// The same, to be copied.
    pub(crate) fn of(&self, payload: usize) -> [u8; LINK_BYTES] {
        let mut bytes = [0; LINK_BYTES];
        self.write(payload, &mut bytes);
        bytes
    }
}

/// How many bytes of payload follow the headers of a received frame, if they are what the XDP program lets pass: what
/// lies behind (short frames are filled up on the wire) is not the datagram's.
#[inline]
pub(crate) fn payload_bytes(frame: &[u8]) -> Option<usize> {
    let header = frame.first_chunk::<LINK_BYTES>()?;
    let number = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let (total, udp) = (number(ETHERNET_BYTES + 2), number(ETHERNET_BYTES + IP_BYTES + 4));
    let right = header[ETHERNET_BYTES] == 0x45
        && udp >= UDP_BYTES
        && udp + IP_BYTES <= total
        && total + ETHERNET_BYTES <= frame.len();
    right.then(|| udp - UDP_BYTES)
}

/// The hardware address that stands for an IP multicast address (RFC 1112).
pub(crate) fn multicast_mac(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

/// The sum of 16-bit words, not yet folded.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

#[inline]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The sum over a header with a right checksum is all ones (RFC 1071), whatever is in it.
        #[test]
        fn headers_are_right_for_every_length(
            from in any::<(Mac, [u8; 4], u16)>(),
            to in any::<(Mac, [u8; 4], u16)>(),
            ttl in any::<u8>(),
            payload in 0_usize..=65_507,
            filling in 0_usize..100,
        ) {
            let end = |(mac, ip, port): (Mac, [u8; 4], u16)| (mac, SocketAddrV4::new(ip.into(), port));
            let bytes = Template::new(end(from), end(to), ttl).of(payload);
            prop_assert_eq!(fold(words(&bytes[ETHERNET_BYTES..ETHERNET_BYTES + IP_BYTES])), 0xffff);
            let mut frame = bytes.to_vec();
            frame.resize(LINK_BYTES + payload + filling, 0);
            prop_assert_eq!(payload_bytes(&frame), Some(payload));
            frame.truncate(LINK_BYTES + payload.saturating_sub(1));
            prop_assert!(payload == 0 || payload_bytes(&frame).is_none(), "a frame cut short");
        }

        #[test]
        fn rubbish_is_measured_within_its_bounds(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = frame;
            if frame.len() > ETHERNET_BYTES {
                frame[ETHERNET_BYTES] = 0x45;
            }
            if let Some(payload) = payload_bytes(&frame) {
                prop_assert!(LINK_BYTES + payload <= frame.len());
            }
        }
    }

    #[test]
    fn multicast_addresses_lose_their_upper_bits() {
        assert_eq!(multicast_mac(Ipv4Addr::new(239, 255, 78, 1)), [1, 0, 0x5e, 0x7f, 78, 1]);
        assert_eq!(multicast_mac(Ipv4Addr::new(224, 0, 0, 251)), [1, 0, 0x5e, 0, 0, 251]);
    }
}
