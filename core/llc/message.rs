// SPDX-License-Identifier: GPL-2.0

//! LLC messages, typed (RFC 7609, appendix A.3).

#![forbid(unsafe_code)]

use crate::smc_core::types::{
    Gid,
    LinkNumber,
    LinkUserId,
    Mac,
    Mtu,
    Psn24,
    Qpn24,
    RKey, //
};

/// Version of the messages on a link group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LlcVersion {
    /// RFC 7609.
    V1,
    /// SMC-Rv2.
    V2,
}

/// An LLC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlcMessage {
    /// Version of the type and of the header.
    pub version: LlcVersion,
    /// Whether it answers a request.
    pub response: bool,
    /// The rest.
    pub body: LlcBody,
}

/// What an LLC message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlcBody {
    /// A new link is to be used.
    ConfirmLink(ConfirmLink),
    /// Another link is offered.
    AddLink(AddLink),
    /// Keys for the offered link.
    AddLinkContinuation(AddLinkContinuation),
    /// A link, or all of them, end.
    DeleteLink(DeleteLink),
    /// The client asks for another link (SMC-Rv2).
    RequestAddLink {
        /// GIDs in the request.
        gid_count: u8,
        /// The first of them.
        gid: Gid,
    },
    /// There is a new RMB.
    ConfirmRkey(ConfirmRkey),
    /// More tokens of a new RMB. Only groups of more than three links need it.
    ConfirmRkeyContinuation(ConfirmRkey),
    /// Is the link alive?
    TestLink {
        /// Echoed in the response.
        user_data: [u8; 16],
    },
    /// RMBs are gone.
    DeleteRkey(DeleteRkey),
    /// A type that a peer may use and we may ignore: RFC 7609, appendix A.3, types with the
    /// high bits 10.
    Optional(u8),
}

/// CONFIRM LINK (RFC 7609, appendix A.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmLink {
    /// MAC address of the sender's port.
    pub mac: Mac,
    /// GID of the sender's port.
    pub gid: Gid,
    /// The sender's queue pair.
    pub qpn: Qpn24,
    /// Number of the link, chosen by the server and echoed by the client.
    pub link: LinkNumber,
    /// The sender's name for the link.
    pub user_id: LinkUserId,
    /// Links in a group that the sender supports.
    pub max_links: u8,
    /// SMC-Rv2.1: connections in a group that the sender supports; 0 = not said.
    pub max_conns: u8,
    /// The sender puts no eye catcher into RMBs. All Linux peers say so; the header has no
    /// such flag in RFC 7609.
    pub no_eyecatcher: bool,
}

/// ADD LINK (RFC 7609, appendix A.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddLink {
    /// MAC address of the sender's port.
    pub mac: Mac,
    /// GID of the sender's port.
    pub gid: Gid,
    /// The sender's queue pair.
    pub qpn: Qpn24,
    /// Number of the new link.
    pub link: LinkNumber,
    /// MTU, `None` for a reserved code.
    pub mtu: Option<Mtu>,
    /// First packet sequence number of the sender.
    pub psn: Psn24,
    /// The offer is rejected; the reason is only said in version 1.
    pub rejected: Option<AddLinkReject>,
}

/// Why an ADD LINK is rejected (RFC 7609, appendix A.3.2, RsnCode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddLinkReject(pub u8);

impl AddLinkReject {
    /// Not said.
    pub const NONE: Self = Self(0);
    /// No alternate path available.
    pub const NO_ALTERNATE_PATH: Self = Self(1);
    /// Invalid MTU value.
    pub const INVALID_MTU: Self = Self(2);
}

/// ADD LINK CONTINUATION (RFC 7609, appendix A.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddLinkContinuation {
    /// Number of the new link.
    pub link: LinkNumber,
    /// Tokens that are left, with those in this message.
    pub rtokens_left: u8,
    /// Key of an RMB on this link, and key and address on the new one.
    pub pairs: [(RKey, RToken); 2],
}

/// DELETE LINK (RFC 7609, appendix A.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteLink {
    /// Number of the link; 0 if all end.
    pub link: LinkNumber,
    /// All links end, and with them the group.
    pub all: bool,
    /// Not because of an error.
    pub orderly: bool,
    /// Why.
    pub reason: DeleteReason,
}

/// Reason code of DELETE LINK (RFC 7609, appendix A.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteReason(pub u32);

impl DeleteReason {
    /// Lost path.
    pub const LOST_PATH: Self = Self(0x0001_0000);
    /// Operator initiated termination.
    pub const OPERATOR: Self = Self(0x0002_0000);
    /// Program initiated termination (inactivity).
    pub const PROGRAM: Self = Self(0x0003_0000);
    /// LLC protocol violation.
    pub const PROTOCOL_VIOLATION: Self = Self(0x0004_0000);
    /// Asymmetric link no longer needed.
    pub const NO_ASYMMETRIC_NEEDED: Self = Self(0x0005_0000);
    /// In a response: unknown link.
    pub const UNKNOWN_LINK: Self = Self(0x0010_0000);
    /// In a response: unknown link group (Linux).
    pub const UNKNOWN_GROUP: Self = Self(0x0020_0000);
}

/// Key and address of a peer's RMB on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RToken {
    /// Remote key.
    pub rkey: RKey,
    /// Virtual address.
    pub vaddr: u64,
}

/// CONFIRM RKEY (RFC 7609, appendix A.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmRkey {
    /// Number of other links in the group that have a token as well. In a continuation: the
    /// number of tokens that are left.
    pub other_links: u8,
    /// The RMB on the link that the message travels on.
    pub rtoken: RToken,
    /// The RMB on other links.
    pub others: [(LinkNumber, RToken); 2],
    /// Response: the peer could not take it.
    pub negative: bool,
    /// Negative response: try again when the configuration of the group has settled.
    pub retry: bool,
}

/// DELETE RKEY (RFC 7609, appendix A.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRkey {
    /// Keys in use, at most [`DeleteRkey::MAX_V1`] or [`DeleteRkey::MAX_V2`].
    pub count: u8,
    /// Response: version 1, a mask of the keys that were not found, first key in the highest
    /// bit; SMC-Rv2, their number.
    pub error: u8,
    /// The keys.
    pub rkeys: [RKey; 9],
    /// Response: some keys were not found.
    pub negative: bool,
}

impl DeleteRkey {
    /// Keys in a version 1 message.
    pub const MAX_V1: u8 = 8;
    /// Keys in the 44 bytes of an SMC-Rv2 message.
    pub const MAX_V2: u8 = 9;

    /// A request about one key.
    pub const fn one(rkey: RKey) -> Self {
        let none = RKey(0);
        Self {
            count: 1,
            error: 0,
            rkeys: [rkey, none, none, none, none, none, none, none, none],
            negative: false,
        }
    }

    /// The keys in use.
    pub fn iter(&self) -> impl Iterator<Item = RKey> + '_ {
        self.rkeys.iter().copied().take(usize::from(self.count))
    }
}
