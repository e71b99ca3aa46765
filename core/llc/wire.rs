// SPDX-License-Identifier: GPL-2.0

//! LLC messages and bytes: [`LlcMessage::parse`] and [`LlcMessage::emit`].
//!
//! Every message is 44 bytes: a header of 4 and a body of 40 (RFC 7609, appendix A.3). In
//! SMC-Rv2 the high nibble of the type is 2, and two of the messages may go on behind the 44
//! bytes; those parts are not used here.

#![forbid(unsafe_code)]

use zerocopy::network_endian::{
    U32,
    U64, //
};
use zerocopy::FromBytes;

use super::layout::{
    self,
    BODY_LEN, //
};
pub use super::message::*;
use crate::smc_core::error::{
    Fault,
    MessageKind,
    WireError, //
};
use crate::smc_core::types::{
    Gid,
    LinkNumber,
    LinkUserId,
    Mtu,
    Psn24,
    Qpn24,
    RKey, //
};

/// Length of every LLC message (RFC 7609, appendix A.3).
pub const LLC_LEN: usize = 44;

const HEADER_LEN: usize = 4;
/// The longest SMC-Rv2 message.
const V2_MAX_LEN: u16 = 8192;

/// Flags byte: the message answers a request (R).
const RESPONSE: u8 = 0x80;
const CONFIRM_LINK_NO_EYECATCHER: u8 = 0x03;
const ADD_LINK_REJECTED: u8 = 0x40;
const DELETE_LINK_ALL: u8 = 0x40;
const DELETE_LINK_ORDERLY: u8 = 0x20;
const RKEY_NEGATIVE: u8 = 0x20;
const RKEY_RETRY: u8 = 0x10;

/// Type of a message, version 1 numbering (RFC 7609, appendix A.3).
mod kind {
    pub(super) const CONFIRM_LINK: u8 = 0x01;
    pub(super) const ADD_LINK: u8 = 0x02;
    pub(super) const ADD_LINK_CONTINUATION: u8 = 0x03;
    pub(super) const DELETE_LINK: u8 = 0x04;
    pub(super) const REQUEST_ADD_LINK: u8 = 0x05;
    pub(super) const CONFIRM_RKEY: u8 = 0x06;
    pub(super) const TEST_LINK: u8 = 0x07;
    pub(super) const CONFIRM_RKEY_CONTINUATION: u8 = 0x08;
    pub(super) const DELETE_RKEY: u8 = 0x09;
    /// SMC-Rv2: the same numbers with this nibble.
    pub(super) const V2: u8 = 0x20;
}

fn malformed(offset: u16, fault: Fault) -> WireError {
    WireError::new(MessageKind::Llc, offset, fault)
}

impl LlcMessage {
    /// Reads a message from the start of a receive slot of which `bytes` arrived.
    ///
    /// [`Fault::Type`] is a protocol violation (RFC 7609, appendix A.3: "the peer must support
    /// the LLC message and indicate a protocol error if it does not"); other errors are
    /// messages to drop.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let Ok((header, rest)) = <[u8; HEADER_LEN]>::read_from_prefix(bytes) else {
            return Err(malformed(0, Fault::Truncated));
        };
        let Ok((body, _)) = <[u8; BODY_LEN]>::read_from_prefix(rest) else {
            return Err(malformed(HEADER_LEN as u16, Fault::Truncated));
        };
        let [kind, len1, len2, flags] = header;
        let (version, kind) = match kind & 0xf0 {
            0 => (LlcVersion::V1, kind),
            kind::V2 => (LlcVersion::V2, kind & 0x0f),
            _ if kind & 0xc0 == 0x80 => (LlcVersion::V1, kind),
            _ => return Err(malformed(0, Fault::Type)),
        };
        match version {
            LlcVersion::V1 if kind & 0x80 != 0 => {}
            LlcVersion::V1 if usize::from(len1) != LLC_LEN => {
                return Err(malformed(1, Fault::Length));
            }
            LlcVersion::V1 => {}
            // SMC-Rv2: Linux sends the length in the order of its host. Either will do.
            LlcVersion::V2 => {
                let legal = |n| (LLC_LEN as u16..=V2_MAX_LEN).contains(&n);
                if !legal(u16::from_be_bytes([len1, len2]))
                    && !legal(u16::from_le_bytes([len1, len2]))
                {
                    return Err(malformed(1, Fault::Length));
                }
            }
        }
        let reason = match version {
            LlcVersion::V1 => AddLinkReject(len2 & 0x0f),
            // Where version 1 has the reason there is now the length.
            LlcVersion::V2 => AddLinkReject::NONE,
        };
        Ok(Self {
            version,
            response: flags & RESPONSE != 0,
            body: LlcBody::parse(version, kind, flags, reason, body)?,
        })
    }

    /// The message as it travels.
    pub fn emit(&self) -> [u8; LLC_LEN] {
        let (kind, flags, reason, body) = self.body.emit();
        let flags = if self.response {
            flags | RESPONSE
        } else {
            flags
        };
        // SMC-Rv2: the length as little-endian Linux sends it, which is also the length of
        // version 1 followed by what is there the reason.
        let (kind, reason) = match (self.version, self.body) {
            (_, LlcBody::Optional(kind)) => (kind, 0),
            (LlcVersion::V1, _) => (kind, reason.0 & 0x0f),
            (LlcVersion::V2, _) => (kind | kind::V2, 0),
        };
        let header = [kind, LLC_LEN as u8, reason, flags];
        zerocopy::transmute!(Frame { header, body })
    }
}

