// SPDX-License-Identifier: GPL-2.0

//! Why a connection goes on over TCP.
//!
//! RFC 7609, section A.2.5: the diagnosis information of a Decline is 4 bytes, defined by each
//! implementation for itself. Here they have the values that Linux peers send and that the
//! diagnosis tools of Linux know; a foreign peer's value is kept as it came.

#![forbid(unsafe_code)]

use core::fmt;

/// Reason of a fallback to TCP: sent to the peer in a Decline, shown to the user by the diagnosis
/// interface.
///
/// Any value can come from a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DeclineReason(pub u32);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl DeclineReason {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// All reasons known here.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Short text, `None` for a value not known here.
            pub const fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// No memory or other local resource.
    MEM = 0x0101_0000, "insufficient memory";
    /// No answer to CONFIRM LINK on the first link.
    TIMEOUT_CL = 0x0201_0000, "timeout of confirm link";
    /// No answer to ADD LINK.
    TIMEOUT_AL = 0x0202_0000, "timeout of add link";
    /// The configuration does not allow SMC here.
    CNFERR = 0x0300_0000, "configuration error";
    /// The peer did not send the TCP option, so it does not speak SMC.
    PEERNOSMC = 0x0301_0000, "peer did not indicate SMC";
    /// The peer (or somebody on the way) sent the TCP option, but what came then, if anything, was no
    /// CLC message. Never sent to a peer; not known to the C implementation, as is the next one.
    NOCLC = 0x0301_0001, "peer indicated SMC but does not speak it";
    /// That was found out by an earlier connection to the same server, so that the SYN of this one
    /// had no option.
    NOCLCKNOWN = 0x0301_0002, "peer is known not to speak SMC";
    /// Connections to this server, or those that this listener accepts, have been too short for SMC
    /// (`net.smc.adaptive`). Not known to the C implementation, and never sent to a peer.
    NOTWORTH = 0x0301_0003, "connections like this one are too short for SMC";
    /// The TCP connection is protected by IPsec, which RDMA would bypass.
    IPSEC = 0x0302_0000, "IPsec is in use";
    /// No device for any flavour of SMC.
    NOSMCDEV = 0x0303_0000, "no SMC device found";
    /// The peer offers SMC-D only, and there is no device for it.
    NOSMCDDEV = 0x0303_0001, "no SMC-D device found";
    /// No RDMA device reaches this network.
    NOSMCRDEV = 0x0303_0002, "no SMC-R device found";
    /// The peer offers SMC-Dv2 only, which this host does not support.
    NOISM2SUPP = 0x0303_0003, "no ISMv2 support";
    /// The peer announces version 2 without the version 2 area.
    NOV2EXT = 0x0303_0004, "proposal without version 2 extension";
    /// The peer announces SMC-Dv2 without its area.
    NOV2DEXT = 0x0303_0005, "proposal without SMC-Dv2 extension";
    /// The system enterprise IDs differ.
    NOSEID = 0x0303_0006, "no common SEID";
    /// No device for SMC-Dv2.
    NOSMCD2DEV = 0x0303_0007, "no SMC-Dv2 device found";
    /// The hosts have no user-defined enterprise ID in common.
    NOUEID = 0x0303_0008, "no common UEID";
    /// The release in the Accept or Confirm is not the negotiated one.
    RELEASEERR = 0x0303_0009, "release negotiation failed";
    /// The number of connections per link group is out of range or not the negotiated one.
    MAXCONNERR = 0x0303_000a, "negotiation of maximum connections failed";
    /// The number of links per link group is out of range or not the negotiated one.
    MAXLINKERR = 0x0303_000b, "negotiation of maximum links failed";
    /// The peer chose a flavour or version that was not offered.
    MODEUNSUPP = 0x0304_0000, "mode not supported";
    /// The peer insists on eye catchers in the RMB elements.
    RMBE_EC = 0x0305_0000, "peer requires RMBE eye catchers";
    /// A TCP option or system call was used that SMC has no counterpart for.
    OPTUNSUPP = 0x0306_0000, "socket option not supported by SMC";
    /// The hosts are not on the same subnet.
    DIFFPREFIX = 0x0307_0000, "different subnet or prefix";
    /// The VLAN of the connection cannot be told.
    GETVLANERR = 0x0308_0000, "VLAN lookup failed";
    /// The VLAN cannot be registered with the ISM device.
    ISMVLANERR = 0x0309_0000, "VLAN registration with ISM failed";
    /// The link group has no active link.
    NOACTLINK = 0x030a_0000, "no active link in link group";
    /// The link that the server chose is not known to the client.
    NOSRVLINK = 0x030b_0000, "link of the server not found";
    /// The versions do not fit.
    VERSMISMAT = 0x030c_0000, "version mismatch";
    /// All memory buffers of the ISM device are in use.
    MAX_DMB = 0x030d_0000, "DMB limit reached";
    /// There is no route to the RDMA address of the peer.
    NOROUTE = 0x030e_0000, "no route to peer";
    /// The peer is behind a gateway, and there is none towards it.
    NOINDIRECT = 0x030f_0000, "no indirect route to peer";
    /// The link group is out of sync: one side has it, the other not.
    SYNCERR = 0x0400_0000, "link group out of sync";
    /// The peer declined.
    PEERDECL = 0x0500_0000, "peer declined";
    /// Internal error.
    INTERR = 0x0999_0000, "internal error";
    /// The remote token cannot be stored.
    ERR_RTOK = 0x0999_0001, "remote token handling failed";
    /// The link cannot be made ready.
    ERR_RDYLNK = 0x0999_0002, "link could not be made ready";
    /// A buffer cannot be registered with the device.
    ERR_REGBUF = 0x0999_0003, "buffer registration failed";
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#010x} ({})",
            self.0,
            self.text().unwrap_or("unknown reason")
        )
    }
}

impl fmt::Debug for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_decline))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_distinct_and_described() {
        for (i, reason) in DeclineReason::ALL.iter().enumerate() {
            assert!(reason.text().is_some_and(|text| !text.is_empty()));
            assert!(!DeclineReason::ALL.iter().skip(i + 1).any(|r| r == reason));
        }
        assert_eq!(DeclineReason(7).text(), None);
    }
}
