// SPDX-License-Identifier: GPL-2.0

//! The Decline message: no SMC on this connection.

#![forbid(unsafe_code)]

use zerocopy::{
    network_endian::U32,
    FromBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::clc::decline::DeclineReason;
use crate::smc_core::{
    error::{
        EmitError,
        Fault,
        MessageKind,
        WireError, //
    },
    types::PeerId,
};

use super::{
    first_contact::OsType,
    Emitter,
    Version,
    FLAG_F_OR_S,
    HEADER_LEN, //
};

/// RFC 7609, section A.2.5: 28 bytes. SMC-Rv2: 44 bytes.
const V1_LEN: u16 = 28;
const V2_LEN: u16 = 44;
pub(super) const LEN_BOUNDS: (u16, u16) = (V1_LEN, V2_LEN);

/// A Decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Version 1 or 2: that of the message which it answers.
    pub version: Version,
    /// Who declines.
    pub peer_id: PeerId,
    /// Why. The values are the sender's own.
    pub reason: DeclineReason,
    /// What the sender runs on; zero in version 1 messages of other implementations.
    pub os: OsType,
    /// The receiver has a link group that the sender does not have, and must end it
    /// (RFC 7609, section A.2.5, S-bit).
    pub out_of_sync: bool,
}

/// Layout behind the header (RFC 7609, section A.2.5).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    peer_id: PeerId,
    reason: U32,
    /// SMC-Rv2: operating system in the high four bits. Reserved in RFC 7609.
    os: u8,
    reserved: [u8; 3],
}

impl Decline {
    /// A Decline of ours for `reason`, in answer to a message of `version`.
    pub fn new(version: Version, peer_id: PeerId, reason: DeclineReason) -> Self {
        Self {
            version: version.clamp(Version::V1, Version::V2),
            peer_id,
            reason,
            os: OsType::LINUX,
            // RFC 7609, section A.2.5: the S-bit says that the link groups are out of sync.
            out_of_sync: reason == DeclineReason::SYNCERR,
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Any violation of the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (header, body) = super::open(bytes, MessageKind::Decline)?;
        let error = |offset, fault| WireError::new(MessageKind::Decline, offset, fault);

        // RFC 7609, section A.2.5: 28 bytes in version 1. SMC-Rv2: 44, of which we only use what
        // version 1 has; the short form is harmless in version 2.
        let long = header.length == V2_LEN && header.version >= Version::V2;
        if header.length != V1_LEN && !long {
            return Err(error(5, Fault::Length));
        }
        let (raw, _) = Raw::read_from_prefix(body).map_err(|_| error(8, Fault::Length))?;
        Ok(Self {
            version: header.version.min(Version::V2),
            peer_id: raw.peer_id,
            reason: DeclineReason(raw.reason.get()),
            os: OsType::from_nibble(raw.os >> 4),
            out_of_sync: header.f_or_s(),
        })
    }

    /// Writes the message and returns its length in bytes: 28 or 44.
    ///
    /// # Errors
    ///
    /// [`EmitError::Space`] if `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, EmitError> {
        let flags = if self.out_of_sync { FLAG_F_OR_S } else { 0 };
        let length = if self.version >= Version::V2 {
            V2_LEN
        } else {
            V1_LEN
        };
        let mut message = Emitter::start(
            out,
            usize::from(length),
            MessageKind::Decline,
            self.version,
            flags,
        )?;
        message.put(&Raw {
            peer_id: self.peer_id,
            reason: U32::new(self.reason.0),
            os: self.os.to_high_nibble(),
            reserved: [0; 3],
        })?;
        if length == V2_LEN {
            // SMC-Rv2: four more words of diagnosis, which nobody uses.
            message.put(&[0u8; 16])?;
        }
        message.finish()
    }
}

const _: () = assert!(HEADER_LEN + size_of::<Raw>() + 4 == V1_LEN as usize);

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_clc_decline))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn sample(version: Version, reason: DeclineReason) -> Decline {
        Decline::new(version, PeerId([1, 2, 3, 4, 5, 6, 7, 8]), reason)
    }

    #[test]
    fn both_forms_round_trip() {
        for (version, len) in [(Version::V1, 28), (Version::V2, 44)] {
            for reason in [DeclineReason::NOUEID, DeclineReason::SYNCERR] {
                let decline = sample(version, reason);
                let mut buf = [0xaa; 64];
                assert_eq!(decline.emit(&mut buf), Ok(len));
                assert_eq!(Decline::parse(&buf[..len]), Ok(decline));
                assert_eq!(decline.out_of_sync, reason == DeclineReason::SYNCERR);
                for short in 0..len {
                    assert!(Decline::parse(&buf[..short]).is_err());
                    assert_eq!(
                        decline.emit(&mut [0; 64][..short]),
                        Err(EmitError::Space { needed: len })
                    );
                }
            }
        }
    }

    #[test]
    fn version_1_has_no_long_form() {
        let mut buf = [0; 44];
        assert!(sample(Version::V2, DeclineReason::MEM)
            .emit(&mut buf)
            .is_ok());
        buf[7] = 0x10;
        assert!(Decline::parse(&buf).is_err());
    }

    #[test]
    fn trailer_is_checked() {
        let mut buf = [0; 28];
        assert!(sample(Version::V1, DeclineReason::MEM)
            .emit(&mut buf)
            .is_ok());
        buf[27] ^= 1;
        assert_eq!(
            Decline::parse(&buf),
            Err(WireError::new(MessageKind::Decline, 24, Fault::Trailer))
        );
    }
}
