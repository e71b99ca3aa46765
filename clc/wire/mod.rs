// SPDX-License-Identifier: GPL-2.0

//! CLC messages on the wire (RFC 7609, section A.2; version 2: SMC-Rv2).
//!
//! Each message is one type with `parse` and `emit`. What `parse` returns has been validated: every
//! count, offset and length holds, so its users need not check again. A message that violates the
//! format is a [`WireError`]; a value that is merely not acceptable to us is the business of
//! `negotiate`.
//!
//! Reserved fields are sent as zero and not looked at (RFC 7609, section A.2).
//!
//! None of these functions can panic, whatever the bytes are.

#![forbid(unsafe_code)]

mod accept_confirm;
mod decline;
mod first_contact;
mod proposal;
mod vendor;

pub use self::{
    accept_confirm::{
        Accept,
        AcceptBody,
        Confirm,
        ConfirmBody,
        ConfirmFirstContact,
        RdmaEndpoint,
        MAX_GIDS, //
    },
    decline::Decline,
    first_contact::{
        FirstContact,
        OsType, //
    },
    proposal::{
        Ipv4Subnet,
        Ipv6Prefix,
        IsmOffer,
        Proposal,
        Subnets,
        V1Offer,
        V2Offer,
        MAX_EIDS,
        MAX_IPV6_PREFIXES, //
    },
    vendor::{
        VendorOptions,
        OUI, //
    },
};

use zerocopy::{
    network_endian::U16,
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

use crate::smc_core::error::{
    EmitError,
    Fault,
    MessageKind,
    WireError, //
};

/// `SMCR` in EBCDIC: start and end of each message (RFC 7609, section A.2).
pub const EYE_CATCHER_SMCR: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];

/// `SMCD` in EBCDIC: the eye catcher of SMC-D, valid in a version 2 message too (SMC-Rv2).
pub const EYE_CATCHER_SMCD: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xc4];

/// Bytes of the header, which is the same for all messages.
pub const HEADER_LEN: usize = 8;

/// Bytes of the eye catcher at the end of each message.
const TRAILER_LEN: usize = 4;

/// The longest message, in bytes: a buffer of this size holds any message that [`Header::peek`]
/// accepts.
pub const MAX_MESSAGE_LEN: usize = 652;

/// Whether the first bytes of a TCP stream can be the start of a CLC message; any number of bytes.
///
/// A server whose client does not speak SMC after all finds application data here.
pub fn starts_like_clc(bytes: &[u8]) -> bool {
    let matches = |eye: &[u8; 4]| bytes.iter().zip(eye).all(|(a, b)| a == b);
    matches(&EYE_CATCHER_SMCR) || matches(&EYE_CATCHER_SMCD)
}

/// Version of the SMC protocol in a CLC header, a 4 bit field.
///
/// RFC 7609, section A.2: with peers of different versions the lower one is used, so versions above
/// 2 read as version 2 where a message only says what its sender can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Version(pub u8);

impl Version {
    /// RFC 7609.
    pub const V1: Self = Self(1);
    /// SMC-Rv2.
    pub const V2: Self = Self(2);
}

/// Release of version 2, a 4 bit field: release 1 is "SMC-Rv2.1".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release(u8);

impl Release {
    /// SMC-Rv2 as first defined.
    pub const R0: Self = Self(0);
    /// SMC-Rv2.1: the limits of a link group are negotiated.
    pub const R1: Self = Self(1);

    /// The low four bits of a byte.
    pub const fn from_nibble(byte: u8) -> Self {
        Self(byte & 0x0f)
    }

    /// The release, 0 to 15.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// Type of a CLC message (RFC 7609, sections A.2.2 to A.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ClcType(pub u8);

impl ClcType {
    /// From the client: what it can do.
    pub const PROPOSAL: Self = Self(1);
    /// From the server: what it chose, and its side of the connection.
    pub const ACCEPT: Self = Self(2);
    /// From the client: its side of the connection.
    pub const CONFIRM: Self = Self(3);
    /// From either: no SMC on this connection.
    pub const DECLINE: Self = Self(4);

