// SPDX-License-Identifier: GPL-2.0

//! The Connection Data Control message: 44 bytes that move the cursors and the flags of one
//! connection (RFC 7609, appendix A.4).

#![forbid(unsafe_code)]

use zerocopy::network_endian::{
    U16,
    U32, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use super::cursor::{
    Cursor,
    WireCursor, //
};
use crate::smc_core::error::{
    Fault,
    MessageKind,
    WireError, //
};
use crate::smc_core::types::AlertToken;

/// First byte of every CDC message; its two high bits tell it from LLC (RFC 7609, appendix A.3).
pub const CDC_TYPE: u8 = 0xfe;

/// Length of every CDC message (RFC 7609, appendix A.4).
pub const CDC_LEN: usize = 44;

/// The layout of Figure 41 of RFC 7609.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    kind: u8,
    length: u8,
    seqno: U16,
    token: U32,
    prod: WireCursor,
    cons: WireCursor,
    prod_flags: u8,
    conn_state: u8,
    reserved: [u8; 18],
}

const _: () = assert!(size_of::<Wire>() == CDC_LEN);

/// Flags about the data stream (RFC 7609, appendix A.4: bits B, P, U, R, F).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct ProducerFlags(pub u8);

impl ProducerFlags {
    /// B: the sender has data and no window, and wants to hear when there is space.
    pub const WRITE_BLOCKED: Self = Self(0x80);
    /// P: urgent data is on its way.
    pub const URGENT_PENDING: Self = Self(0x40);
    /// U: the byte before the producer cursor is urgent.
    pub const URGENT_PRESENT: Self = Self(0x20);
    /// R: the sender wants a consumer cursor update now.
    pub const UPDATE_REQUESTED: Self = Self(0x10);
    /// F: failover validation (RFC 7609, section 4.6.1).
    pub const FAILOVER_VALIDATION: Self = Self(0x08);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and, if `on`, also `other`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on {
            Self(self.0 | other.0)
        } else {
            self
        }
    }
}

/// How the sender of a message stands to the connection (RFC 7609, appendix A.4: D, C, A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct ConnState(pub u8);

impl ConnState {
    /// D, "PeerDoneWriting": no more data follows.
    pub const DONE_WRITING: Self = Self(0x80);
    /// C, "PeerConnectionClosed": closed, and will not touch our RMBE again.
    pub const CLOSED: Self = Self(0x40);
    /// A, "PeerConnAbort": reset.
    pub const ABORT: Self = Self(0x20);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing follows: C or A.
    pub const fn says_goodbye(self) -> bool {
        self.contains(Self::CLOSED) || self.contains(Self::ABORT)
    }
}

/// Number of a CDC message: starts at 1 and wraps to 0 (RFC 7609, appendix A.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct CdcSeq(pub u16);

impl CdcSeq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this number is older than `other`, in serial-number arithmetic.
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i16) < 0
    }
}

/// A CDC message, parsed. Cursors are not validated yet: only a connection can do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CdcMessage {
    /// Number of the message.
    pub seqno: CdcSeq,
    /// Which connection of the link group: the token that the *receiver* has assigned.
    pub token: AlertToken,
    /// Where the sender will write next, in the receiver's RMBE.
    pub prod: Cursor,
    /// Where the sender will read next, in its own RMBE.
    pub cons: Cursor,
    /// Flags about the data.
    pub prod_flags: ProducerFlags,
    /// Flags about the connection.
    pub conn_state: ConnState,
}

impl CdcMessage {
    /// Whether it is the first one on another link (RFC 7609, section 4.6.1): only its number counts.
    pub const fn is_validation(&self) -> bool {
        self.prod_flags.contains(ProducerFlags::FAILOVER_VALIDATION)
    }

    /// Reads a message from the start of `bytes`. What follows the 44 bytes is ignored:
    /// a receive slot may be longer (SMC-Rv2). So are reserved bits, as the sender may be newer.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let Ok((wire, _)) = <Wire as zerocopy::FromBytes>::read_from_prefix(bytes) else {
            return Err(malformed(0, Fault::Truncated));
        };
        if wire.kind != CDC_TYPE {
            return Err(malformed(0, Fault::Type));
        }
        if usize::from(wire.length) != CDC_LEN {
            return Err(malformed(1, Fault::Length));
        }
        Ok(Self {
            seqno: CdcSeq(wire.seqno.get()),
            token: AlertToken(wire.token.get()),
            prod: wire.prod.into(),
            cons: wire.cons.into(),
            prod_flags: ProducerFlags(wire.prod_flags),
            conn_state: ConnState(wire.conn_state),
        })
    }

    /// The message as it travels.
    pub fn emit(&self) -> [u8; CDC_LEN] {
        let wire = Wire {
            kind: CDC_TYPE,
            length: CDC_LEN as u8,
            seqno: U16::new(self.seqno.0),
            token: U32::new(self.token.0),
            prod: self.prod.into(),
            cons: self.cons.into(),
            prod_flags: self.prod_flags.0,
            conn_state: self.conn_state.0,
            reserved: [0; 18],
        };
        zerocopy::transmute!(wire)
    }
}

fn malformed(offset: u16, fault: Fault) -> WireError {
    WireError::new(MessageKind::Cdc, offset, fault)
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_cdc))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn sample() -> CdcMessage {
        CdcMessage {
            seqno: CdcSeq(0x0102),
            token: AlertToken(0x0304_0506),
            prod: Cursor {
                wrap: 0x0708,
                count: 0x090a_0b0c,
            },
            cons: Cursor {
                wrap: 0x0d0e,
                count: 0x0f10_1112,
            },
            prod_flags: ProducerFlags::WRITE_BLOCKED,
            conn_state: ConnState::ABORT,
        }
    }

    #[test]
    fn layout_is_that_of_figure_41() {
        let mut expected = [0u8; 44];
        expected[..26].copy_from_slice(&[
            0xfe, 44, 1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 0x0a, 0x0b, 0x0c, 0, 0, 0x0d, 0x0e, 0x0f,
            0x10, 0x11, 0x12, 0x80, 0x20,
        ]);
        assert_eq!(sample().emit(), expected);
        assert_eq!(CdcMessage::parse(&expected), Ok(sample()));
    }

    #[test]
    fn what_is_no_cdc_message_is_refused() {
        let mut bytes = sample().emit();
        assert_eq!(
            CdcMessage::parse(&bytes[..43]),
            Err(malformed(0, Fault::Truncated))
        );
        bytes[1] = 43;
        assert_eq!(CdcMessage::parse(&bytes), Err(malformed(1, Fault::Length)));
        bytes[0] = 1;
        assert_eq!(CdcMessage::parse(&bytes), Err(malformed(0, Fault::Type)));
    }

    #[test]
    fn numbers_are_serial() {
        assert!(CdcSeq(1).is_before(CdcSeq(2)));
        assert!(CdcSeq(0xffff).is_before(CdcSeq(0)));
        assert!(!CdcSeq(5).is_before(CdcSeq(5)));
        assert!(!CdcSeq(0).is_before(CdcSeq(0xffff)));
        assert_eq!(CdcSeq(0xffff).next(), CdcSeq(0));
    }
}
