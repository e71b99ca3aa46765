// SPDX-License-Identifier: GPL-2.0

//! The server's side of the handshake (RFC 7609, section 3.5.1).

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
        ExpectConfirm,
        ExpectProposal,
        HaveConfirm,
        HaveProposal,
        PeerDeclined,
        Step, //
    },
    io,
    negotiate::{
        LocalNetworks,
        ServerCaps, //
    },
    outcome::Outcome,
    wire::{
        Decline,
        MAX_MESSAGE_LEN, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::{
        clcsock::{
            ClcSock,
            NameOf, //
        },
        sock::Sock, //
    },
    smc_core::{
        conn::Conn,
        counter,
        group::{
            Confirmation,
            GroupKey,
            LinkGroup, //
        },
        llc::{
            flow::{
                ConfirmFailure,
                Role, //
            },
            wire::{
                DeleteReason,
                LlcVersion, //
            }, //
        },
        namespace,
        path::{
            self,
            Path, //
        },
        registry::{
            self,
            Registry, //
        },
        sock::SmcSocket,
        types::Gid, //
    },
    sysctl::Settings, //
};
use kernel::{
    error::Error,
    pr_warn_once,
    sync::Arc, //
};

/// How long the client has to send its Proposal, which it does at once. Longer than it waits for our
/// Accept: a client that does speak SMC, and whose Proposal is lost or late, has given up when we go
/// on without it. What comes of that Proposal then, if anything, is for a connection that nobody has.
const PROPOSAL_MS: u32 = io::WAIT_MS + 2_000;

/// How long the client has to answer CONFIRM LINK.
const CONFIRM_MS: u32 = 6_000;

/// How long a handshake waits for the first connection of a group. Less than a client waits for our
/// Accept: it is to hear a Decline, and fall back, before it gives up.
const FORM_MS: u32 = 5_000;

/// Why a handshake ends without SMC-R.
enum Stop {
    /// Tell the client, and fall back.
    Decline(Decline, DeclineReason),
    /// The client has declined: fall back.
    PeerDeclined(PeerDeclined),
    /// The client does not speak SMC after all: fall back.
    NotSmc,
    /// The connection is of no use any more.
    Fail(Error),
}

impl From<io::Failure> for Stop {
    fn from(failure: io::Failure) -> Self {
        Self::Fail(failure.into())
    }
}

/// What the steps share.
struct Context<'a> {
    sk: &'a Sock<SmcSocket>,
    clc: &'a ClcSock,
    registry: Arc<Registry>,
    settings: Arc<Settings>,
}

/// Negotiates on a TCP connection whose client has said that it speaks SMC. Waits for the network.
pub(crate) fn handshake(sk: &Sock<SmcSocket>, clc: &Arc<ClcSock>) -> Outcome {
    let (Some(registry), Ok(settings)) = (registry::get(), Settings::of(sk.net())) else {
        return Outcome::Failed(ENETDOWN);
    };
    let context = Context {
        sk,
        clc,
        registry,
        settings,
    };
    let outcome = match negotiate(&context) {
        Ok(conn) => Outcome::made(conn, clc),
        Err(Stop::Decline(decline, reason)) => Outcome::declined(clc, &decline, reason),
        Err(Stop::PeerDeclined(declined)) => {
            Outcome::Fallback(DeclineReason::PEERDECL, declined.diagnosis.0)
        }
        Err(Stop::NotSmc) => Outcome::Fallback(DeclineReason::NOCLC, 0),
        Err(Stop::Fail(err)) => Outcome::Failed(err),
    };
    outcome.counted(sk.net(), counter::SERVER_FAILED)
}

