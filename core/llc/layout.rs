// SPDX-License-Identifier: GPL-2.0

//! Layouts of the bodies of LLC messages: what follows the 4 bytes of the header, 40 bytes each.
//!
//! Field meanings stand beside the typed messages in [`super::wire`].

#![forbid(unsafe_code)]

use zerocopy::network_endian::{
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::smc_core::types::{
    Gid,
    Mac, //
};

/// Bytes of every body.
pub(super) const BODY_LEN: usize = 40;

/// RFC 7609, appendix A.3.1; `max_conns` is SMC-Rv2.1.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ConfirmLink {
    pub(super) mac: Mac,
    pub(super) gid: Gid,
    pub(super) qpn: [u8; 3],
    pub(super) link: u8,
    pub(super) user_id: U32,
    pub(super) max_links: u8,
    pub(super) max_conns: u8,
    pub(super) reserved: [u8; 8],
}

/// RFC 7609, appendix A.3.2, with two reserved bytes after the MAC address as every Linux peer
/// has them (Figure 32 has none, and two more at the end).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AddLink {
    pub(super) mac: Mac,
    pub(super) reserved2: [u8; 2],
    pub(super) gid: Gid,
    pub(super) qpn: [u8; 3],
    pub(super) link: u8,
    /// MTU in the low four bits.
    pub(super) mtu: u8,
    pub(super) psn: [u8; 3],
    pub(super) reserved: [u8; 8],
}

/// A pair of RFC 7609, appendix A.3.3.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RkeyPair {
    pub(super) rkey: U32,
    pub(super) rkey_new: U32,
    pub(super) vaddr_new: U64,
}

/// RFC 7609, appendix A.3.3.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AddLinkContinuation {
    pub(super) link: u8,
    pub(super) rtokens_left: u8,
    pub(super) reserved2: [u8; 2],
    pub(super) pairs: [RkeyPair; 2],
    pub(super) reserved: [u8; 4],
}

/// RFC 7609, appendix A.3.4.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeleteLink {
    pub(super) link: u8,
    pub(super) reason: U32,
    pub(super) reserved: [u8; 35],
}

/// SMC-Rv2: the client's request for another link, with its GIDs; only the first is in the body.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RequestAddLink {
    pub(super) reserved: [u8; 20],
    pub(super) gid_count: u8,
    pub(super) reserved2: [u8; 3],
    pub(super) gid: Gid,
}

/// RFC 7609, appendix A.3.5, Figure 37; in the first one `link` is a count.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LinkRToken {
    pub(super) link: u8,
    pub(super) rkey: U32,
    pub(super) vaddr: U64,
}

/// RFC 7609, appendix A.3.5 and A.3.6.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ConfirmRkey {
    pub(super) rtokens: [LinkRToken; 3],
    pub(super) reserved: u8,
}

/// RFC 7609, appendix A.3.7 (eight keys, `second` is an error mask), and SMC-Rv2 (nine keys,
/// `second` is the number of keys that were not found).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeleteRkey {
    pub(super) count: u8,
    pub(super) second: u8,
    pub(super) reserved: [u8; 2],
    pub(super) rkeys: [U32; 9],
}

/// RFC 7609, appendix A.3.8.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TestLink {
    pub(super) user_data: [u8; 16],
    pub(super) reserved: [u8; 24],
}

const _: () = {
    assert!(size_of::<ConfirmLink>() == BODY_LEN);
    assert!(size_of::<AddLink>() == BODY_LEN);
    assert!(size_of::<AddLinkContinuation>() == BODY_LEN);
    assert!(size_of::<DeleteLink>() == BODY_LEN);
    assert!(size_of::<RequestAddLink>() == BODY_LEN);
    assert!(size_of::<ConfirmRkey>() == BODY_LEN);
    assert!(size_of::<DeleteRkey>() == BODY_LEN);
    assert!(size_of::<TestLink>() == BODY_LEN);
};
