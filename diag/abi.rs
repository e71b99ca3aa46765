// SPDX-License-Identifier: GPL-2.0

//! What `sock_diag` says about SMC sockets, as `linux/smc_diag.h` lays it out for user space: in the
//! byte order of the machine, but for addresses and ports.

#![forbid(unsafe_code)]

use core::fmt::{
    self,
    Write, //
};
use zerocopy_derive::{
    Immutable,
    IntoBytes, //
};

use crate::rx_tx::cursor::Cursor as Position;

/// The family that is asked for, and the type of all messages (`SOCK_DIAG_BY_FAMILY`).
pub const MESSAGE: u16 = 20;
/// Bytes of a `struct smc_diag_req` that matter: the family, two of padding, [`Extensions`]. What it
/// has of addresses is ignored, as in C.
pub const REQUEST_LEN: usize = 4;

/// `SMC_DIAG_CONNINFO`.
pub const CONNINFO: u16 = 1;
/// `SMC_DIAG_LGRINFO`.
pub const LGRINFO: u16 = 2;
/// `SMC_DIAG_SHUTDOWN`: one byte, always there.
pub const SHUTDOWN: u16 = 3;
/// `SMC_DIAG_FALLBACK`: always there.
pub const FALLBACK: u16 = 5;

/// `SMC_DIAG_MODE_SMCR`; also of a socket without a connection.
pub const MODE_SMCR: u8 = 0;
/// `SMC_DIAG_MODE_FALLBACK_TCP`.
pub const MODE_FALLBACK_TCP: u8 = 1;

/// `IB_DEVICE_NAME_MAX`.
const NAME_LEN: usize = 64;
/// A GID as text, and its terminating zero.
const GID_LEN: usize = 40;

/// What a request wants beside what is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(u8);

impl Extensions {
    /// Those of a request.
    pub fn of(request: &[u8]) -> Self {
        Self(request.get(3).copied().unwrap_or(0))
    }

    /// Whether attribute `kind` is wanted.
    pub fn want(self, kind: u16) -> bool {
        let bit = u32::from(kind).checked_sub(1).unwrap_or(u32::MAX);
        1u8.checked_shl(bit).is_some_and(|bit| self.0 & bit != 0)
    }
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct SockId {
    /// Own port, most significant byte first.
    pub sport: [u8; 2],
    /// The peer's port.
    pub dport: [u8; 2],
    /// Own address: of IPv4 the first four bytes, and zeroes.
    pub src: [u8; 16],
    /// The peer's address.
    pub dst: [u8; 16],
    /// Index of the device that the socket is bound to.
    pub ifindex: u32,
    /// Identifies the socket.
    pub cookie: [u32; 2],
}

/// `struct smc_diag_msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Message {
    /// `AF_SMC`, `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// See [`crate::smc_core::state::State`].
    pub state: u8,
    /// [`MODE_SMCR`] or [`MODE_FALLBACK_TCP`].
    pub mode: u8,
    /// 0: the attribute tells.
    pub shutdown: u8,
    /// Addresses.
    pub id: SockId,
    /// Owner.
    pub uid: u32,
    /// Inode number of the socket.
    pub inode: u64,
}

const _: () = assert!(size_of::<Message>() == 64);

/// `struct smc_diag_fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Fallback {
    /// Why we fell back; 0 if we did not.
    pub reason: u32,
    /// Why the peer declined; 0 if it did not.
    pub peer_diagnosis: u32,
}

/// `struct smc_diag_cursor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Cursor {
    reserved: u16,
    wrap: u16,
    count: u32,
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self {
            reserved: 0,
            wrap: position.wrap,
            count: position.count,
        }
    }
}

/// `struct smc_diag_conninfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct ConnInfo {
    /// Our alert token.
    pub token: u32,
    /// Bytes of our send buffer.
    pub sndbuf_size: u32,
    /// Bytes of our RMB element.
    pub rmbe_size: u32,
    /// Bytes of the peer's.
    pub peer_rmbe_size: u32,
    /// Where the peer will write next, in our element.
    pub rx_prod: Cursor,
    /// Where the peer will read next, in its own.
    pub rx_cons: Cursor,
    /// Where we shall write next, in the peer's element.
    pub tx_prod: Cursor,
    /// Where we shall read next, in our own.
    pub tx_cons: Cursor,
    /// The peer's last producer flags.
    pub rx_prod_flags: u8,
    /// What the peer has said about the connection.
    pub rx_conn_state_flags: u8,
    /// Our last producer flags.
    pub tx_prod_flags: u8,
    /// What we have said about the connection.
    pub tx_conn_state_flags: u8,
    /// In our send buffer: behind what the application has written.
    pub tx_prep: Cursor,
    /// Behind what was sent.
    pub tx_sent: Cursor,
    /// Behind what is certainly with the peer.
    pub tx_fin: Cursor,
}

const _: () = assert!(size_of::<ConnInfo>() == 76);

/// `struct smc_diag_lgrinfo`, with its one `struct smc_diag_linkinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct LgrInfo {
    /// Number of the link in its group.
    pub link_id: u8,
    ibname: [u8; NAME_LEN],
    /// Port of the RDMA device.
    pub ibport: u8,
    gid: [u8; GID_LEN],
    peer_gid: [u8; GID_LEN],
    /// 0 client, 1 server.
    pub role: u8,
}

const _: () = assert!(size_of::<LgrInfo>() == 147);