/// Bytes behind the 44 of an SMC-Rv2 ADD LINK, before its keys: what the peer is reached by, the GID that
/// is offered a link to, and the number of keys.
const ADD_LINK_EXT: usize = 28;

/// Most keys in an SMC-Rv2 ADD LINK: those of all RMBs of a group.
pub const MAX_ADD_LINK_KEYS: usize = 255;

/// The longest SMC-Rv2 ADD LINK.
pub const ADD_LINK_MAX: usize =
    LLC_LEN + ADD_LINK_EXT + MAX_ADD_LINK_KEYS * size_of::<layout::RkeyPair>();

/// Makes an SMC-Rv2 ADD LINK of its first 44 bytes: adds the keys of RMBs on the link there is, and on the
/// new one. What is in `out` then; `None` if it is too short. More keys than a group can have are left out.
pub fn extend_add_link<'a>(
    out: &'a mut [u8],
    head: &[u8; LLC_LEN],
    target: Gid,
    keys: impl Iterator<Item = (RKey, RToken)>,
) -> Option<&'a [u8]> {
    out.get_mut(..LLC_LEN)?.copy_from_slice(head);
    let ext = out.get_mut(LLC_LEN..LLC_LEN + ADD_LINK_EXT)?;
    ext.fill(0);
    // Reached without a gateway.
    *ext.first_mut()? = 0x80;
    ext.get_mut(2..18)?.copy_from_slice(&target.0);
    let mut count = 0u16;
    let mut len = LLC_LEN + ADD_LINK_EXT;
    for (rkey, new) in keys.take(MAX_ADD_LINK_KEYS) {
        let pair: [u8; size_of::<layout::RkeyPair>()] = zerocopy::transmute!(layout::RkeyPair {
            rkey: U32::new(rkey.0),
            rkey_new: U32::new(new.rkey.0),
            vaddr_new: U64::new(new.vaddr),
        });
        let end = len.saturating_add(pair.len());
        out.get_mut(len..end)?.copy_from_slice(&pair);
        (count, len) = (count.saturating_add(1), end);
    }
    // Both as little-endian Linux sends them.
    let at = LLC_LEN + ADD_LINK_EXT;
    out.get_mut(at - 2..at)?
        .copy_from_slice(&count.to_le_bytes());
    out.get_mut(1..3)?
        .copy_from_slice(&(len as u16).to_le_bytes());
    out.get(..len)
}

/// Whether this is the beginning of an SMC-Rv2 ADD LINK, which is longer.
pub const fn is_long_add_link(head: &[u8; LLC_LEN]) -> bool {
    head[0] == kind::V2 | kind::ADD_LINK
}

/// Whether a message ends the group, or answers one that does (RFC 7609, section 4.6).
pub fn ends_group(message: &[u8; LLC_LEN]) -> bool {
    let parsed = LlcMessage::parse(message).map(|msg| msg.body);
    matches!(
        parsed,
        Ok(LlcBody::DeleteLink(DeleteLink { all: true, .. }))
    )
}

