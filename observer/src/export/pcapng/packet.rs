//! TCP segments in IP packets, made anew: headers as they would have been, options left out. Knows RFC 791, 8200 and 9293; nothing of what is
//! carried.

use std::net::{IpAddr, SocketAddr};

/// What fits into one IP packet with both headers, in bytes.
pub(super) const MOST_PAYLOAD: usize = 65_000;

/// TCP's flags (RFC 9293, 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = 6;
const HOP_LIMIT: u8 = 64;

/// A segment to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// At most [`MOST_PAYLOAD`] bytes.
    pub(super) payload: &'a [u8],
}

impl Segment<'_> {
    /// Puts the packet in the place of what was in `out`.
    pub(super) fn packet(&self, out: &mut Vec<u8>) {
        out.clear();
        let len = TCP_HEADER_BYTES + self.payload.len();
        let mut sum = Sum::default();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = (len + 20) as u16;
                // Version 4, header of 5 words; don't fragment.
                out.extend([0x45, 0]);
                out.extend(total.to_be_bytes());
                out.extend([0, 0, 0x40, 0, HOP_LIMIT, TCP, 0, 0]);
                out.extend(from.octets());
                out.extend(to.octets());
                let mut header = Sum::default();
                header.add(out);
                put(out, 10, header.complement());
                sum.add(&from.octets());
                sum.add(&to.octets());
            }
            (from, to) => {
                let v6 = |ip| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let (from, to) = (v6(from), v6(to));
                out.extend([0x60, 0, 0, 0]);
                out.extend((len as u16).to_be_bytes());
                out.extend([TCP, HOP_LIMIT]);
                out.extend(from.octets());
                out.extend(to.octets());
                sum.add(&from.octets());
                sum.add(&to.octets());
            }
        }
        let tcp = out.len();
        out.extend(self.from.port().to_be_bytes());
        out.extend(self.to.port().to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend((if self.flags & ACK == 0 { 0 } else { self.ack }).to_be_bytes());
        // Header of 5 words; the largest window there is without options; checksum; urgent pointer.
        out.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend(self.payload);
        sum.add(&[0, TCP]);
        sum.add(&(len as u16).to_be_bytes());
        sum.add(out.get(tcp..).unwrap_or_default());
        put(out, tcp + 16, sum.complement());
    }
}

fn put(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071). Every part but the last has an even length.
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<2>();
        self.0 += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        self.0 += rest.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>();
    }

    fn complement(&self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, ip_header: usize) {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut packet = Vec::new();
        Segment { from, to, seq: 1, ack: 2, flags: PSH | ACK, payload: b"odd" }.packet(&mut packet);
        assert_eq!(packet.len(), ip_header + TCP_HEADER_BYTES + 3);
        assert!(packet.ends_with(b"odd"));
        assert_eq!(packet[ip_header..ip_header + 2], from.port().to_be_bytes());
        // Of what carries its own checksum the sum is all ones.
        if ip_header == 20 {
            let mut sum = Sum::default();
            sum.add(&packet[..20]);
            assert_eq!(sum.complement(), 0);
        }
        let mut sum = Sum::default();
        let addresses = if ip_header == 20 { 12..20 } else { 8..40 };
        sum.add(&packet[addresses]);
        sum.add(&[0, TCP, 0, 23]);
        sum.add(&packet[ip_header..]);
        assert_eq!(sum.complement(), 0);
    }

    #[test]
    fn headers_are_right_in_both_versions_of_ip() {
        check("127.0.0.1:40000", "127.0.0.1:5672", 20);
        check("[::1]:40000", "[::1]:5672", 40);
    }
}
