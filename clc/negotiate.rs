// SPDX-License-Identifier: GPL-2.0

//! What two hosts agree on, decided from their messages and from nothing else.
//!
//! The client offers what it can do ([`ClientCaps`]), the server chooses ([`evaluate_proposal`]),
//! the client checks the choice ([`evaluate_accept`]), and the server checks what the client made
//! of it ([`evaluate_confirm`]). When something does not fit, the result is the reason with which
//! the connection falls back to TCP.

#![forbid(unsafe_code)]

pub use crate::clc::subnet::{
    offered_prefixes,
    offered_subnet,
    on_same_lan,
    Ipv4Address,
    Ipv6Address,
    LocalNetworks, //
};
use crate::clc::{
    decline::DeclineReason,
    wire::{
        Accept,
        AcceptBody,
        Confirm,
        ConfirmBody,
        ConfirmFirstContact,
        FirstContact,
        OsType,
        Proposal,
        RdmaEndpoint,
        Release,
        V1Offer,
        V2Offer,
        VendorOptions,
        Version, //
    },
};

use crate::smc_core::types::{
    Eid,
    Gid,
    Mac,
    Mtu,
    PeerId,
    Ueid, //
};

/// The release of version 2 that this implementation speaks.
pub const OUR_RELEASE: Release = Release::R1;

/// Fewest connections per link group that a host may ask for (SMC-Rv2).
pub const MIN_MAX_CONNS: u8 = 16;

/// Connections per link group where they are not negotiated: all RMB elements can be named
/// (RFC 7609, section 2.1: 255 per RMB; SMC-Rv2).
pub const DEFAULT_MAX_CONNS: u8 = 255;

/// Links per link group where they are not negotiated, and the most that can be negotiated
/// (SMC-Rv2). RFC 7609, section 2.2.2 needs two for high availability.
pub const DEFAULT_MAX_LINKS: u8 = 2;

/// The version in use, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// RFC 7609.
    V1,
    /// SMC-Rv2.
    V2 {
        /// The enterprise ID that both hosts have.
        eid: Eid,
    },
}

impl Mode {
    /// The version.
    pub const fn version(&self) -> Version {
        match self {
            Self::V1 => Version::V1,
            Self::V2 { .. } => Version::V2,
        }
    }
}

/// Limits of a new link group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Release of version 2; zero with version 1.
    pub release: Release,
    /// Most connections in the link group.
    pub max_conns: u8,
    /// Most links in the link group.
    pub max_links: u8,
    /// What two hosts of our vendor do; none with release 0.
    pub vendor: VendorOptions,
}

impl Limits {
    /// What holds where nothing is negotiated: version 1, and release 0 of version 2.
    pub const DEFAULT: Self = Self {
        release: Release::R0,
        max_conns: DEFAULT_MAX_CONNS,
        max_links: DEFAULT_MAX_LINKS,
        vendor: VendorOptions::NONE,
    };
}

/// What the two hosts agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The version.
    pub mode: Mode,
    /// The peer's part of the connection.
    pub peer: RdmaEndpoint,
    /// Present if the connection is the first of a new link group.
    pub first_contact: Option<FirstContactTerms>,
}

/// What the two hosts agreed on for a new link group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstContactTerms {
    /// Limits of the link group.
    pub limits: Limits,
    /// MTU of the peer; the lower one of both sides is used (RFC 7609, section A.2.3).
    pub peer_mtu: Mtu,
    /// The peer reaches us without a gateway; always so with version 1.
    pub direct: bool,
    /// What the peer runs on; zero if it did not say.
    pub peer_os: OsType,
    /// Name of the peer's host, blank-padded; can be any bytes.
    pub peer_hostname: [u8; 32],
}

impl FirstContactTerms {
    /// Version 1 has no first contact extension.
    const fn v1(peer_mtu: Mtu) -> Self {
        Self {
            limits: Limits::DEFAULT,
            peer_mtu,
            direct: true,
            peer_os: OsType::from_nibble(0),
            peer_hostname: [b' '; 32],
        }
    }

    const fn v2(limits: Limits, peer_mtu: Mtu, from_peer: &FirstContact) -> Self {
        Self {
            limits,
            peer_mtu,
            direct: from_peer.direct,
            peer_os: from_peer.os,
            peer_hostname: from_peer.hostname,
        }
    }
}

/// What a host says about itself in a first contact extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// We reach the peer without a gateway.
    pub direct: bool,
    /// Our name, blank-padded.
    pub hostname: [u8; 32],
}

