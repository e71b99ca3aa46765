// SPDX-License-Identifier: GPL-2.0

//! The Proposal message: what the client can do.
//!
//! ```text
//! fixed part (40) | growth area (0 or 40) | subnets (8 + 17n) | v2 area (40 + 32k)
//!                 | ISM v2 (48 + 10m) | trailer (4)
//! ```
//!
//! RFC 7609, section A.2.2 knows the fixed part and the subnets; the rest is SMC-Rv2. Areas follow
//! each other without gaps, in this order, and the length is their sum; a Proposal in which an
//! offset says otherwise is malformed.

#![forbid(unsafe_code)]

use zerocopy::{
    network_endian::U16,
    FromBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::smc_core::{
    error::{
        EmitError,
        Fault,
        MessageKind,
        WireError, //
    },
    types::{
        Eid,
        Gid,
        Mac,
        PeerId, //
    },
};

use super::{
    vendor::{
        RawVendor,
        VendorOptions, //
    },
    Emitter,
    Flavours,
    Release,
    Version,
    HEADER_LEN,
    TRAILER_LEN, //
};

/// Most IPv6 prefixes in a Proposal (RFC 7609, section A.2.2).
pub const MAX_IPV6_PREFIXES: usize = 8;

/// Most enterprise IDs in a Proposal (SMC-Rv2).
pub const MAX_EIDS: usize = 8;

/// Most ISM devices in a Proposal (SMC-Rv2).
const MAX_ISM_GIDS: usize = 8;

const FIXED_LEN: usize = size_of::<RawFixed>();
const GROWTH_LEN: usize = size_of::<RawGrowth>();
const SUBNETS_LEN: usize = size_of::<RawSubnets>();
const V2_LEN: usize = size_of::<RawV2>();

/// Shortest: SMC-Rv1 over IPv4 (52 bytes), and SMC-Rv2 has no shorter form. Longest: all areas, all
/// lists full.
pub(super) const LEN_BOUNDS: (u16, u16) = (52, super::MAX_MESSAGE_LEN as u16);

const _: () = {
    assert!(HEADER_LEN + FIXED_LEN == 40);
    assert!(HEADER_LEN + FIXED_LEN + SUBNETS_LEN + TRAILER_LEN == LEN_BOUNDS.0 as usize);
    assert!(GROWTH_LEN == 40 && V2_LEN == 40 && size_of::<RawIsmV2>() == 48);
    assert!(size_of::<Ipv6Prefix>() == 17);
    assert!(
        HEADER_LEN
            + FIXED_LEN
            + GROWTH_LEN
            + SUBNETS_LEN
            + size_of::<[Ipv6Prefix; MAX_IPV6_PREFIXES]>()
            + V2_LEN
            + size_of::<[Eid; MAX_EIDS]>()
            + size_of::<RawIsmV2>()
            + size_of::<[RawIsmGid; MAX_ISM_GIDS]>()
            + TRAILER_LEN
            == super::MAX_MESSAGE_LEN
    );
};

/// Bytes 8 to 39 (RFC 7609, section A.2.2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFixed {
    peer_id: PeerId,
    gid: Gid,
    mac: Mac,
    /// Bytes between the end of this field and the subnets.
    subnets_offset: U16,
}

/// Bytes 40 to 79, where RFC 7609, section A.2.2 has the "area for future growth" (SMC-Rv2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGrowth {
    ism_gid: [u8; 8],
    ism_chid: [u8; 2],
    /// Bytes between the end of this field (byte 52) and the version 2 area; zero if there is none.
    v2_offset: U16,
    vendor: RawVendor,
    reserved: [u8; 20],
}

/// RFC 7609, section A.2.2.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSubnets {
    subnet: [u8; 4],
    prefix_len: u8,
    reserved: [u8; 2],
    ipv6_count: u8,
}

/// Version 2 area (SMC-Rv2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawV2 {
    eid_count: u8,
    ism_gid_count: u8,
    reserved: u8,
    /// Release in the high four bits; whether a system EID is used in the lowest.
    release_seid: u8,
    reserved2: [u8; 2],
    /// Bytes between the end of this field and the ISM area.
    ism_offset: U16,
    gid: Gid,
    max_conns: u8,
    max_links: u8,
    features: U16,
    reserved3: [u8; 12],
}