/// The keys in what follows the 44 bytes of an SMC-Rv2 ADD LINK. Their number is in the order of the
/// sender's host, so that it is their length that counts.
pub fn add_link_keys(tail: &[u8]) -> impl Iterator<Item = (RKey, RToken)> + '_ {
    const PAIR: usize = size_of::<layout::RkeyPair>();
    let keys = tail.get(ADD_LINK_EXT..).unwrap_or(&[]);
    keys.chunks_exact(PAIR)
        .take(MAX_ADD_LINK_KEYS)
        .filter_map(|bytes| {
            let (pair, _) = layout::RkeyPair::read_from_prefix(bytes).ok()?;
            let new = RToken {
                rkey: RKey(pair.rkey_new.get()),
                vaddr: pair.vaddr_new.get(),
            };
            Some((RKey(pair.rkey.get()), new))
        })
}

/// Header and body in one piece.
#[derive(zerocopy_derive::IntoBytes)]
#[repr(C)]
struct Frame {
    header: [u8; HEADER_LEN],
    body: [u8; BODY_LEN],
}

impl LlcBody {
    /// Reads the body of a message of the (version 1) type `kind`.
    fn parse(
        version: LlcVersion,
        kind: u8,
        flags: u8,
        reason: AddLinkReject,
        body: [u8; BODY_LEN],
    ) -> Result<Self, WireError> {
        let v1 = version == LlcVersion::V1;
        Ok(match kind {
            kind::CONFIRM_LINK => {
                let wire: layout::ConfirmLink = zerocopy::transmute!(body);
                Self::ConfirmLink(ConfirmLink {
                    mac: wire.mac,
                    gid: wire.gid,
                    qpn: Qpn24::from_be_bytes(wire.qpn),
                    link: LinkNumber(wire.link),
                    user_id: LinkUserId(wire.user_id.get()),
                    max_links: wire.max_links,
                    max_conns: wire.max_conns,
                    no_eyecatcher: flags & CONFIRM_LINK_NO_EYECATCHER != 0,
                })
            }
            kind::ADD_LINK => {
                let wire: layout::AddLink = zerocopy::transmute!(body);
                Self::AddLink(AddLink {
                    mac: wire.mac,
                    gid: wire.gid,
                    qpn: Qpn24::from_be_bytes(wire.qpn),
                    link: LinkNumber(wire.link),
                    mtu: Mtu::from_code(wire.mtu & 0x0f),
                    psn: Psn24::from_be_bytes(wire.psn),
                    rejected: (flags & ADD_LINK_REJECTED != 0).then_some(reason),
                })
            }
            kind::ADD_LINK_CONTINUATION if v1 => {
                let wire: layout::AddLinkContinuation = zerocopy::transmute!(body);
                Self::AddLinkContinuation(AddLinkContinuation {
                    link: LinkNumber(wire.link),
                    rtokens_left: wire.rtokens_left,
                    pairs: wire.pairs.map(|pair| {
                        let rtoken = RToken {
                            rkey: RKey(pair.rkey_new.get()),
                            vaddr: pair.vaddr_new.get(),
                        };
                        (RKey(pair.rkey.get()), rtoken)
                    }),
                })
            }
            kind::DELETE_LINK => {
                let wire: layout::DeleteLink = zerocopy::transmute!(body);
                Self::DeleteLink(DeleteLink {
                    link: LinkNumber(wire.link),
                    all: flags & DELETE_LINK_ALL != 0,
                    orderly: flags & DELETE_LINK_ORDERLY != 0,
                    reason: DeleteReason(wire.reason.get()),
                })
            }
            kind::REQUEST_ADD_LINK if !v1 => {
                let wire: layout::RequestAddLink = zerocopy::transmute!(body);
                Self::RequestAddLink {
                    gid_count: wire.gid_count,
                    gid: wire.gid,
                }
            }
            kind::CONFIRM_RKEY => Self::ConfirmRkey(ConfirmRkey::parse(flags, body)),
            kind::CONFIRM_RKEY_CONTINUATION if v1 => {
                Self::ConfirmRkeyContinuation(ConfirmRkey::parse(flags, body))
            }
            kind::TEST_LINK => {
                let wire: layout::TestLink = zerocopy::transmute!(body);
                Self::TestLink {
                    user_data: wire.user_data,
                }
            }
            kind::DELETE_RKEY => Self::DeleteRkey(DeleteRkey::parse(version, flags, body)?),
            _ if kind & 0xc0 == 0x80 => Self::Optional(kind),
            _ => return Err(malformed(0, Fault::Type)),
        })
    }