impl Host {
    fn first_contact(&self, limits: &Limits) -> FirstContact {
        FirstContact {
            direct: self.direct,
            os: OsType::LINUX,
            release: limits.release,
            hostname: self.hostname,
            max_conns: limits.max_conns,
            max_links: limits.max_links,
            features: 0,
            vendor: limits.vendor,
        }
    }
}

// The client proposes.

/// What a client can use for one connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientCaps<'a> {
    /// Identity of this host.
    pub peer_id: PeerId,
    /// MAC address of the port, which is the same for both versions: offer only one of them if the
    /// ports differ.
    pub mac: Mac,
    /// Port and network for version 1, if there are.
    pub v1: Option<V1Offer<'a>>,
    /// RoCEv2 GID for version 2, if there is one.
    pub v2: Option<Gid>,
    /// User-defined enterprise IDs; without one version 2 is not offered.
    pub ueids: &'a [Ueid],
    /// Most connections per link group, 16 to 255.
    pub max_conns: u8,
    /// Most links per link group, 1 or 2.
    pub max_links: u8,
    /// What it can do with a host of our vendor.
    pub vendor: VendorOptions,
}

impl<'a> ClientCaps<'a> {
    /// The Proposal for these, `None` if there is nothing to offer.
    ///
    /// A client that has version 1 only sends the message of RFC 7609, section A.2.2, which every
    /// peer can read.
    pub fn proposal(&self) -> Option<Proposal<'a>> {
        let v2 = match self.v2 {
            Some(gid) if !self.ueids.is_empty() => Some(V2Offer {
                release: OUR_RELEASE,
                gid,
                max_conns: self.max_conns,
                max_links: self.max_links,
                features: 0,
                vendor: self.vendor,
                eids: Ueid::as_eids(self.ueids),
            }),
            _ => None,
        };
        if self.v1.is_none() && v2.is_none() {
            return None;
        }
        Some(Proposal {
            version: if v2.is_some() {
                Version::V2
            } else {
                Version::V1
            },
            peer_id: self.peer_id,
            mac: self.mac,
            v1: self.v1,
            v2,
            ism: Default::default(),
            v2_missing: false,
        })
    }
}

// The server chooses.

/// What a server can use for one connection.
#[derive(Clone, Copy, Debug)]
pub struct ServerCaps<'a> {
    /// Identity of this host.
    pub peer_id: PeerId,
    /// There is a device for version 1.
    pub v1_device: bool,
    /// There is a device for version 2, and the connection is over IPv4.
    pub v2_device: bool,
    /// Where the interface of the connection is attached, for version 1.
    pub networks: LocalNetworks<'a>,
    /// User-defined enterprise IDs of this host.
    pub ueids: &'a [Ueid],
    /// Most connections per link group, 16 to 255.
    pub max_conns: u8,
    /// Most links per link group, 1 or 2.
    pub max_links: u8,
    /// What it can do with a host of our vendor.
    pub vendor: VendorOptions,
}

/// What the server makes of a Proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerChoice {
    /// The version.
    pub mode: Mode,
    /// Limits, if a new link group is made.
    pub limits: Limits,
    /// Identity of the client.
    pub peer_id: PeerId,
    /// The client's GID of the chosen version.
    pub peer_gid: Gid,
    /// MAC address of the client's port.
    pub peer_mac: Mac,
}

/// Chooses a version out of a Proposal: version 2 if possible, then version 1.
///
/// # Errors
///
/// The reason for the Decline. Where both versions fail, it is that of version 2.
pub fn evaluate_proposal(
    proposal: &Proposal<'_>,
    caps: &ServerCaps<'_>,
) -> Result<ServerChoice, DeclineReason> {
    let mut refusal = None;
    match choose_v2(proposal, caps) {
        Ok(choice) => return Ok(choice),
        // Limits that cannot be met are no reason to try an older version.
        Err(reason @ (DeclineReason::MAXCONNERR | DeclineReason::MAXLINKERR)) => {
            return Err(reason);
        }
        Err(DeclineReason::MODEUNSUPP) => {}
        Err(reason) => refusal = Some(reason),
    }
    match choose_v1(proposal, caps) {
        Ok(choice) => Ok(choice),
        Err(reason) => Err(refusal.unwrap_or(reason)),
    }
}