fn negotiate(context: &Context<'_>) -> Result<Arc<Conn>, Stop> {
    let mut room = [0; MAX_MESSAGE_LEN];
    let message = match io::receive(context.clc, PROPOSAL_MS, &mut room) {
        Ok(message) => message,
        // Somebody has added the option to the SYN, or taken it out of the SYN-ACK: nothing was taken
        // from the stream, so TCP still works, also for a client that waits for us to speak, or that
        // has said that it will say nothing.
        Err(io::Failure::NotClc | io::Failure::Silence | io::Failure::Finished) => {
            return Err(Stop::NotSmc)
        }
        Err(failure) => return Err(failure.into()),
    };
    let paths = path::find(&context.registry, context.sk.net(), context.clc).ok();
    let path_of = |version| paths.as_ref().and_then(|paths| paths.of(version));
    let ueids = namespace::ueids(context.sk.net());
    let caps = ServerCaps {
        peer_id: context.registry.peer_id(),
        v1_device: path_of(LlcVersion::V1).is_some(),
        v2_device: path_of(LlcVersion::V2).is_some(),
        networks: paths
            .as_ref()
            .map_or(LocalNetworks::V4(&[]), |paths| paths.networks()),
        ueids: ueids.as_slice(),
        max_conns: context.settings.max_connections(),
        max_links: context.settings.max_links(),
        vendor: vendor_options(&context.settings),
    };
    let have = match ExpectProposal.handle(message, &caps) {
        Ok(Step::Proceed(have)) => have,
        Ok(Step::Decline(decline)) => {
            let reason = decline.reason;
            return Err(Stop::Decline(decline, reason));
        }
        Ok(Step::PeerDeclined(declined)) => return Err(Stop::PeerDeclined(declined)),
        Err(error) => {
            pr_warn_once!("a client sent a bad SMC message: {error:?}\n");
            return Err(Stop::Fail(EPROTO));
        }
    };
    let Some(path) = path_of(llc_version(&have.choice().mode)) else {
        // Not reached: only what there is a path for is chosen.
        let reason = DeclineReason::NOSMCRDEV;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    let (group, first, conn) = match join(context, path, &have) {
        Ok(joined) => joined,
        Err(reason) => return Err(Stop::Decline(have.decline(reason), reason)),
    };
    let result = connect(context, path, have, &group, first, conn);
    if first {
        match &result {
            Ok(conn) => {
                conn.rmb_confirmed();
                group.activate();
                group.want_link();
            }
            Err(_) => group.end(DeleteReason::LOST_PATH, true),
        }
    }
    result
}

/// A place for the connection: its link group, whether the group begins with it, and the connection
/// itself, or why there is none.
type Joined = (Arc<LinkGroup>, bool, Result<Arc<Conn>, DeclineReason>);

/// Finds a link group for the connection, or begins one.
fn join(
    context: &Context<'_>,
    path: &Path,
    have: &HaveProposal<'_>,
) -> Result<Joined, DeclineReason> {
    let choice = have.choice();
    let key = GroupKey {
        role: Role::Server,
        version: llc_version(&choice.mode),
        peer_id: choice.peer_id,
        peer_gid: choice.peer_gid,
        peer_mac: choice.peer_mac,
        local_gid: Gid(path.gid.gid),
        vlan: path.gid.vlan,
        net: context.sk.net().cookie(),
    };
    let deadline = registry::now().after(FORM_MS);
    // Handshakes with one peer wait for its first connection, and for nobody else's.
    while !deadline.reached(registry::now()) {
        let (group, first) = context
            .registry
            .find_or_add(
                &key,
                deadline,
                |group| group.is_between(&key) && group.has_room(),
                |id| LinkGroup::begin(id, key, choice.limits, path, &context.settings),
            )
            .map_err(|_| DeclineReason::MEM)?;
        let left = deadline.0.saturating_sub(registry::now().0);
        if !first && !group.wait_formed(u32::try_from(left).unwrap_or(0)) {
            // It has failed, so that the next one may be ours; or the time is up.
            continue;
        }
        let link = group.choose_link();
        let conn = match &link {
            Some(link) => Conn::new(&group, link, &context.settings, context.sk),
            None => Err(DeclineReason::NOACTLINK),
        };
        let gone = link.is_some_and(|link| !group.takes_connections(&link));
        if conn.is_err() && gone && !first {
            // Given up meanwhile: there is another one, or another group.
            continue;
        }
        // Others have waited, too, and have taken the last places.
        if first || conn.is_ok() || (group.has_room() && group.is_usable()) {
            return Ok((group, first, conn));
        }
    }
    Err(DeclineReason::NOACTLINK)
}

fn connect(
    context: &Context<'_>,
    path: &Path,
    have: HaveProposal<'_>,
    group: &Arc<LinkGroup>,
    first: bool,
    conn: Result<Arc<Conn>, DeclineReason>,
) -> Result<Arc<Conn>, Stop> {
    let conn = match conn {
        Ok(conn) => conn,
        Err(reason) => return Err(Stop::Decline(have.decline(reason), reason)),
    };
    let result = finish(context, path, have, group, first, &conn);
    if matches!(&result, Err(Stop::PeerDeclined(declined)) if declined.diagnosis == DeclineReason::NOSRVLINK)
    {
        // The client has lost it, and so should we soon.
        conn.doubt_link();
    }
    if result.is_err() {
        conn.abort(ECONNABORTED);
    }
    if let Err(Stop::PeerDeclined(declined)) = &result {
        // RFC 7609, section A.2.5: the client does not have this link group any more.
        if declined.out_of_sync && group.key().peer_id.agrees_with(&declined.peer_id) {
            if comes_from(context.clc, &group.key().peer_gid) {
                group.end(DeleteReason::LOST_PATH, false);
            } else {
                // Anyone can say so in its name. If it is true, the links do not answer either.
                group.doubt_links();
            }
        }
    }
    result.map(|()| conn)
}

/// Whether TCP has shown that the client has the address in a GID.
fn comes_from(clc: &ClcSock, gid: &Gid) -> bool {
    let own = clc.name(NameOf::Peer).ok().and_then(|name| name.ipv4());
    own.is_some_and(|own| Gid::from_ipv4(own) == *gid)
}

fn finish(
    context: &Context<'_>,
    path: &Path,
    have: HaveProposal<'_>,
    group: &Arc<LinkGroup>,
    first: bool,
    conn: &Conn,
) -> Result<(), Stop> {
    // The first link cannot register memory before it knows the peer.
    let registered = if first {
        Ok(())
    } else {
        conn.register().and_then(|()| conn.confirm_rmb())
    };
    let endpoint = conn.endpoint(&context.registry);
    let (Ok(()), Some(endpoint)) = (registered, endpoint) else {
        let reason = DeclineReason::ERR_REGBUF;
        return Err(Stop::Decline(have.decline(reason), reason));
    };
    let host = first.then(|| this_host(path));
    let mut room = [0; MAX_MESSAGE_LEN];
    let (expect, len): (ExpectConfirm, usize) = have
        .accept(endpoint, host, &mut room)
        .map_err(|_| Stop::Fail(EINVAL))?;
    io::send(context.clc, room.get(..len).unwrap_or(&[])).map_err(Stop::Fail)?;

    let message = io::receive(context.clc, io::WAIT_MS, &mut room)?;
    let agreed = match expect.handle(message) {
        Ok(Step::Proceed(HaveConfirm { agreed, gids })) => {
            if gids.len() > 1 {
                group.invited();
            }
            agreed
        }
        Ok(Step::Decline(decline)) => {
            let reason = decline.reason;
            return Err(Stop::Decline(decline, reason));
        }
        Ok(Step::PeerDeclined(declined)) => return Err(Stop::PeerDeclined(declined)),
        Err(error) => {
            pr_warn_once!("a client sent a bad SMC message: {error:?}\n");
            return Err(Stop::Fail(EPROTO));
        }
    };
    let peer = agreed.terms().peer;
    conn.meet(&peer).map_err(Stop::Fail)?;
    let Some(terms) = agreed.terms().first_contact else {
        return Ok(());
    };
    group.set_about(&agreed.terms().mode, &terms);
    let (link, far) = (
        group.first_link().map_err(Stop::Fail)?,
        far_end(path, &peer),
    );
    let ready = link
        .connect(&far, peer.psn, terms.peer_mtu)
        .and_then(|()| link.start(group))
        .and_then(|()| conn.register())
        .and_then(|()| group.begin_confirm(&link, &far));
    let reason = match ready {
        Ok(()) => match await_confirmation(group, &link, context.clc, CONFIRM_MS) {
            Some(Confirmation::Done) => return Ok(()),
            Some(Confirmation::Failed(ConfirmFailure::EyeCatcher)) => DeclineReason::RMBE_EC,
            Some(Confirmation::Failed(_) | Confirmation::Ended) | None => DeclineReason::TIMEOUT_CL,
        },
        Err(_) => DeclineReason::ERR_RDYLNK,
    };
    // The client may have declined instead of answering; two Declines must not cross.
    if let Ok(message) = io::receive(context.clc, LATE_DECLINE_MS, &mut room) {
        return match agreed.handle(message) {
            Ok(declined) => Err(Stop::PeerDeclined(declined)),
            Err(_) => Err(Stop::Fail(EPROTO)),
        };
    }
    match agreed.decline(reason) {
        Some(decline) => Err(Stop::Decline(decline, reason)),
        None => Err(Stop::Fail(ECONNABORTED)),
    }
}