    /// Type, flags, reason of rejection, and body.
    fn emit(&self) -> (u8, u8, AddLinkReject, [u8; BODY_LEN]) {
        let none = AddLinkReject::NONE;
        match self {
            Self::ConfirmLink(msg) => {
                let body = zerocopy::transmute!(layout::ConfirmLink {
                    mac: msg.mac,
                    gid: msg.gid,
                    qpn: msg.qpn.to_be_bytes(),
                    link: msg.link.0,
                    user_id: U32::new(msg.user_id.0),
                    max_links: msg.max_links,
                    max_conns: msg.max_conns,
                    reserved: [0; 8],
                });
                let flags = flag(msg.no_eyecatcher, CONFIRM_LINK_NO_EYECATCHER);
                (kind::CONFIRM_LINK, flags, none, body)
            }
            Self::AddLink(msg) => {
                let body = zerocopy::transmute!(layout::AddLink {
                    mac: msg.mac,
                    reserved2: [0; 2],
                    gid: msg.gid,
                    qpn: msg.qpn.to_be_bytes(),
                    link: msg.link.0,
                    mtu: msg.mtu.map_or(0, Mtu::code),
                    psn: msg.psn.to_be_bytes(),
                    reserved: [0; 8],
                });
                let flags = flag(msg.rejected.is_some(), ADD_LINK_REJECTED);
                (kind::ADD_LINK, flags, msg.rejected.unwrap_or(none), body)
            }
            Self::AddLinkContinuation(msg) => {
                let body = zerocopy::transmute!(layout::AddLinkContinuation {
                    link: msg.link.0,
                    rtokens_left: msg.rtokens_left,
                    reserved2: [0; 2],
                    pairs: msg.pairs.map(|(rkey, new)| layout::RkeyPair {
                        rkey: U32::new(rkey.0),
                        rkey_new: U32::new(new.rkey.0),
                        vaddr_new: U64::new(new.vaddr),
                    }),
                    reserved: [0; 4],
                });
                (kind::ADD_LINK_CONTINUATION, 0, none, body)
            }
            Self::DeleteLink(msg) => {
                let body = zerocopy::transmute!(layout::DeleteLink {
                    link: msg.link.0,
                    reason: U32::new(msg.reason.0),
                    reserved: [0; 35],
                });
                let flags = flag(msg.all, DELETE_LINK_ALL) | flag(msg.orderly, DELETE_LINK_ORDERLY);
                (kind::DELETE_LINK, flags, none, body)
            }
            Self::RequestAddLink { gid_count, gid } => {
                let body = zerocopy::transmute!(layout::RequestAddLink {
                    reserved: [0; 20],
                    gid_count: *gid_count,
                    reserved2: [0; 3],
                    gid: *gid,
                });
                (kind::REQUEST_ADD_LINK, 0, none, body)
            }
            Self::ConfirmRkey(msg) => (kind::CONFIRM_RKEY, msg.flags(), none, msg.emit()),
            Self::ConfirmRkeyContinuation(msg) => {
                let kind = kind::CONFIRM_RKEY_CONTINUATION;
                (kind, msg.flags(), none, msg.emit())
            }
            Self::TestLink { user_data } => {
                let body = zerocopy::transmute!(layout::TestLink {
                    user_data: *user_data,
                    reserved: [0; 24],
                });
                (kind::TEST_LINK, 0, none, body)
            }
            Self::DeleteRkey(msg) => {
                let flags = flag(msg.negative, RKEY_NEGATIVE);
                (kind::DELETE_RKEY, flags, none, msg.emit())
            }
            Self::Optional(kind) => (*kind, 0, none, [0; BODY_LEN]),
        }
    }
}

const fn flag(on: bool, flag: u8) -> u8 {
    if on {
        flag
    } else {
        0
    }
}