fn choose_v2(
    proposal: &Proposal<'_>,
    caps: &ServerCaps<'_>,
) -> Result<ServerChoice, DeclineReason> {
    let Some(offer) = &proposal.v2 else {
        return Err(if proposal.v2_missing {
            DeclineReason::NOV2EXT
        } else if proposal.ism.v2 {
            // SMC-D is offered instead, which this host never has.
            DeclineReason::NOISM2SUPP
        } else {
            DeclineReason::MODEUNSUPP
        });
    };
    // SMC-Rv2: the first EID of the client that the server has too.
    let eid = *offer
        .eids
        .iter()
        .find(|eid| caps.ueids.iter().any(|ueid| ueid == *eid))
        .ok_or(DeclineReason::NOUEID)?;
    if !caps.v2_device {
        return Err(DeclineReason::NOSMCRDEV);
    }
    Ok(ServerChoice {
        mode: Mode::V2 { eid },
        limits: choose_limits(offer, caps)?,
        peer_id: proposal.peer_id,
        peer_gid: offer.gid,
        peer_mac: proposal.mac,
    })
}

/// SMC-Rv2: the lower release of both; from release 1 on the lower limits of both.
fn choose_limits(offer: &V2Offer<'_>, caps: &ServerCaps<'_>) -> Result<Limits, DeclineReason> {
    let release = offer.release.min(OUR_RELEASE);
    if release == Release::R0 {
        return Ok(Limits::DEFAULT);
    }
    let max_conns = offer.max_conns.min(caps.max_conns);
    if max_conns < MIN_MAX_CONNS {
        return Err(DeclineReason::MAXCONNERR);
    }
    let max_links = offer.max_links.min(caps.max_links).min(DEFAULT_MAX_LINKS);
    if max_links < 1 {
        return Err(DeclineReason::MAXLINKERR);
    }
    Ok(Limits {
        release,
        max_conns,
        max_links,
        vendor: offer.vendor.and(caps.vendor),
    })
}

fn choose_v1(
    proposal: &Proposal<'_>,
    caps: &ServerCaps<'_>,
) -> Result<ServerChoice, DeclineReason> {
    let Some(offer) = &proposal.v1 else {
        return Err(if proposal.ism.v1 {
            DeclineReason::NOSMCDDEV
        } else {
            DeclineReason::MODEUNSUPP
        });
    };
    // RFC 7609, section 3.5.1.2: the server must validate that it is on the same LAN.
    if !on_same_lan(&offer.subnets, caps.networks) {
        return Err(DeclineReason::DIFFPREFIX);
    }
    if !caps.v1_device {
        return Err(DeclineReason::NOSMCRDEV);
    }
    Ok(ServerChoice {
        mode: Mode::V1,
        // RFC 7609, section 3.5.1: which group a connection goes into is the server's choice, so that it
        // can fill groups less without a word to the client.
        limits: Limits {
            max_conns: caps.max_conns,
            ..Limits::DEFAULT
        },
        peer_id: proposal.peer_id,
        peer_gid: offer.gid,
        peer_mac: proposal.mac,
    })
}

impl ServerChoice {
    /// The Accept for this choice; `first_contact` if the server makes a new link group.
    pub fn accept(&self, endpoint: RdmaEndpoint, first_contact: Option<Host>) -> Accept {
        let body = match self.mode {
            Mode::V1 => AcceptBody::V1 {
                first_contact: first_contact.is_some(),
            },
            Mode::V2 { eid } => AcceptBody::V2 {
                eid,
                first_contact: first_contact.map(|host| host.first_contact(&self.limits)),
            },
        };
        Accept { endpoint, body }
    }
}

// The client checks.

/// Checks an Accept against the Proposal that it answers.
///
/// # Errors
///
/// The reason for the Decline.
pub fn evaluate_accept(offered: &Proposal<'_>, accept: &Accept) -> Result<Terms, DeclineReason> {
    let (mode, first_contact) = match (&accept.body, &offered.v1, &offered.v2) {
        (AcceptBody::V1 { first_contact }, Some(_), _) => {
            let terms = if *first_contact {
                Some(FirstContactTerms::v1(mtu_of(&accept.endpoint)?))
            } else {
                None
            };
            (Mode::V1, terms)
        }
        (AcceptBody::V2 { eid, first_contact }, _, Some(offer)) => {
            // SMC-Rv2: the server chooses one of the client's EIDs.
            if !offer.eids.contains(eid) {
                return Err(DeclineReason::NOUEID);
            }
            let terms = match first_contact {
                Some(from_server) => Some(FirstContactTerms::v2(
                    check_limits(offer, from_server)?,
                    mtu_of(&accept.endpoint)?,
                    from_server,
                )),
                None => None,
            };
            (Mode::V2 { eid: *eid }, terms)
        }
        // A version that was not offered.
        _ => return Err(DeclineReason::MODEUNSUPP),
    };
    Ok(Terms {
        mode,
        peer: accept.endpoint,
        first_contact,
    })
}

