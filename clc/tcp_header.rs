// SPDX-License-Identifier: GPL-2.0

//! Putting the SMC option (RFC 7609, section A.1) into the headers of an outgoing packet.

#![forbid(unsafe_code)]

use super::tcp_option::InsertionPlan;

/// Fixed part of a TCP header (RFC 9293, section 3.1).
const TCP_FIXED: usize = 20;
/// Offset of the data offset and of the checksum in a TCP header.
const TCP_DOFF: usize = 12;
const TCP_CHECK: usize = 16;
/// Offsets of total length and checksum in an IPv4 header (RFC 791, section 3.1).
const V4_LENGTH: usize = 2;
const V4_CHECK: usize = 10;
/// Length of an IPv6 header, and the offset of the payload length in it (RFC 8200, section 3).
const V6_FIXED: usize = 40;
const V6_LENGTH: usize = 4;

const PROTO_TCP: u8 = 6;

/// The bytes that a packet's headers grow by.
pub const GROWTH: usize = InsertionPlan::GROWTH;

/// How a packet's TCP checksum stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// The device (or the stack, later) computes it: the field holds the pseudo-header's sum.
    Partial,
    /// The field is complete.
    Complete,
}

/// The headers of a TCP segment, and how the option can be put into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    v4: bool,
    /// Offset of the TCP header.
    transport: usize,
    /// Length of everything before the payload.
    len: usize,
    plan: InsertionPlan,
}

impl Headers {
    /// Looks at a packet from its IP header on; `packet` must hold all of the headers.
    ///
    /// `None` if it is not a TCP segment, or must be left alone: no room, signed, malformed.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let version = packet.first()? >> 4;
        let transport = match version {
            4 => v4_transport(packet)?,
            6 => v6_transport(packet)?,
            _ => return None,
        };
        let tcp = packet.get(transport..)?;
        let tcp_len = usize::from(tcp.get(TCP_DOFF)? >> 4).checked_mul(4)?;
        let options = tcp.get(TCP_FIXED..tcp_len)?;
        let plan = InsertionPlan::new(options)?;
        // The length field must be able to grow, and not lie.
        let field = if version == 4 { V4_LENGTH } else { V6_LENGTH };
        usize::from(read(packet, field)?)
            .checked_add(GROWTH)
            .filter(|grown| *grown <= usize::from(u16::MAX))?;
        Some(Self {
            v4: version == 4,
            transport,
            len: transport.checked_add(tcp_len)?,
            plan,
        })
    }

    /// Offset of the TCP header.
    pub fn transport(&self) -> usize {
        self.transport
    }

    /// Length of the headers, in bytes.
    pub fn length(&self) -> usize {
        self.len
    }

    /// Moves the headers to the front and puts the option behind them. `room` is [`GROWTH`] free
    /// bytes and then the headers, [`Self::length`] bytes.
    ///
    /// Returns whether it was done; if not, the headers are unchanged and in their old place.
    #[must_use]
    pub fn insert(&self, room: &mut [u8], checksum: Checksum) -> bool {
        self.try_insert(room, checksum).is_some()
    }

    fn try_insert(&self, room: &mut [u8], checksum: Checksum) -> Option<()> {
        let doff_at = self.transport.checked_add(TCP_DOFF)?;
        let check_at = self.transport.checked_add(TCP_CHECK)?;
        let options_at = self.transport.checked_add(TCP_FIXED)?;
        // Everything that can fail comes first.
        let old = room.get(GROWTH..)?;
        if old.len() != self.len || options_at > self.len {
            return None;
        }
        let growth = GROWTH as u16;
        let check = read(old, check_at)?;
        let doff = *old.get(doff_at)?;
        let new_doff = doff.checked_add(((GROWTH / 4) << 4) as u8)?;
        let old_sum = sum(old.get(doff_at..)?.get(..2)?, old.get(options_at..)?);
        let (length_at, ip_check) = if self.v4 {
            (V4_LENGTH, Some(read(old, V4_CHECK)?))
        } else {
            (V6_LENGTH, None)
        };
        let old_length = read(old, length_at)?;
        let new_length = old_length.checked_add(growth)?;
        self.plan_fits(options_at)?;

        room.copy_within(GROWTH.., 0);
        if !self.plan.apply(room.get_mut(options_at..)?) {
            return None;
        }
        *room.get_mut(doff_at)? = new_doff;
        write(room, length_at, new_length)?;
        if let Some(ip_check) = ip_check {
            // RFC 1624, section 3: HC' = ~(~HC + ~m + m').
            write(
                room,
                V4_CHECK,
                !add(add(!ip_check, !old_length), new_length),
            )?;
        }
        let check = match checksum {
            // The length is part of the pseudo-header (RFC 9293, section 3.1).
            Checksum::Partial => add(check, growth),
            Checksum::Complete => {
                let new_sum = sum(room.get(doff_at..)?.get(..2)?, room.get(options_at..)?);
                !add(add(add(!check, !old_sum), new_sum), growth)
            }
        };
        write(room, check_at, check)
    }

    /// Whether the plan was made for an option area of this length.
    fn plan_fits(&self, options_at: usize) -> Option<()> {
        (self.len.checked_sub(options_at)? <= 40 - GROWTH).then_some(())
    }
}