/// Behind [`RawV2::ism_offset`], to the end of the version 2 area without its EIDs.
const V2_BEHIND_ISM_OFFSET: usize = 32;

/// ISM part of the version 2 area (SMC-Rv2); parsed, never used.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIsmV2 {
    system_eid: Eid,
    reserved: [u8; 16],
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIsmGid {
    gid: [u8; 8],
    chid: [u8; 2],
}

/// One IPv6 prefix of the network over which the client sent its Proposal.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Ipv6Prefix {
    /// The prefix; bits behind its length do not count.
    pub addr: [u8; 16],
    /// Number of significant bits. From a peer it can be any number.
    pub prefix_len: u8,
}

/// The IPv4 subnet of the client's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Subnet {
    /// The subnet number. RFC 7609, section A.2.2 calls the field a mask, section 3.5.1.2 a subnet
    /// number, which is what implementations send.
    pub subnet: [u8; 4],
    /// Number of significant bits; zero if the connection is not over IPv4. From a peer it can be
    /// any number.
    pub prefix_len: u8,
}

/// Where the client is attached, so that the server can tell whether it is on the same LAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subnets<'a> {
    /// For a connection over IPv4; zero otherwise.
    pub ipv4: Ipv4Subnet,
    /// For a connection over IPv6, at most [`MAX_IPV6_PREFIXES`]; empty otherwise.
    pub ipv6: &'a [Ipv6Prefix],
}

/// Offer of SMC-R version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V1Offer<'a> {
    /// RoCEv1 GID of the client's preferred port.
    pub gid: Gid,
    /// Where the client is attached.
    pub subnets: Subnets<'a>,
}

/// Offer of SMC-R version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2Offer<'a> {
    /// The release of version 2 that the client speaks.
    pub release: Release,
    /// RoCEv2 GID of the client's preferred port.
    pub gid: Gid,
    /// Most connections in a link group; meaningful from release 1 on.
    pub max_conns: u8,
    /// Most links in a link group; meaningful from release 1 on.
    pub max_links: u8,
    /// Bit mask of optional features, of which none concerns SMC-R.
    pub features: u16,
    /// What it could do with a host of our vendor.
    pub vendor: VendorOptions,
    /// The client's user-defined enterprise IDs, at most [`MAX_EIDS`].
    pub eids: &'a [Eid],
}

/// Which versions of SMC-D a Proposal offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IsmOffer {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
}

/// A Proposal. The lists are borrowed: from the received bytes, or from the caller who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Version 1 or 2. Version 2 can carry offers of both versions, version 1 only those of its
    /// own.
    pub version: Version,
    /// Who proposes.
    pub peer_id: PeerId,
    /// MAC address of the client's preferred RoCE port.
    pub mac: Mac,
    /// SMC-Rv1, if offered.
    pub v1: Option<V1Offer<'a>>,
    /// SMC-Rv2, if offered.
    pub v2: Option<V2Offer<'a>>,
    /// SMC-D, as far as offered. Only told, never sent: `emit` does not write SMC-D areas.
    pub ism: IsmOffer,
    /// Version 2 is announced but its area is missing. Only told, never sent.
    pub v2_missing: bool,
}