/// Parsing has ensured that an MTU is there.
fn mtu_of(endpoint: &RdmaEndpoint) -> Result<Mtu, DeclineReason> {
    endpoint.qp_mtu.ok_or(DeclineReason::INTERR)
}

/// SMC-Rv2: release and limits are the lower ones of both sides, so never above those offered.
fn check_limits(offer: &V2Offer<'_>, from_server: &FirstContact) -> Result<Limits, DeclineReason> {
    let release = from_server.release;
    if release > offer.release {
        return Err(DeclineReason::RELEASEERR);
    }
    if release == Release::R0 {
        return Ok(Limits::DEFAULT);
    }
    let max_conns = from_server.max_conns;
    if !(MIN_MAX_CONNS..=offer.max_conns).contains(&max_conns) {
        return Err(DeclineReason::MAXCONNERR);
    }
    let max_links = from_server.max_links;
    if !(1..=offer.max_links.min(DEFAULT_MAX_LINKS)).contains(&max_links) {
        return Err(DeclineReason::MAXLINKERR);
    }
    Ok(Limits {
        release,
        max_conns,
        max_links,
        // What was not offered is not done, and the Confirm says so.
        vendor: from_server.vendor.and(offer.vendor),
    })
}

impl Terms {
    /// The client's Confirm for these terms; `host` and `gids` are used at first contact only.
    pub fn confirm<'a>(&self, endpoint: RdmaEndpoint, host: Host, gids: &'a [Gid]) -> Confirm<'a> {
        let body = match self.mode {
            Mode::V1 => ConfirmBody::V1 {
                first_contact: self.first_contact.is_some(),
            },
            Mode::V2 { eid } => ConfirmBody::V2 {
                eid,
                // SMC-Rv2: release and limits are echoed.
                first_contact: self.first_contact.map(|terms| ConfirmFirstContact {
                    common: host.first_contact(&terms.limits),
                    gids,
                }),
            },
        };
        Confirm { endpoint, body }
    }
}

// The server checks.

/// Checks a Confirm against the server's choice and against whether its Accept made a new link
/// group.
///
/// # Errors
///
/// The reason for the Decline. Only at first contact may one be sent (RFC 7609, section C.1).
pub fn evaluate_confirm(
    choice: &ServerChoice,
    first_contact: bool,
    confirm: &Confirm<'_>,
) -> Result<Terms, DeclineReason> {
    let terms = match (choice.mode, &confirm.body) {
        // RFC 7609, section A.2.4: no first contact flag in the Confirm, so it does not count here.
        (Mode::V1, ConfirmBody::V1 { .. }) if first_contact => {
            // RFC 7609, section A.2.4: a reserved MTU must not be used.
            let mtu = confirm.endpoint.qp_mtu.ok_or(DeclineReason::CNFERR)?;
            Some(FirstContactTerms::v1(mtu))
        }
        (Mode::V1, ConfirmBody::V1 { .. }) => None,
        (
            Mode::V2 { eid: ours },
            ConfirmBody::V2 {
                eid,
                first_contact: from_client,
            },
        ) => {
            if *eid != ours {
                return Err(DeclineReason::NOUEID);
            }
            match (first_contact, from_client) {
                (true, Some(from_client)) => Some(FirstContactTerms::v2(
                    check_echo(&choice.limits, &from_client.common)?,
                    mtu_of(&confirm.endpoint)?,
                    &from_client.common,
                )),
                // Without the extension nothing tells that the client agrees to the limits.
                (true, None) => return Err(DeclineReason::RELEASEERR),
                // The client has made a link group that the server does not have.
                (false, Some(_)) => return Err(DeclineReason::SYNCERR),
                (false, None) => None,
            }
        }
        _ => return Err(DeclineReason::VERSMISMAT),
    };
    Ok(Terms {
        mode: choice.mode,
        peer: confirm.endpoint,
        first_contact: terms,
    })
}

/// SMC-Rv2: the client echoes release and limits of the Accept.
fn check_echo(ours: &Limits, from_client: &FirstContact) -> Result<Limits, DeclineReason> {
    if from_client.release != ours.release {
        return Err(DeclineReason::RELEASEERR);
    }
    // Release 0 has no limits to echo.
    if ours.release > Release::R0 {
        if from_client.max_conns != ours.max_conns {
            return Err(DeclineReason::MAXCONNERR);
        }
        if from_client.max_links != ours.max_links {
            return Err(DeclineReason::MAXLINKERR);
        }
        // A client that does less than was agreed would not understand us.
        if !from_client.vendor.contains(ours.vendor) {
            return Err(DeclineReason::RELEASEERR);
        }
    }
    Ok(*ours)
}