impl ConfirmRkey {
    fn parse(flags: u8, body: [u8; BODY_LEN]) -> Self {
        let wire: layout::ConfirmRkey = zerocopy::transmute!(body);
        let rtoken = |t: &layout::LinkRToken| RToken {
            rkey: RKey(t.rkey.get()),
            vaddr: t.vaddr.get(),
        };
        let [this, other1, other2] = &wire.rtokens;
        Self {
            other_links: this.link,
            rtoken: rtoken(this),
            others: [other1, other2].map(|t| (LinkNumber(t.link), rtoken(t))),
            negative: flags & RKEY_NEGATIVE != 0,
            retry: flags & RKEY_RETRY != 0,
        }
    }

    fn flags(&self) -> u8 {
        flag(self.negative, RKEY_NEGATIVE) | flag(self.retry, RKEY_RETRY)
    }

    fn emit(&self) -> [u8; BODY_LEN] {
        let rtoken = |link: u8, t: &RToken| layout::LinkRToken {
            link,
            rkey: U32::new(t.rkey.0),
            vaddr: U64::new(t.vaddr),
        };
        let [(link1, other1), (link2, other2)] = &self.others;
        zerocopy::transmute!(layout::ConfirmRkey {
            rtokens: [
                rtoken(self.other_links, &self.rtoken),
                rtoken(link1.0, other1),
                rtoken(link2.0, other2),
            ],
            reserved: 0,
        })
    }
}

impl DeleteRkey {
    fn parse(version: LlcVersion, flags: u8, body: [u8; BODY_LEN]) -> Result<Self, WireError> {
        let wire: layout::DeleteRkey = zerocopy::transmute!(body);
        let max = match version {
            LlcVersion::V1 => Self::MAX_V1,
            LlcVersion::V2 => Self::MAX_V2,
        };
        if wire.count > max {
            return Err(malformed(HEADER_LEN as u16, Fault::Count));
        }
        Ok(Self {
            count: wire.count,
            error: wire.second,
            rkeys: wire.rkeys.map(|rkey| RKey(rkey.get())),
            negative: flags & RKEY_NEGATIVE != 0,
        })
    }