impl LgrInfo {
    /// The link `link_id` on a port of the device `name`, between two GIDs.
    pub fn new(
        link_id: u8,
        name: &[u8],
        ibport: u8,
        gid: &dyn fmt::Display,
        peer_gid: &dyn fmt::Display,
        server: bool,
    ) -> Self {
        let mut ibname = [0; NAME_LEN];
        // The last byte stays zero.
        for (to, from) in ibname.iter_mut().take(NAME_LEN - 1).zip(name) {
            *to = *from;
        }
        Self {
            link_id,
            ibname,
            ibport,
            gid: text(gid),
            peer_gid: text(peer_gid),
            role: u8::from(server),
        }
    }
}

/// A value as text with a terminating zero; what is too long is cut off.
fn text(value: &dyn fmt::Display) -> [u8; GID_LEN] {
    struct Text {
        bytes: [u8; GID_LEN],
        len: usize,
    }

    impl Write for Text {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = self.bytes.iter_mut().take(GID_LEN - 1).skip(self.len);
            let mut n = 0usize;
            for (to, from) in room.zip(part.bytes()) {
                *to = from;
                n = n.saturating_add(1);
            }
            self.len = self.len.saturating_add(n);
            Ok(())
        }
    }

    let mut text = Text {
        bytes: [0; GID_LEN],
        len: 0,
    };
    let _ = write!(text, "{value}");
    text.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smc_core::types::Gid;
    use zerocopy::IntoBytes;

    #[test]
    fn a_message_is_laid_out_as_smcss_reads_it() {
        let message = Message {
            family: 43,
            state: 10,
            mode: 1,
            shutdown: 0,
            id: SockId {
                sport: [0x12, 0x34],
                dport: [0x56, 0x78],
                src: [1; 16],
                dst: [2; 16],
                ifindex: 0x0304_0506,
                cookie: [7, 8],
            },
            uid: 0x0a0b_0c0d,
            inode: 0x1122_3344_5566_7788,
        };
        let bytes = message.as_bytes();
        assert_eq!(bytes[..8], [43, 10, 1, 0, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(bytes[8..24], [1; 16]);
        assert_eq!(bytes[24..40], [2; 16]);
        assert_eq!(bytes[40..44], 0x0304_0506u32.to_ne_bytes());
        assert_eq!(bytes[44..48], 7u32.to_ne_bytes());
        assert_eq!(bytes[48..52], 8u32.to_ne_bytes());
        assert_eq!(bytes[52..56], 0x0a0b_0c0du32.to_ne_bytes());
        assert_eq!(bytes[56..], 0x1122_3344_5566_7788u64.to_ne_bytes());
    }

    #[test]
    fn connection_info_is_laid_out_as_smcss_reads_it() {
        let at = |wrap, count| Cursor::from(Position { wrap, count });
        let info = ConnInfo {
            token: 1,
            sndbuf_size: 2,
            rmbe_size: 3,
            peer_rmbe_size: 4,
            rx_prod: at(5, 6),
            rx_cons: at(7, 8),
            tx_prod: at(9, 10),
            tx_cons: at(11, 12),
            rx_prod_flags: 13,
            rx_conn_state_flags: 14,
            tx_prod_flags: 15,
            tx_conn_state_flags: 16,
            tx_prep: at(17, 18),
            tx_sent: at(19, 20),
            tx_fin: at(21, 22),
        };
        let bytes = info.as_bytes();
        for (at, value) in [
            (0, 1u32),
            (4, 2),
            (8, 3),
            (12, 4),
            (20, 6),
            (28, 8),
            (36, 10),
            (44, 12),
        ] {
            assert_eq!(bytes[at..at + 4], value.to_ne_bytes(), "at {at}");
        }
        for (at, wrap) in [
            (16, 5u16),
            (24, 7),
            (32, 9),
            (40, 11),
            (52, 17),
            (60, 19),
            (68, 21),
        ] {
            assert_eq!(bytes[at..at + 2], [0, 0], "at {at}");
            assert_eq!(bytes[at + 2..at + 4], wrap.to_ne_bytes(), "at {at}");
        }
        assert_eq!(bytes[48..52], [13, 14, 15, 16]);
        assert_eq!(bytes[56..60], 18u32.to_ne_bytes());
        assert_eq!(bytes[72..76], 22u32.to_ne_bytes());
    }

    #[test]
    fn names_and_gids_are_text() {
        let gid = Gid::from_ipv4([10, 9, 0, 1]);
        let info = LgrInfo::new(1, b"rxeA", 2, &gid, &Gid::ZERO, true);
        let bytes = info.as_bytes();
        assert_eq!(bytes[..6], *b"\x01rxeA\0");
        assert_eq!(bytes[65], 2);
        assert_eq!(
            bytes[66..106],
            *b"0000:0000:0000:0000:0000:ffff:0a09:0001\0"
        );
        assert_eq!(bytes[106..110], *b"0000");
        assert_eq!(bytes[146], 1);
        let long = LgrInfo::new(1, &[b'x'; 100], 1, &"y".repeat(100), &"", false);
        let bytes = long.as_bytes();
        assert_eq!(bytes[63..66], *b"x\0\x01");
        assert_eq!(bytes[104..107], *b"y\0\0");
    }

    #[test]
    fn an_extension_is_asked_for_by_its_bit() {
        let both = Extensions::of(&[43, 0, 0, 3]);
        assert!(both.want(CONNINFO) && both.want(LGRINFO));
        assert!(!both.want(SHUTDOWN) && !both.want(0) && !both.want(100));
        assert!(!Extensions::of(&[43]).want(CONNINFO));
    }
}