    /// The message that this type announces, `None` for an unknown type.
    pub const fn kind(self) -> Option<MessageKind> {
        match self {
            Self::PROPOSAL => Some(MessageKind::Proposal),
            Self::ACCEPT => Some(MessageKind::Accept),
            Self::CONFIRM => Some(MessageKind::Confirm),
            Self::DECLINE => Some(MessageKind::Decline),
            _ => None,
        }
    }
}

/// Flavours of SMC in a two bit field: all four values are defined (SMC-Rv2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flavours {
    /// SMC-R, over RDMA.
    pub rdma: bool,
    /// SMC-D, over internal shared memory.
    pub ism: bool,
}

impl Flavours {
    const NONE: Self = Self {
        rdma: false,
        ism: false,
    };

    const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self {
                rdma: true,
                ism: false,
            },
            1 => Self {
                rdma: false,
                ism: true,
            },
            2 => Self {
                rdma: false,
                ism: false,
            },
            _ => Self {
                rdma: true,
                ism: true,
            },
        }
    }

    const fn bits(self) -> u8 {
        match (self.rdma, self.ism) {
            (true, false) => 0,
            (false, true) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }

    const fn any(self) -> bool {
        self.rdma || self.ism
    }
}

/// The checked header of a CLC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which message follows; one of those known.
    pub kind: MessageKind,
    /// Length of the whole message, in bytes; within the bounds of its type, at most
    /// [`MAX_MESSAGE_LEN`].
    pub length: u16,
    /// Version of the message; not zero.
    pub version: Version,
    /// The low four bits of byte 7, whose meaning depends on the type.
    flags: u8,
}

/// Layout of the header: RFC 7609, section A.2.2 and others.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    eye_catcher: [u8; 4],
    kind: u8,
    length: U16,
    /// Version in the high four bits, flags in the low ones.
    version_flags: u8,
}

/// In Accept and Confirm: first contact; in Decline: out of sync (RFC 7609, sections A.2.3 and
/// A.2.5: the bit behind the version).
const FLAG_F_OR_S: u8 = 0b1000;

impl Header {
    /// Reads the first 8 bytes, to learn how long the message is.
    ///
    /// # Errors
    ///
    /// [`Fault::EyeCatcher`] tells that the stream does not carry CLC messages; with all other
    /// faults the peer speaks CLC but wrongly.
    pub fn peek(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let header = |offset, fault| WireError::new(MessageKind::ClcHeader, offset, fault);
        let raw = RawHeader::read_from_bytes(bytes).map_err(|_| header(0, Fault::Truncated))?;

        // RFC 7609, section A.2: eye catchers must be validated.
        if !is_eye_catcher(&raw.eye_catcher) {
            return Err(header(0, Fault::EyeCatcher));
        }
        let kind = ClcType(raw.kind).kind().ok_or(header(4, Fault::Type))?;
        // RFC 7609, section A.2: the lowest version is 1.
        let version = Version(raw.version_flags >> 4);
        if version < Version::V1 {
            return Err(WireError::new(kind, 7, Fault::Version));
        }
        // No message is shorter or longer than its parts allow. The lower bounds of Accept and
        // Confirm are those of SMC-D, so that such a message can be told from a broken one.
        let (min, max) = match kind {
            MessageKind::Proposal => proposal::LEN_BOUNDS,
            MessageKind::Accept => accept_confirm::ACCEPT_LEN_BOUNDS,
            MessageKind::Confirm => accept_confirm::CONFIRM_LEN_BOUNDS,
            _ => decline::LEN_BOUNDS,
        };
        let length = raw.length.get();
        if length < min || length > max {
            return Err(WireError::new(kind, 5, Fault::Length));
        }
        Ok(Self {
            kind,
            length,
            version,
            flags: raw.version_flags & 0x0f,
        })
    }

