// SPDX-License-Identifier: GPL-2.0

//! The first contact extension of Accept and Confirm in version 2.

#![forbid(unsafe_code)]

use zerocopy::{
    network_endian::{
        U16,
        U32, //
    },
    FromBytes, //
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

use super::{
    Emitter,
    Release,
    VendorOptions, //
};

/// First contact extension: what the two sides of a new link group tell each other (SMC-Rv2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstContact {
    /// The sender reaches the other side without a gateway.
    pub direct: bool,
    /// What the sender runs on.
    pub os: OsType,
    /// The negotiated release of version 2.
    pub release: Release,
    /// Name of the sender's host, blank-padded. From a peer it can be any bytes.
    pub hostname: [u8; 32],
    /// Negotiated number of connections in the link group; meaningful from release 1 on.
    pub max_conns: u8,
    /// Negotiated number of links in the link group; meaningful from release 1 on.
    pub max_links: u8,
    /// Bit mask of optional features, of which none concerns SMC-R.
    pub features: u16,
    /// What two hosts of the same vendor do.
    pub vendor: VendorOptions,
}

impl FirstContact {
    /// Bytes in a message, in the form that is sent.
    pub(super) const LEN: usize = size_of::<RawFirstContact>() + size_of::<RawLimits>();

    /// Reads the extension from the start of `bytes`; the rest follows.
    pub(super) fn parse(bytes: &[u8], kind: MessageKind) -> Result<(Self, &[u8]), WireError> {
        let error = |offset, fault| WireError::new(kind, offset, fault);
        let (raw, rest) =
            RawFirstContact::ref_from_prefix(bytes).map_err(|_| error(104, Fault::Length))?;
        let release = Release::from_nibble(raw.os_release);
        // SMC-Rv2: release 0 was defined without limits. Linux always sends them; be lenient where
        // it cannot be misread, which is an Accept that ends here.
        let short = kind == MessageKind::Accept && release == Release::R0 && rest.is_empty();
        let (limits, rest) = if short {
            (RawLimits::default(), rest)
        } else {
            RawLimits::read_from_prefix(rest).map_err(|_| error(140, Fault::Length))?
        };
        let first_contact = Self {
            direct: raw.direct & 0x80 != 0,
            os: OsType::from_nibble(raw.os_release >> 4),
            release,
            hostname: raw.hostname,
            max_conns: limits.max_conns,
            max_links: limits.max_links,
            features: limits.features.get(),
            vendor: VendorOptions::from_wire(limits.vendor_options.get()),
        };
        Ok((first_contact, rest))
    }

    pub(super) fn emit(&self, message: &mut Emitter<'_>) -> Result<(), EmitError> {
        message.put(&RawFirstContact {
            direct: if self.direct { 0x80 } else { 0 },
            os_release: self.os.to_high_nibble() | self.release.value(),
            reserved: [0; 2],
            hostname: self.hostname,
        })?;
        message.put(&RawLimits {
            max_conns: self.max_conns,
            max_links: self.max_links,
            features: U16::new(self.features),
            vendor_options: U32::new(self.vendor.to_wire()),
            reserved: [0; 8],
        })
    }
}

/// Operating system of a peer, a 4 bit field (SMC-Rv2). For the user to see only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsType(u8);

impl OsType {
    /// z/OS.
    pub const ZOS: Self = Self(1);
    /// Linux.
    pub const LINUX: Self = Self(2);
    /// AIX.
    pub const AIX: Self = Self(3);

    /// The low four bits of a byte.
    pub const fn from_nibble(byte: u8) -> Self {
        Self(byte & 0x0f)
    }

    /// The code, 0 to 15.
    pub const fn value(self) -> u8 {
        self.0
    }

    pub(super) const fn to_high_nibble(self) -> u8 {
        self.0 << 4
    }
}

/// First contact extension of version 2 (SMC-Rv2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFirstContact {
    /// Whether the peer is reached without a gateway, in the highest bit.
    direct: u8,
    /// Operating system in the high four bits, release in the low ones.
    os_release: u8,
    reserved: [u8; 2],
    hostname: [u8; 32],
}

/// What release 1 adds to the first contact extension (SMC-Rv2).
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLimits {
    max_conns: u8,
    max_links: u8,
    features: U16,
    vendor_options: U32,
    reserved: [u8; 8],
}
