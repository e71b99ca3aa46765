// SPDX-License-Identifier: GPL-2.0

//! The nouns of the protocol as types: identities, addresses, tokens and coded sizes.
//!
//! All are plain values that cost nothing at run time. A value that has a range (a 24 bit queue
//! pair number, a buffer size code) cannot be built outside it, so code that holds one need not
//! check again. Values that the peer chooses freely (keys, tokens) are opaque wrappers that only
//! keep two kinds of numbers from being mixed up.

#![forbid(unsafe_code)]

use core::fmt;

use zerocopy::{
    FromBytes,
    IntoBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// Identity of one instance of one TCP/IP stack: instance number and MAC address.
///
/// RFC 7609, section A.2.1: 2 bytes instance ID, 6 bytes RoCE MAC.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct PeerId(pub [u8; 8]);

impl PeerId {
    /// What Linux has in a Proposal of version 2 only, where nothing else fills the field.
    pub const NOT_TOLD: Self = Self([0; 8]);

    /// Whether this one, from a Proposal, can be the other one, from a later message.
    pub fn agrees_with(&self, later: &Self) -> bool {
        self == later || *self == Self::NOT_TOLD
    }

    /// Builds the identity from an instance number, which differs at each start of the stack, and
    /// the MAC address of one RoCE port.
    pub const fn new(instance: u16, mac: Mac) -> Self {
        let [i0, i1] = instance.to_be_bytes();
        let [m0, m1, m2, m3, m4, m5] = mac.0;
        Self([i0, i1, m0, m1, m2, m3, m4, m5])
    }

    /// The MAC address in the identity.
    pub const fn mac(&self) -> Mac {
        let [_, _, m0, m1, m2, m3, m4, m5] = self.0;
        Mac([m0, m1, m2, m3, m4, m5])
    }
}

/// GID of a RoCE port: an IPv6 address, or an IPv4 address in its v4-mapped form.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The GID with no address in it.
    pub const ZERO: Self = Self([0; 16]);

    /// The v4-mapped GID (`::ffff:a.b.c.d`) that a RoCEv2 port has for an IPv4 address.
    pub const fn from_ipv4(addr: [u8; 4]) -> Self {
        let [a, b, c, d] = addr;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The IPv4 address of a v4-mapped GID, `None` for any other GID.
    pub const fn as_ipv4(&self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// Whether no address is set.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Gid {
    /// Eight groups of four hex digits, never shortened: the form of the diagnosis interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 && i % 2 == 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

/// Ethernet address of a RoCE port.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

macro_rules! u24 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Largest value of the 24 bit field.
            pub const MAX: u32 = 0x00ff_ffff;

            /// The value, `None` if it needs more than 24 bits.
            pub const fn new(value: u32) -> Option<Self> {
                if value <= Self::MAX {
                    Some(Self(value))
                } else {
                    None
                }
            }

            /// The low 24 bits of a value.
            pub const fn from_low_bits(value: u32) -> Self {
                Self(value & Self::MAX)
            }

            /// From the three bytes on the wire (big endian).
            pub const fn from_be_bytes(bytes: [u8; 3]) -> Self {
                let [a, b, c] = bytes;
                Self(u32::from_be_bytes([0, a, b, c]))
            }

            /// The three bytes on the wire (big endian).
            pub const fn to_be_bytes(self) -> [u8; 3] {
                let [_, a, b, c] = self.0.to_be_bytes();
                [a, b, c]
            }

            /// The value as a number below 2^24.
            pub const fn value(self) -> u32 {
                self.0
            }
        }
    };
}

u24! {
    /// Number of a queue pair, 24 bits.
    Qpn24
}

u24! {
    /// Packet sequence number of a queue pair, 24 bits.
    Psn24
}

impl Qpn24 {
    /// Whether a reliable connection can have this number.
    ///
    /// 0 and 1 are the management queue pairs of a port and 0xffffff is the multicast address
    /// (InfiniBand Architecture Specification, volume 1, section 3.5.10), so a peer that offers one
    /// of them cannot be connected to.
    pub const fn is_connectable(self) -> bool {
        self.0 > 1 && self.0 < Self::MAX
    }
}

/// Remote key of a memory region: opaque, chosen by the device of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RKey(pub u32);

/// RMB element alert token: names one connection at its owner; the other side puts it into each CDC
/// message.
///
/// RFC 7609, section A.2.3: opaque to the one who sends it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct AlertToken(pub u32);

/// Number of a link within its link group, assigned by the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct LinkNumber(pub u8);

/// Link user ID: names a link to the administrator, chosen by each side for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct LinkUserId(pub u32);

