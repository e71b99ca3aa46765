// SPDX-License-Identifier: GPL-2.0

//! The client's side of the handshake (RFC 7609, section 3.5.1).

use super::{
    common::{
        await_confirmation,
        far_end,
        llc_version,
        this_host,
        vendor_options,
        LATE_DECLINE_MS, //
    },
    decline::DeclineReason,
    handshake::{
        decline_unread,
        ExpectAccept,
        HandshakeError,
        HaveAccept,
        PeerDeclined,
        Step, //
    },
    io,
    negotiate::{
        offered_prefixes,
        offered_subnet,
        ClientCaps,
        FirstContactTerms,
        LocalNetworks, //
    },
    outcome::Outcome,
    wire::{
        Decline,
        Ipv6Prefix,
        Subnets,
        V1Offer,
        MAX_IPV6_PREFIXES,
        MAX_MESSAGE_LEN, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::{
        clcsock::ClcSock,
        sock::Sock, //
    },
    smc_core::{
        conn::Conn,
        counter,
        error::{
            MessageKind,
            Violation, //
        },
        group::{
            Confirmation,
            GroupKey,
            LinkGroup, //
        },
        link::Link,
        llc::{
            flow::{
                ConfirmFailure,
                Role,
                CONFIRM_LINK_CLIENT_WAIT, //
            },
            wire::{
                DeleteReason,
                LlcVersion, //
            }, //
        },
        namespace,
        path::{
            self,
            Path,
            Paths, //
        },
        registry::{
            self,
            Registry, //
        },
        sock::SmcSocket,
        types::{
            Gid,
            Mac, //
        }, //
    },
    sysctl::Settings, //
};
use kernel::{
    error::Error,
    pr_warn_once,
    sync::Arc, //
};

/// Why a handshake ends without SMC-R.
enum Stop {
    /// Tell the server, and fall back.
    Decline(Decline, DeclineReason),
    /// The server has declined: fall back.
    PeerDeclined(PeerDeclined),
    /// The server does not speak SMC after all: somebody has sent our TCP option back.
    NotSmc(Error),
    /// The connection is of no use any more.
    Fail(Error),
}

impl From<io::Failure> for Stop {
    fn from(failure: io::Failure) -> Self {
        Self::Fail(failure.into())
    }
}

impl From<Error> for Stop {
    fn from(err: Error) -> Self {
        Self::Fail(err)
    }
}

/// What the steps share.
struct Context<'a> {
    sk: &'a Sock<SmcSocket>,
    clc: &'a ClcSock,
    registry: Arc<Registry>,
    settings: Arc<Settings>,
    paths: Paths,
}

/// Negotiates on a TCP connection whose server has said that it speaks SMC. Waits for the network.
pub(crate) fn handshake(sk: &Sock<SmcSocket>, clc: &Arc<ClcSock>) -> Outcome {
    let Some(registry) = registry::get() else {
        return Outcome::Failed(ENETDOWN);
    };
    let peer_id = registry.peer_id();
    let prepared = match (Settings::of(sk.net()), path::find(&registry, sk.net(), clc)) {
        (Ok(settings), Ok(paths)) => Ok(Context {
            sk,
            clc,
            registry,
            settings,
            paths,
        }),
        (_, Err(reason)) => Err(reason),
        (Err(_), _) => Err(DeclineReason::CNFERR),
    };
    let result = match prepared {
        Ok(context) => negotiate(&context),
        Err(reason) => Err(Stop::Decline(decline_unread(peer_id, reason), reason)),
    };
    let outcome = match result {
        Ok(conn) => Outcome::made(conn, clc),
        Err(Stop::Decline(decline, reason)) => Outcome::declined(clc, &decline, reason),
        Err(Stop::PeerDeclined(declined)) => {
            Outcome::Fallback(DeclineReason::PEERDECL, declined.diagnosis.0)
        }
        Err(Stop::NotSmc(err)) => Outcome::NotSmc(err),
        Err(Stop::Fail(err)) => Outcome::Failed(err),
    };
    outcome.counted(sk.net(), counter::CLIENT_FAILED)
}

/// What version 1 is offered with: where the connection's interface is attached, as far as the server
/// could be, too.
fn subnets<'a>(
    paths: &Paths,
    room: &'a mut [Ipv6Prefix; MAX_IPV6_PREFIXES],
) -> Option<Subnets<'a>> {
    match paths.networks() {
        LocalNetworks::V4(addresses) => Some(Subnets {
            ipv4: offered_subnet(paths.own_ipv4()?, addresses)?,
            ipv6: &[],
        }),
        LocalNetworks::V6(addresses) => {
            let ipv6 = offered_prefixes(addresses, room);
            (!ipv6.is_empty()).then_some(Subnets {
                ipv6,
                ..Subnets::default()
            })
        }
    }
}