    fn emit(&self) -> [u8; BODY_LEN] {
        zerocopy::transmute!(layout::DeleteRkey {
            count: self.count,
            second: self.error,
            reserved: [0; 2],
            rkeys: self.rkeys.map(|rkey| U32::new(rkey.0)),
        })
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_llc_wire))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;
    use crate::smc_core::types::Mac;

    fn message(version: LlcVersion, response: bool, body: LlcBody) -> LlcMessage {
        LlcMessage {
            version,
            response,
            body,
        }
    }

    fn confirm_link() -> LlcBody {
        LlcBody::ConfirmLink(ConfirmLink {
            mac: Mac([1, 2, 3, 4, 5, 6]),
            gid: Gid([7; 16]),
            qpn: Qpn24::from_low_bits(0x0a_0b0c),
            link: LinkNumber(1),
            user_id: LinkUserId(0x1122_3344),
            max_links: 2,
            max_conns: 255,
            no_eyecatcher: true,
        })
    }

    #[test]
    fn confirm_link_is_laid_out_as_in_figure_31() {
        let bytes = message(LlcVersion::V1, true, confirm_link()).emit();
        assert_eq!(bytes[..10], [1, 44, 0, 0x83, 1, 2, 3, 4, 5, 6]);
        assert_eq!(bytes[10..26], [7; 16]);
        assert_eq!(bytes[26..34], [0x0a, 0x0b, 0x0c, 1, 0x11, 0x22, 0x33, 0x44]);
        assert_eq!(bytes[34..], [2, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_ends_a_group() {
        for response in [false, true] {
            for all in [false, true] {
                let body = LlcBody::DeleteLink(DeleteLink {
                    link: LinkNumber(0),
                    all,
                    orderly: true,
                    reason: DeleteReason::PROGRAM,
                });
                let bytes = message(LlcVersion::V2, response, body).emit();
                assert_eq!(ends_group(&bytes), all);
            }
        }
        assert!(!ends_group(
            &message(LlcVersion::V1, false, confirm_link()).emit()
        ));
        assert!(!ends_group(&[0xff; LLC_LEN]));
    }

    #[test]
    fn lengths_of_version_2_are_taken_in_both_orders() {
        let msg = message(LlcVersion::V2, false, confirm_link());
        let mut bytes = msg.emit();
        assert_eq!(bytes[..4], [0x21, 44, 0, 3]);
        assert_eq!(LlcMessage::parse(&bytes), Ok(msg));
        (bytes[1], bytes[2]) = (0, 44);
        assert_eq!(LlcMessage::parse(&bytes), Ok(msg));
        (bytes[1], bytes[2]) = (43, 0);
        let error = LlcMessage::parse(&bytes).unwrap_err();
        assert_eq!(error.fault, Fault::Length);
    }

    #[test]
    fn types_that_are_not_known() {
        let fault = |kind: u8| {
            let mut bytes = [0u8; LLC_LEN];
            (bytes[0], bytes[1]) = (kind, 44);
            LlcMessage::parse(&bytes).map_err(|e| e.fault)
        };
        // Version 1 has no REQUEST ADD LINK, version 2 no continuations.
        for kind in [0, 5, 0x0a, 0x1f, 0x23, 0x28, 0x2f, 0x31, 0x47, 0xc0, 0xfe] {
            assert_eq!(fault(kind), Err(Fault::Type), "{kind:x}");
        }
        for kind in [0x80, 0x9f, 0xbf] {
            let body = fault(kind).unwrap().body;
            assert_eq!(body, LlcBody::Optional(kind));
        }
    }

    #[test]
    fn too_short_or_too_many() {
        let bytes = message(LlcVersion::V1, false, confirm_link()).emit();
        for len in 0..LLC_LEN {
            let error = LlcMessage::parse(&bytes[..len]).unwrap_err();
            assert_eq!(error.fault, Fault::Truncated);
        }
        let mut rkeys = DeleteRkey::one(RKey(1));
        rkeys.count = 9;
        let bytes = message(LlcVersion::V1, false, LlcBody::DeleteRkey(rkeys)).emit();
        assert!(LlcMessage::parse(&bytes).is_err());
        let bytes = message(LlcVersion::V2, false, LlcBody::DeleteRkey(rkeys)).emit();
        assert!(LlcMessage::parse(&bytes).is_ok());
    }

    #[test]
    fn keys_of_a_new_link_follow_the_offer() {
        let head = message(LlcVersion::V2, false, confirm_link()).emit();
        let token = |n: u32| RToken {
            rkey: RKey(n),
            vaddr: u64::from(n) << 32,
        };
        let keys = |n| (0..n).map(|n| (RKey(n), token(n + 1000)));
        let mut room = [0xff; ADD_LINK_MAX];
        let bytes = extend_add_link(&mut room, &head, Gid([5; 16]), keys(2)).unwrap();
        assert_eq!((bytes.len(), &bytes[1..3]), (104, &[104, 0][..]));
        assert_eq!(
            bytes[44..72],
            [&[0x80, 0][..], &[5; 16], &[0; 8], &[2, 0]].concat()
        );
        assert_eq!(bytes[72..80], [0, 0, 0, 0, 0, 0, 0x03, 0xe8]);
        assert!(LlcMessage::parse(bytes).is_ok());
        assert!(add_link_keys(&bytes[44..]).eq(keys(2)));
        // A piece of one does not count; no keys, and none of the rest.
        assert_eq!(add_link_keys(&bytes[44..bytes.len() - 1]).count(), 1);
        for len in 44..72 {
            assert_eq!(add_link_keys(&bytes[44..len]).count(), 0);
        }
        let bytes = extend_add_link(&mut room, &head, Gid([5; 16]), keys(999)).unwrap();
        assert_eq!(bytes.len(), ADD_LINK_MAX);
        assert_eq!(add_link_keys(&bytes[44..]).count(), 255);
        assert!(extend_add_link(&mut room[..80], &head, Gid([5; 16]), keys(1)).is_none());
    }

    #[test]
    fn a_rejection_says_why_in_version_1_only() {
        let body = LlcBody::AddLink(AddLink {
            mac: Mac([0; 6]),
            gid: Gid([0; 16]),
            qpn: Qpn24::from_low_bits(5),
            link: LinkNumber(2),
            mtu: Some(Mtu::Mtu1024),
            psn: Psn24::from_low_bits(9),
            rejected: Some(AddLinkReject::NO_ALTERNATE_PATH),
        });
        let bytes = message(LlcVersion::V1, true, body).emit();
        assert_eq!(bytes[..4], [2, 44, 1, 0xc0]);
        let bytes = message(LlcVersion::V2, true, body).emit();
        assert_eq!(bytes[..4], [0x22, 44, 0, 0xc0]);
    }
}