/// Offset of the TCP header in an unfragmented IPv4 packet.
fn v4_transport(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0xf).checked_mul(4)?;
    let is_tcp = *packet.get(9)? == PROTO_TCP;
    // Neither more fragments nor an offset (RFC 791, section 3.1).
    let whole = read(packet, 6)? & 0x3fff == 0;
    (is_tcp && whole && len >= 20).then_some(len)
}

/// Offset of the TCP header in an unfragmented IPv6 packet.
fn v6_transport(packet: &[u8]) -> Option<usize> {
    let mut next = *packet.get(6)?;
    let mut at = V6_FIXED;
    loop {
        match next {
            PROTO_TCP => return Some(at),
            // Hop-by-hop options, routing header, destination options (RFC 8200, section 4): the
            // length is in units of 8 bytes and does not count the first.
            0 | 43 | 60 => {
                next = *packet.get(at)?;
                let units = usize::from(*packet.get(at.checked_add(1)?)?).checked_add(1)?;
                at = at.checked_add(units.checked_mul(8)?)?;
            }
            _ => return None,
        }
    }
}

fn read(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn write(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

/// One's complement sum (RFC 1071, section 1).
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // With a carry the sum is at most 0xfffe.
    sum.wrapping_add(carry.into())
}

/// One's complement sum of two runs of bytes that start at even offsets.
fn sum(first: &[u8], second: &[u8]) -> u16 {
    let words = |bytes: &[u8]| {
        bytes.chunks(2).fold(0, |sum, word| match word {
            [high, low] => add(sum, u16::from_be_bytes([*high, *low])),
            [high] => add(sum, u16::from_be_bytes([*high, 0])),
            _ => sum,
        })
    };
    add(words(first), words(second))
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_tcp_header))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;
    use crate::clc::tcp_option::contains_smc;

    const OPTIONS: [u8; 20] = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    const PAYLOAD: [u8; 5] = [1, 2, 3, 4, 5];

    /// Room, headers and payload of a SYN with complete checksums; returns its length, too.
    fn packet(v4: bool, extension: bool) -> ([u8; 160], usize) {
        let mut bytes = [0xaa; 160];
        let tcp_len = TCP_FIXED + OPTIONS.len() + PAYLOAD.len();
        let ip = &mut bytes[GROWTH..];
        let transport;
        if v4 {
            transport = if extension { 24 } else { 20 };
            let total = (transport + tcp_len) as u16;
            ip[..transport].fill(1);
            ip[0] = 0x40 | (transport / 4) as u8;
            ip[6..8].copy_from_slice(&[0x40, 0]);
            ip[9] = PROTO_TCP;
            write(ip, V4_LENGTH, total).unwrap();
            write(ip, V4_CHECK, 0).unwrap();
            let check = !sum(&ip[..transport], &[]);
            write(ip, V4_CHECK, check).unwrap();
        } else {
            transport = if extension { 56 } else { 40 };
            ip[..transport].fill(2);
            ip[0] = 0x60;
            ip[6] = if extension { 60 } else { PROTO_TCP };
            write(ip, V6_LENGTH, (transport - 40 + tcp_len) as u16).unwrap();
            if extension {
                ip[40..42].copy_from_slice(&[PROTO_TCP, 1]);
            }
        }
        let tcp = &mut ip[transport..transport + tcp_len];
        tcp[..TCP_FIXED].fill(3);
        tcp[TCP_DOFF] = 0xa0;
        tcp[TCP_DOFF + 1] = 2;
        tcp[TCP_FIXED..40].copy_from_slice(&OPTIONS);
        tcp[40..].copy_from_slice(&PAYLOAD);
        let len = transport + tcp_len;
        write(ip, transport + TCP_CHECK, 0).unwrap();
        let check = !tcp_sum(&ip[..len], transport);
        write(ip, transport + TCP_CHECK, check).unwrap();
        (bytes, len)
    }

    /// The sum over pseudo-header and segment; a right one is 0xffff.
    fn tcp_sum(packet: &[u8], transport: usize) -> u16 {
        let addresses = if packet[0] >> 4 == 4 {
            &packet[12..20]
        } else {
            &packet[8..40]
        };
        let pseudo = add(PROTO_TCP.into(), (packet.len() - transport) as u16);
        add(sum(addresses, &packet[transport..]), pseudo)
    }

    #[test]
    fn inserts() {
        for (v4, extension) in [(true, false), (true, true), (false, false), (false, true)] {
            let (mut bytes, len) = packet(v4, extension);
            let before = bytes;
            let headers = Headers::parse(&bytes[GROWTH..GROWTH + len]).unwrap();
            assert_eq!(headers.length() + PAYLOAD.len(), len);
            assert!(headers.insert(&mut bytes[..GROWTH + headers.length()], Checksum::Complete));

            let after = &bytes[..GROWTH + len];
            let transport = headers.transport();
            assert_eq!(tcp_sum(after, transport), 0xffff);
            assert!(contains_smc(
                &after[transport + TCP_FIXED..headers.length() + GROWTH]
            ));
            assert_eq!(after[headers.length() + GROWTH..], PAYLOAD);
            assert_eq!(after[transport + TCP_DOFF] >> 4, 12);
            assert_eq!(after[transport + TCP_DOFF + 1], 2);
            if v4 {
                assert_eq!(sum(&after[..transport], &[]), 0xffff);
                assert_eq!(read(after, V4_LENGTH), Some(after.len() as u16));
            } else {
                assert_eq!(read(after, V6_LENGTH), Some((after.len() - 40) as u16));
            }
            assert_eq!(bytes[GROWTH + len..], before[GROWTH + len..]);
            // The second time there is nothing to do.
            assert!(Headers::parse(&bytes[..GROWTH + len]).is_none());
        }
    }

    #[test]
    fn keeps_a_partial_checksum() {
        let (mut bytes, len) = packet(true, false);
        let pseudo = |len: usize| add(add(PROTO_TCP.into(), len as u16), sum(&[1; 8], &[]));
        let at = GROWTH + 20 + TCP_CHECK;
        write(&mut bytes, at, pseudo(len - 20)).unwrap();
        let headers = Headers::parse(&bytes[GROWTH..GROWTH + len]).unwrap();
        assert!(headers.insert(&mut bytes[..GROWTH + headers.length()], Checksum::Partial));
        assert_eq!(
            read(&bytes, 20 + TCP_CHECK),
            Some(pseudo(len - 20 + GROWTH))
        );
    }

    #[test]
    fn leaves_alone() {
        let (bytes, len) = packet(true, false);
        let packet_of = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = bytes;
            change(&mut bytes[GROWTH..]);
            Headers::parse(&bytes[GROWTH..GROWTH + len])
        };
        assert!(packet_of(&|_| ()).is_some());
        assert!(packet_of(&|ip| ip[9] = 17).is_none(), "UDP");
        assert!(packet_of(&|ip| ip[6] = 0x20).is_none(), "fragment");
        assert!(packet_of(&|ip| ip[7] = 1).is_none(), "later fragment");
        assert!(packet_of(&|ip| ip[0] = 0x44).is_none(), "short IP header");
        assert!(packet_of(&|ip| ip[0] = 0x55).is_none(), "version");
        assert!(
            packet_of(&|ip| ip[20 + TCP_DOFF] = 0x40).is_none(),
            "short TCP header"
        );
        assert!(
            packet_of(&|ip| ip[20 + TCP_DOFF] = 0xf0).is_none(),
            "no room"
        );
        assert!(packet_of(&|ip| ip[2] = 0xff).is_some());
        assert!(packet_of(&|ip| ip[2..4].fill(0xff)).is_none(), "length");
        for cut in 0..60 {
            assert!(Headers::parse(&bytes[GROWTH..GROWTH + cut]).is_none());
        }
        // Extension headers that never end, or end in something else.
        let mut v6 = packet(false, true).0;
        v6[GROWTH + 40] = 60;
        assert!(Headers::parse(&v6[GROWTH..]).is_none());
        v6[GROWTH + 40] = 44;
        assert!(Headers::parse(&v6[GROWTH..]).is_none());
    }

    #[test]
    fn wrong_room_changes_nothing() {
        let (mut bytes, len) = packet(false, false);
        let before = bytes;
        let headers = Headers::parse(&bytes[GROWTH..GROWTH + len]).unwrap();
        for end in [
            0,
            7,
            8,
            60,
            headers.length(),
            headers.length() + 7,
            headers.length() + 9,
        ] {
            assert!(!headers.insert(&mut bytes[..end], Checksum::Complete));
            assert_eq!(bytes, before);
        }
    }
}