/// Index of an element within an RMB; the first is 1.
///
/// RFC 7609, section 2.1: the valid range is 1 to 255. The address of an element is `(index - 1)`
/// elements into its RMB, so a zero from the peer would name memory before the buffer; it cannot be
/// represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RmbeIndex(u8);

impl RmbeIndex {
    /// The first element, the only one that this implementation uses in its own RMBs.
    pub const FIRST: Self = Self(1);

    /// The index, `None` for 0.
    pub const fn new(index: u8) -> Option<Self> {
        match index {
            0 => None,
            _ => Some(Self(index)),
        }
    }

    /// The index as on the wire, 1 to 255.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// Number of elements before this one, 0 to 254.
    pub const fn elements_before(self) -> u8 {
        self.0.saturating_sub(1)
    }
}

impl Default for RmbeIndex {
    fn default() -> Self {
        Self::FIRST
    }
}

/// Coded size of a buffer: `n` stands for 16 KiB * 2^n.
///
/// RFC 7609, section A.2.3 (Bsize): 4 bits, size `2^(n + 4)` KiB. The RFC's largest size is 512 KiB
/// (n = 5); Linux peers use the whole field, up to 512 MiB, so all 16 codes are valid here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufSizeCode(u8);

impl BufSizeCode {
    /// The smallest buffer, 16 KiB.
    pub const MIN: Self = Self(0);
    /// The largest buffer that the field can say, 512 MiB.
    pub const MAX: Self = Self(15);
    /// Bytes of the smallest buffer as a power of two.
    const MIN_SHIFT: u32 = 14;

    /// The code, `None` above 15.
    pub const fn new(code: u8) -> Option<Self> {
        if code <= Self::MAX.0 {
            Some(Self(code))
        } else {
            None
        }
    }

    /// The code in the low four bits of a byte.
    pub const fn from_nibble(byte: u8) -> Self {
        Self(byte & 0x0f)
    }

    /// The smallest code whose buffer holds `len_bytes`; [`Self::MAX`] if none does.
    pub const fn from_len_ceil(len_bytes: usize) -> Self {
        let mut code = Self::MIN;
        while code.0 < Self::MAX.0 && (code.bytes() as usize) < len_bytes {
            code = Self(code.0.saturating_add(1));
        }
        code
    }

    /// The code as on the wire, 0 to 15.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Size of the buffer in bytes.
    pub const fn bytes(self) -> u32 {
        // The exponent is at most 29 by the range of the code.
        1u32.wrapping_shl(Self::MIN_SHIFT.saturating_add(self.0 as u32))
    }
}

/// Path MTU of a queue pair in the coding of InfiniBand.
///
/// RFC 7609, section A.2.3 (MTU): 1 to 5; 0 and 6 to 15 are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mtu {
    /// 256 bytes.
    Mtu256 = 1,
    /// 512 bytes.
    Mtu512 = 2,
    /// 1024 bytes.
    Mtu1024 = 3,
    /// 2048 bytes.
    Mtu2048 = 4,
    /// 4096 bytes.
    Mtu4096 = 5,
}

impl Mtu {
    /// The MTU of a code, `None` for the reserved ones.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Mtu256),
            2 => Some(Self::Mtu512),
            3 => Some(Self::Mtu1024),
            4 => Some(Self::Mtu2048),
            5 => Some(Self::Mtu4096),
            _ => None,
        }
    }

    /// The code on the wire, 1 to 5.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The MTU in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Mtu256 => 256,
            Self::Mtu512 => 512,
            Self::Mtu1024 => 1024,
            Self::Mtu2048 => 2048,
            Self::Mtu4096 => 4096,
        }
    }
}

/// Enterprise ID as it stands in a message: 32 bytes of which nothing is known yet.
///
/// EIDs of a peer are only ever compared with our own, so they need no validation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Eid(pub [u8; 32]);

/// User-defined enterprise ID of this host: a valid, blank-padded name.
///
/// SMC-Rv2: 1 to 32 characters out of `A-Z`, `0-9`, `.` and `-`, the first a letter or digit,
/// padded with blanks at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Ueid([u8; 32]);

impl Ueid {
    /// Length of the name with its padding, in bytes.
    pub const LEN: usize = 32;

    /// A valid ID, for places that are not used.
    pub const PLACEHOLDER: Self = {
        let mut padded = [b' '; 32];
        padded[0] = b'0';
        Self(padded)
    };

    /// Takes a blank-padded name as it is; `None` if it is not valid.
    pub fn new(padded: [u8; 32]) -> Option<Self> {
        let name = padded.trim_ascii_end();
        if padded.iter().skip(name.len()).all(|&b| b == b' ') && Self::is_name(name) {
            Some(Self(padded))
        } else {
            None
        }
    }