impl<'a> Proposal<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Any violation of the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, body) = super::open(bytes, MessageKind::Proposal)?;
        let version = header.version.min(Version::V2);
        let v1 = header.v1_flavours();
        // RFC 7609, section A.2.2: the bits are reserved in version 1.
        let v2 = if version >= Version::V2 {
            header.v2_flavours()
        } else {
            Flavours::NONE
        };
        // A version 1 message that offers nothing has no purpose, and no subnets to parse
        // (SMC-Rv2).
        if version == Version::V1 && !v1.any() {
            return Err(error(7, Fault::Field("flavours")));
        }

        let (fixed, rest) =
            RawFixed::read_from_prefix(body).map_err(|_| error(8, Fault::Length))?;
        // RFC 7609, section A.2.2: bytes to be skipped. SMC-Rv2: at most the 40 that are defined.
        // Without an offer of version 1 there are no subnets to find: Linux leaves the offset at zero then, and the
        // 40 bytes are there all the same.
        let growth_len = if version >= Version::V2 && !v1.any() {
            GROWTH_LEN
        } else {
            usize::from(fixed.subnets_offset.get())
        };
        if growth_len > GROWTH_LEN {
            return Err(error(38, Fault::Offset));
        }
        let (growth, rest) = rest
            .split_at_checked(growth_len)
            .ok_or(error(38, Fault::Offset))?;

        // SMC-Rv2: the subnets are left out if no flavour of version 1 is offered.
        let (subnets, rest) = if v1.any() {
            parse_subnets(rest)?
        } else {
            (Subnets::default(), rest)
        };

        // SMC-Rv2: the version 2 area is found by an offset that is in the growth area; zero if
        // there is none.
        let (v2_offset, vendor) = match RawGrowth::read_from_bytes(growth) {
            Ok(growth) if v2.any() => (usize::from(growth.v2_offset.get()), growth.vendor.into()),
            _ => (0, VendorOptions::NONE),
        };
        let (v2_offer, rest) = if v2_offset != 0 {
            // From byte 52 to the end of what has been read so far.
            let expected = body
                .len()
                .checked_sub(rest.len())
                .and_then(|at| at.checked_sub(52 - HEADER_LEN));
            if Some(v2_offset) != expected {
                return Err(error(50, Fault::Offset));
            }
            parse_v2(rest, v2, vendor)?
        } else {
            (None, rest)
        };

        // RFC 7609, section A.2.2: the trailer follows immediately.
        if !rest.is_empty() {
            return Err(error(5, Fault::Length));
        }
        Ok(Self {
            version,
            peer_id: fixed.peer_id,
            mac: fixed.mac,
            v1: v1.rdma.then_some(V1Offer {
                gid: fixed.gid,
                subnets,
            }),
            v2: v2_offer,
            ism: IsmOffer {
                v1: v1.ism,
                v2: v2.ism,
            },
            v2_missing: v2.any() && v2_offset == 0,
        })
    }

    /// Length of the message, in bytes; saturates for lists that are too long anyway.
    pub fn buffer_len(&self) -> usize {
        let growth = if self.version >= Version::V2 {
            GROWTH_LEN
        } else {
            0
        };
        let subnets = self.v1.map_or(0, |v1| {
            SUBNETS_LEN.saturating_add(size_of_val(v1.subnets.ipv6))
        });
        let v2 = self
            .v2
            .map_or(0, |v2| V2_LEN.saturating_add(size_of_val(v2.eids)));
        (HEADER_LEN + FIXED_LEN + TRAILER_LEN)
            .saturating_add(growth)
            .saturating_add(subnets)
            .saturating_add(v2)
    }

    /// Writes the message and returns its length in bytes.
    ///
    /// # Errors
    ///
    /// [`EmitError::TooMany`] for lists beyond the limits, [`EmitError::Inconsistent`] for version
    /// 1 without its offer or with one of version 2, [`EmitError::Space`] if `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, EmitError> {
        let is_v2 = self.version >= Version::V2;
        if !is_v2 && (self.v1.is_none() || self.v2.is_some()) {
            return Err(EmitError::Inconsistent);
        }
        let ipv6 = self.v1.map_or(&[][..], |v1| v1.subnets.ipv6);
        let ipv6_count = count(ipv6.len(), MAX_IPV6_PREFIXES)?;

        let offered = |rdma| Flavours { rdma, ism: false };
        // RFC 7609, section A.2.2: the bits of version 2 are reserved in version 1.
        let v2_flags = if is_v2 {
            offered(self.v2.is_some()).bits() << 2
        } else {
            0
        };
        let mut message = Emitter::start(
            out,
            self.buffer_len(),
            MessageKind::Proposal,
            self.version,
            offered(self.v1.is_some()).bits() | v2_flags,
        )?;

        message.put(&RawFixed {
            peer_id: self.peer_id,
            gid: self.v1.map_or(Gid::ZERO, |v1| v1.gid),
            mac: self.mac,
            subnets_offset: U16::new(if is_v2 { GROWTH_LEN as u16 } else { 0 }),
        })?;
        if is_v2 {
            let subnets_len = match self.v1 {
                Some(_) => SUBNETS_LEN.saturating_add(size_of_val(ipv6)),
                None => 0,
            };
            // From byte 52, see `parse`; the rest of the growth area counts.
            let offset = match self.v2 {
                Some(_) => subnets_len.saturating_add(HEADER_LEN + FIXED_LEN + GROWTH_LEN - 52),
                None => 0,
            };
            message.put(&RawGrowth {
                ism_gid: [0; 8],
                ism_chid: [0; 2],
                v2_offset: U16::new(u16::try_from(offset).map_err(|_| EmitError::TooMany)?),
                vendor: self.v2.map_or(VendorOptions::NONE, |v2| v2.vendor).into(),
                reserved: [0; 20],
            })?;
        }
        if let Some(v1) = &self.v1 {
            message.put(&RawSubnets {
                subnet: v1.subnets.ipv4.subnet,
                prefix_len: v1.subnets.ipv4.prefix_len,
                reserved: [0; 2],
                ipv6_count,
            })?;
            message.put(ipv6)?;
        }
        if let Some(v2) = &self.v2 {
            message.put(&RawV2 {
                eid_count: count(v2.eids.len(), MAX_EIDS)?,
                ism_gid_count: 0,
                reserved: 0,
                release_seid: v2.release.value() << 4,
                reserved2: [0; 2],
                ism_offset: U16::new(0),
                gid: v2.gid,
                max_conns: v2.max_conns,
                max_links: v2.max_links,
                features: U16::new(v2.features),
                reserved3: [0; 12],
            })?;
            message.put(v2.eids)?;
        }
        message.finish()
    }
}

