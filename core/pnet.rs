// SPDX-License-Identifier: GPL-2.0

//! PNETIDs: names of physical networks, by which an administrator says which RDMA port belongs to which
//! network device.

#![forbid(unsafe_code)]

/// Name of a physical network: 1 to 16 characters out of `A-Z` and `0-9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PnetId {
    name: [u8; Self::MAX],
    len: usize,
}

impl PnetId {
    /// Most characters.
    pub const MAX: usize = 16;

    /// Reads a name, which may have blanks behind it, in any case; `None` if it is not valid.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii_end();
        if text.is_empty() || text.len() > Self::MAX || !text.iter().all(u8::is_ascii_alphanumeric)
        {
            return None;
        }
        let mut name = [0; Self::MAX];
        for (to, from) in name.iter_mut().zip(text) {
            *to = from.to_ascii_uppercase();
        }
        Some(Self {
            name,
            len: text.len(),
        })
    }

    /// The name, with zeroes behind it if it is shorter.
    pub const fn padded(&self) -> [u8; Self::MAX] {
        self.name
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or(&[])
    }
}

/// Name of a device, of at most `N` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Name<N> {
    /// Takes a name as it is; `None` if it is empty or too long.
    pub fn new(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > N {
            return None;
        }
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = *from;
        }
        Some(Self {
            bytes,
            len: name.len(),
        })
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// What a network is reached by. It need not exist yet, or any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A network device (`IFNAMSIZ` - 1).
    Ethernet(Name<15>),
    /// A port of an RDMA device (`IB_DEVICE_NAME_MAX` - 1), from 1.
    Rdma(Name<63>, u8),
}

/// Last port of an RDMA device that can be named (`SMC_MAX_PORTS`).
pub const LAST_PORT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_networks_are_letters_and_digits() {
        for (text, name) in [
            (&b"net1"[..], &b"NET1"[..]),
            (b"NET1   ", b"NET1"),
            (b"0123456789abcdef", b"0123456789ABCDEF"),
        ] {
            assert_eq!(
                PnetId::parse(text).as_ref().map(PnetId::as_bytes),
                Some(name)
            );
        }
        for bad in [
            &b""[..],
            b"   ",
            b" A",
            b"A B",
            b"A-B",
            b"0123456789abcdefg",
            b"\xff",
            b"A\0B",
        ] {
            assert_eq!(PnetId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_of_devices_are_taken_as_they_are() {
        assert!(Name::<15>::new(b"").is_none());
        assert!(Name::<15>::new(&[b'x'; 16]).is_none());
        let name = Name::<15>::new(b"eth0.1");
        assert_eq!(name.as_ref().map(Name::as_bytes), Some(&b"eth0.1"[..]));
        assert_ne!(name, Name::new(b"eth0"));
    }
}