fn negotiate(context: &Context<'_>) -> Result<Arc<Conn>, Stop> {
    let ueids = namespace::ueids(context.sk.net());
    let paths = &context.paths;
    let (v1, v2) = (paths.of(LlcVersion::V1), paths.of(LlcVersion::V2));
    let mut prefixes = [Ipv6Prefix::default(); MAX_IPV6_PREFIXES];
    let caps = ClientCaps {
        peer_id: context.registry.peer_id(),
        // Both are on the same port.
        mac: Mac(v2.or(v1).map_or([0; 6], |path| path.gid.mac)),
        v1: v1.and_then(|path| {
            Some(V1Offer {
                gid: Gid(path.gid.gid),
                subnets: subnets(paths, &mut prefixes)?,
            })
        }),
        v2: v2.map(|path| Gid(path.gid.gid)),
        ueids: ueids.as_slice(),
        max_conns: context.settings.max_connections(),
        max_links: context.settings.max_links(),
        vendor: vendor_options(&context.settings),
    };
    let mut room = [0; MAX_MESSAGE_LEN];
    let Ok((expect, len)) = ExpectAccept::propose(&caps, &mut room) else {
        let reason = DeclineReason::NOSMCRDEV;
        return Err(Stop::Decline(decline_unread(caps.peer_id, reason), reason));
    };
    // Until the answer to this it is only the TCP option that says that the server speaks SMC.
    io::send(context.clc, room.get(..len).unwrap_or(&[])).map_err(Stop::NotSmc)?;
    let message = match io::receive(context.clc, io::WAIT_MS, &mut room) {
        Ok(message) => message,
        Err(failure @ (io::Failure::Damaged | io::Failure::Cut(_))) => return Err(failure.into()),
        Err(failure) => return Err(Stop::NotSmc(failure.into())),
    };
    let have = match expect.handle(message) {
        Ok(Step::Proceed(have)) => have,
        Ok(Step::Decline(decline)) => {
            let reason = decline.reason;
            return Err(Stop::Decline(decline, reason));
        }
        Ok(Step::PeerDeclined(declined)) => return Err(Stop::PeerDeclined(declined)),
        // Our own words: a server that sends back what it gets.
        Err(HandshakeError::Violation(Violation::UnexpectedMessage {
            received: MessageKind::Proposal,
            ..
        })) => return Err(Stop::NotSmc(EPROTO)),
        Err(error) => {
            pr_warn_once!("a server sent a bad SMC message: {error:?}\n");
            return Err(Stop::Fail(EPROTO));
        }
    };
    let Some(path) = paths.of(llc_version(&have.terms().mode)) else {
        // Not reached: the server has chosen what was offered.
        let reason = DeclineReason::MODEUNSUPP;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    match have.terms().first_contact {
        Some(terms) => first_contact(context, path, have, &terms),
        None => next_contact(context, path, have),
    }
}

fn key(context: &Context<'_>, path: &Path, have: &HaveAccept) -> GroupKey {
    let terms = have.terms();
    GroupKey {
        role: Role::Client,
        version: llc_version(&terms.mode),
        peer_id: terms.peer.peer_id,
        peer_gid: terms.peer.gid,
        peer_mac: terms.peer.mac,
        local_gid: Gid(path.gid.gid),
        vlan: path.gid.vlan,
        net: context.sk.net().cookie(),
    }
}

/// The server uses a link group that exists.
fn next_contact(context: &Context<'_>, path: &Path, have: HaveAccept) -> Result<Arc<Conn>, Stop> {
    let peer = have.terms().peer;
    let far = far_end(path, &peer);
    let key = key(context, path, &have);
    let registry = &context.registry;
    let group = registry.find(&key, |group| group.link_to(&far).is_some());
    let found = group.and_then(|group| {
        let link = group.link_to(&far)?;
        Some((group, link))
    });
    let Some((group, link)) = found else {
        let reason = if registry.find(&key, |_| true).is_some() {
            // We may have lost it a moment ago. The group goes on without.
            DeclineReason::NOSRVLINK
        } else {
            // RFC 7609, section 3.5.1.6: we have no such link group (any more).
            DeclineReason::SYNCERR
        };
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    // The server is sure only after our Confirm, so that its group may still be forming here.
    if !group.wait_formed(CONFIRM_LINK_CLIENT_WAIT) {
        let reason = DeclineReason::NOACTLINK;
        return Err(Stop::Decline(have.decline(reason), reason));
    }
    if !group.await_link(&link) {
        let reason = DeclineReason::NOSRVLINK;
        return Err(Stop::Decline(have.decline(reason), reason));
    }
    let conn = match Conn::new(&group, &link, &context.settings, context.sk) {
        Ok(conn) => conn,
        Err(reason) => return Err(Stop::Decline(have.decline(reason), reason)),
    };
    let registered = conn.register().and_then(|()| conn.confirm_rmb());
    // Before the connection can move: it is on the server's link that the server expects it.
    let endpoint = conn.endpoint(&context.registry);
    let prepared = registered.and_then(|()| conn.meet(&peer));
    let (Ok(()), Some(endpoint)) = (prepared, endpoint) else {
        conn.abort(ECONNABORTED);
        let reason = DeclineReason::ERR_REGBUF;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    let mut room = [0; MAX_MESSAGE_LEN];
    let sent = match have.confirm(endpoint, this_host(path), &[], &mut room) {
        Ok((_agreed, len)) => io::send(context.clc, room.get(..len).unwrap_or(&[])),
        Err(_) => Err(EINVAL),
    };
    if let Err(err) = sent {
        conn.abort(err);
        return Err(Stop::Fail(err));
    }
    Ok(conn)
}

/// The server begins a new link group with us.
fn first_contact(
    context: &Context<'_>,
    path: &Path,
    have: HaveAccept,
    terms: &FirstContactTerms,
) -> Result<Arc<Conn>, Stop> {
    let settings = &context.settings;
    let key = key(context, path, &have);
    let made = context
        .registry
        .add(|id| LinkGroup::begin(id, key, terms.limits, path, settings));
    let Ok(group) = made else {
        let reason = DeclineReason::MEM;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    group.set_about(&have.terms().mode, terms);
    let result = form(context, path, have, terms, &group);
    match result {
        Ok(conn) => {
            conn.rmb_confirmed();
            group.activate();
            if key.version == LlcVersion::V1 {
                // Our other ports are not in the Confirm.
                group.want_link();
            }
            Ok(conn)
        }
        Err(stop) => {
            group.end(DeleteReason::LOST_PATH, true);
            Err(stop)
        }
    }
}

/// Our address on another port, if there is one that links of the group could use.
fn other_gid(context: &Context<'_>, link: &Link, terms: &FirstContactTerms) -> Option<Gid> {
    if terms.limits.max_links < 2 {
        return None;
    }
    let near = link.far()?.gid;
    let net = context.sk.net();
    let path = path::alternative(&context.registry, net, link, &near, false, |port| {
        link.is_on(&port.device) && link.port().number == port.number
    });
    path.map(|path| Gid(path.gid.gid))
}

fn form(
    context: &Context<'_>,
    path: &Path,
    have: HaveAccept,
    terms: &FirstContactTerms,
    group: &Arc<LinkGroup>,
) -> Result<Arc<Conn>, Stop> {
    let peer = have.terms().peer;
    let link = group.first_link()?;
    let conn = match Conn::new(group, &link, &context.settings, context.sk) {
        Ok(conn) => conn,
        Err(reason) => return Err(Stop::Decline(have.decline(reason), reason)),
    };
    let far = far_end(path, &peer);
    let prepared = conn
        .meet(&peer)
        .and_then(|()| group.begin_confirm(&link, &far))
        .and_then(|()| link.connect(&far, peer.psn, terms.peer_mtu));
    let (Ok(()), Some(endpoint)) = (prepared, conn.endpoint(&context.registry)) else {
        let reason = DeclineReason::ERR_RDYLNK;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    // The second one tells the server that another link is of use even from its only port.
    let other = other_gid(context, &link, terms);
    let gids = [link.gid(), other.unwrap_or(Gid::ZERO)];
    let gids = gids.get(..1 + usize::from(other.is_some())).unwrap_or(&[]);
    let mut room = [0; MAX_MESSAGE_LEN];
    let (agreed, len) = have
        .confirm(endpoint, this_host(path), gids, &mut room)
        .map_err(|_| Stop::Fail(EINVAL))?;
    io::send(context.clc, room.get(..len).unwrap_or(&[]))?;

    // RFC 7609, section 3.5.1.4: the server's CONFIRM LINK shows that the link works.
    let reason = match await_confirmation(group, &link, context.clc, CONFIRM_LINK_CLIENT_WAIT) {
        Some(Confirmation::Done) => {
            let ready = link.start(group).and_then(|()| conn.register());
            // That may have taken longer than the server waits: what it says then comes first.
            if io::has_input(context.clc) {
                None
            } else if ready.and_then(|()| group.answer_confirm(&link)).is_ok() {
                return Ok(conn);
            } else {
                Some(DeclineReason::ERR_RDYLNK)
            }
        }
        Some(Confirmation::Failed(ConfirmFailure::EyeCatcher)) => Some(DeclineReason::RMBE_EC),
        Some(Confirmation::Failed(ConfirmFailure::WrongPeer)) => Some(DeclineReason::ERR_RDYLNK),
        Some(Confirmation::Failed(ConfirmFailure::Timeout) | Confirmation::Ended) | None => None,
    };
    let Some(reason) = reason else {
        // The server has the shorter wait: its Decline is here or on its way.
        let message = io::receive(context.clc, LATE_DECLINE_MS, &mut room)?;
        return match agreed.handle(message) {
            Ok(declined) => Err(Stop::PeerDeclined(declined)),
            Err(_) => Err(Stop::Fail(EPROTO)),
        };
    };
    match agreed.decline(reason) {
        Some(decline) => Err(Stop::Decline(decline, reason)),
        None => Err(Stop::Fail(ECONNABORTED)),
    }
}