    /// Pads a name with blanks; `None` if it is empty, too long or has other characters.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        if name.len() > Self::LEN || !Self::is_name(name) {
            return None;
        }
        let mut padded = [b' '; 32];
        for (to, from) in padded.iter_mut().zip(name) {
            *to = *from;
        }
        Some(Self(padded))
    }

    /// The 32 bytes with padding.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name without padding.
    pub fn name(&self) -> &[u8] {
        self.0.trim_ascii_end()
    }

    /// The form on the wire.
    pub const fn to_eid(self) -> Eid {
        Eid(self.0)
    }

    /// A list of them in the form on the wire.
    pub fn as_eids(ueids: &[Self]) -> &[Eid] {
        // Both are 32 bytes, so the conversion cannot fail.
        <[Eid]>::ref_from_bytes(ueids.as_bytes()).unwrap_or(&[])
    }

    fn is_name(name: &[u8]) -> bool {
        let legal = |b: &u8| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-');
        let first = |b: &u8| matches!(b, b'A'..=b'Z' | b'0'..=b'9');
        name.first().is_some_and(first) && name.iter().all(legal)
    }
}

impl PartialEq<Eid> for Ueid {
    fn eq(&self, other: &Eid) -> bool {
        self.0 == other.0
    }
}

impl fmt::Display for Ueid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.name() {
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ueid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ueid({self})")
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_types))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    #[test]
    fn peer_id_is_instance_and_mac() {
        let id = PeerId::new(0x1234, Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(id.0, [0x12, 0x34, 1, 2, 3, 4, 5, 6]);
        assert_eq!(id.mac(), Mac([1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn gid_maps_ipv4() {
        let gid = Gid::from_ipv4([10, 0, 0, 1]);
        assert_eq!(gid.as_ipv4(), Some([10, 0, 0, 1]));
        assert_eq!(Gid([1; 16]).as_ipv4(), None);
        assert_eq!(Gid::ZERO.as_ipv4(), None);
    }

    #[test]
    fn twenty_four_bits() {
        assert_eq!(Qpn24::new(0x0100_0000), None);
        assert_eq!(Qpn24::from_low_bits(0xff12_3456).value(), 0x12_3456);
        assert_eq!(
            Psn24::from_be_bytes([1, 2, 3]),
            Psn24::from_low_bits(0x010203)
        );
        assert_eq!(Psn24::from_low_bits(0x010203).to_be_bytes(), [1, 2, 3]);
        for (qpn, usable) in [(0, false), (1, false), (2, true), (0xff_ffff, false)] {
            assert_eq!(Qpn24::from_low_bits(qpn).is_connectable(), usable);
        }
    }

    #[test]
    fn buffer_codes() {
        assert_eq!(BufSizeCode::MIN.bytes(), 16 << 10);
        assert_eq!(BufSizeCode::MAX.bytes(), 512 << 20);
        for (len, code) in [
            (0, 0),
            (16384, 0),
            (16385, 1),
            (65536, 2),
            (65537, 3),
            (1 << 29, 15),
            (usize::MAX, 15),
        ] {
            assert_eq!(BufSizeCode::from_len_ceil(len).code(), code, "{len}");
        }
        assert_eq!(BufSizeCode::new(16), None);
    }

    #[test]
    fn mtu_codes() {
        for code in 0..=255 {
            assert_eq!(Mtu::from_code(code).is_some(), (1..=5).contains(&code));
        }
        assert_eq!(Mtu::Mtu1024.bytes(), 1024);
        assert_eq!(Mtu::Mtu4096.code(), 5);
    }

    #[test]
    fn ueid_rules() {
        for good in [&b"A"[..], b"0.-", b"MY.EID-1", &[b'Z'; 32]] {
            let ueid = Ueid::from_name(good);
            assert!(ueid.is_some_and(|u| u.name() == good));
            assert_eq!(ueid.and_then(|u| Ueid::new(*u.as_bytes())), ueid);
        }
        for bad in [&b""[..], b".A", b"-A", b"a", b"A B", b"A_", &[b'Z'; 33]] {
            assert_eq!(Ueid::from_name(bad), None);
        }
        let mut tab = [b' '; 32];
        (tab[0], tab[1]) = (b'A', b'\t');
        assert_eq!(Ueid::new(tab), None);
        assert_eq!(Ueid::new([b' '; 32]), None);
    }

    #[test]
    fn ueids_as_eids() {
        assert!(Ueid::as_eids(&[]).is_empty());
        if let (Some(a), Some(b)) = (Ueid::from_name(b"A"), Ueid::from_name(b"B")) {
            assert_eq!(Ueid::as_eids(&[a, b]), [a.to_eid(), b.to_eid()]);
        }
    }
}