fn parse_subnets(bytes: &[u8]) -> Result<(Subnets<'_>, &[u8]), WireError> {
    let (raw, rest) = RawSubnets::ref_from_prefix(bytes).map_err(|_| error(38, Fault::Length))?;
    // RFC 7609, section A.2.2: at most eight.
    let count = usize::from(raw.ipv6_count);
    if count > MAX_IPV6_PREFIXES {
        return Err(error(38, Fault::Count));
    }
    let (ipv6, rest) = <[Ipv6Prefix]>::ref_from_prefix_with_elems(rest, count)
        .map_err(|_| error(38, Fault::Length))?;
    let ipv4 = Ipv4Subnet {
        subnet: raw.subnet,
        prefix_len: raw.prefix_len,
    };
    Ok((Subnets { ipv4, ipv6 }, rest))
}

/// Reads the version 2 area; `None` if it is about SMC-D only.
fn parse_v2(
    bytes: &[u8],
    flavours: Flavours,
    vendor: VendorOptions,
) -> Result<(Option<V2Offer<'_>>, &[u8]), WireError> {
    let (raw, rest) = RawV2::ref_from_prefix(bytes).map_err(|_| error(50, Fault::Length))?;
    // SMC-Rv2: at most eight EIDs and ISM devices.
    let eid_count = usize::from(raw.eid_count);
    let ism_gid_count = usize::from(raw.ism_gid_count);
    if eid_count > MAX_EIDS || ism_gid_count > MAX_ISM_GIDS {
        return Err(error(50, Fault::Count));
    }
    let (eids, rest) = <[Eid]>::ref_from_prefix_with_elems(rest, eid_count)
        .map_err(|_| error(50, Fault::Length))?;

    // SMC-Rv2: the ISM area follows the EIDs, if SMC-Dv2 is offered.
    let rest = if flavours.ism {
        let expected = V2_BEHIND_ISM_OFFSET.saturating_add(size_of_val(eids));
        if usize::from(raw.ism_offset.get()) != expected {
            return Err(error(50, Fault::Offset));
        }
        let (_, rest) = RawIsmV2::ref_from_prefix(rest).map_err(|_| error(50, Fault::Length))?;
        let (_, rest) = <[RawIsmGid]>::ref_from_prefix_with_elems(rest, ism_gid_count)
            .map_err(|_| error(50, Fault::Length))?;
        rest
    } else {
        rest
    };
    let offer = V2Offer {
        release: Release::from_nibble(raw.release_seid >> 4),
        gid: raw.gid,
        max_conns: raw.max_conns,
        max_links: raw.max_links,
        features: raw.features.get(),
        vendor,
        eids,
    };
    Ok((flavours.rdma.then_some(offer), rest))
}

fn count(len: usize, max: usize) -> Result<u8, EmitError> {
    match u8::try_from(len) {
        Ok(count) if len <= max => Ok(count),
        _ => Err(EmitError::TooMany),
    }
}

/// Offsets in areas that move name the field that says where the area is.
const fn error(offset: u16, fault: Fault) -> WireError {
    WireError::new(MessageKind::Proposal, offset, fault)
}