    /// First contact flag of Accept and Confirm, out of sync flag of Decline.
    const fn f_or_s(&self) -> bool {
        self.flags & FLAG_F_OR_S != 0
    }

    /// Flavours offered for version 1, or the one chosen.
    const fn v1_flavours(&self) -> Flavours {
        Flavours::from_bits(self.flags)
    }

    /// Flavours offered for version 2, in a Proposal.
    const fn v2_flavours(&self) -> Flavours {
        Flavours::from_bits(self.flags >> 2)
    }

    fn emit(&self, out: &mut [u8]) -> Option<()> {
        let kind = match self.kind {
            MessageKind::Proposal => ClcType::PROPOSAL,
            MessageKind::Accept => ClcType::ACCEPT,
            MessageKind::Confirm => ClcType::CONFIRM,
            _ => ClcType::DECLINE,
        };
        let raw = RawHeader {
            eye_catcher: EYE_CATCHER_SMCR,
            kind: kind.0,
            length: U16::new(self.length),
            version_flags: (self.version.0 << 4) | self.flags,
        };
        raw.write_to_prefix(out).ok()
    }
}

fn is_eye_catcher(bytes: &[u8]) -> bool {
    bytes == EYE_CATCHER_SMCR || bytes == EYE_CATCHER_SMCD
}

/// Takes one message apart: its header and the bytes between header and trailer.
///
/// `bytes` must be exactly one message. The body has `length - 12` bytes, and the position of a
/// field in the message is its position in the body plus 8.
fn open(bytes: &[u8], kind: MessageKind) -> Result<(Header, &[u8]), WireError> {
    let (head, rest) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(WireError::new(kind, 0, Fault::Truncated))?;
    let header = Header::peek(head)?;
    if header.kind != kind {
        return Err(WireError::new(header.kind, 4, Fault::Type));
    }
    if usize::from(header.length) != bytes.len() {
        return Err(WireError::new(kind, 5, Fault::Truncated));
    }
    let (body, trailer) = rest
        .split_last_chunk::<TRAILER_LEN>()
        .ok_or(WireError::new(kind, 5, Fault::Length))?;
    // RFC 7609, section A.2: the eye catcher at the end must be validated too.
    if !is_eye_catcher(trailer) {
        return Err(WireError::new(
            kind,
            header.length.saturating_sub(4),
            Fault::Trailer,
        ));
    }
    Ok((header, body))
}

/// Writes a message part by part into the buffer of the caller.
struct Emitter<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Emitter<'a> {
    /// Starts a message of `length` bytes whose header is `header`.
    fn start(
        out: &'a mut [u8],
        length: usize,
        kind: MessageKind,
        version: Version,
        flags: u8,
    ) -> Result<Self, EmitError> {
        let out = out
            .get_mut(..length)
            .ok_or(EmitError::Space { needed: length })?;
        let header = Header {
            kind,
            length: u16::try_from(length).map_err(|_| EmitError::TooMany)?,
            version,
            flags,
        };
        header.emit(out).ok_or(EmitError::Inconsistent)?;
        Ok(Self {
            out,
            at: HEADER_LEN,
        })
    }

    /// Appends one part.
    fn put<T: IntoBytes + zerocopy::Immutable + ?Sized>(
        &mut self,
        part: &T,
    ) -> Result<(), EmitError> {
        let to = self.out.get_mut(self.at..).ok_or(EmitError::Inconsistent)?;
        part.write_to_prefix(to)
            .map_err(|_| EmitError::Inconsistent)?;
        self.at = self.at.saturating_add(size_of_val(part));
        Ok(())
    }

    /// Appends the trailer and returns the length of the message, in bytes.
    fn finish(mut self) -> Result<usize, EmitError> {
        self.put(&EYE_CATCHER_SMCR)?;
        if self.at == self.out.len() {
            Ok(self.at)
        } else {
            Err(EmitError::Inconsistent)
        }
    }
}
