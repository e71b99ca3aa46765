// SPDX-License-Identifier: GPL-2.0

//! Vendor options (SMC-Rv2.1): what two hosts of the same vendor may do beside SMC-R, once both have said so.
//!
//! The Proposal carries the vendor's OUI and what the client can do. The server answers in the first contact extension of its
//! Accept with what is to be done, and the client repeats that in its Confirm. There is no OUI in these: a server
//! that does not know the Proposal's says zero, as all do that know no options.

#![forbid(unsafe_code)]

use zerocopy::network_endian::U32;
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// Ours: `RSM`, locally administered (IEEE 802c: the quadrant of administratively assigned identifiers), since nobody
/// has assigned one to us.
pub const OUI: [u8; 3] = *b"RSM";

/// Options, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct VendorOptions(u32);

impl VendorOptions {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// An RDMA WRITE WITH IMMEDIATE in place of RDMA WRITE and CDC message; see `rx_tx::immediate`.
    pub const IMMEDIATE: Self = Self(1 << 30);

    /// There are options; without it the other bits mean nothing.
    const VALID: u32 = 1 << 31;

    /// What the field of a message says.
    pub const fn from_wire(bits: u32) -> Self {
        if bits & Self::VALID == 0 {
            return Self::NONE;
        }
        Self(bits & !Self::VALID)
    }

    /// The field of a message; zero for no options.
    pub const fn to_wire(self) -> u32 {
        match self.0 & !Self::VALID {
            0 => 0,
            bits => bits | Self::VALID,
        }
    }

    /// Those that `other` has, too.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are among them.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Bytes 52 to 59 of the Proposal.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawVendor {
    oui: [u8; 3],
    reserved: u8,
    options: U32,
}

impl From<VendorOptions> for RawVendor {
    fn from(options: VendorOptions) -> Self {
        let bits = options.to_wire();
        Self {
            // Who has nothing to offer is no vendor: the message of any other SMC-Rv2.1 host.
            oui: if bits == 0 { [0; 3] } else { OUI },
            reserved: 0,
            options: U32::new(bits),
        }
    }
}

impl From<RawVendor> for VendorOptions {
    fn from(raw: RawVendor) -> Self {
        if raw.oui != OUI {
            return Self::NONE;
        }
        Self::from_wire(raw.options.get())
    }
}
