//! Every reason for a fallback that this implementation gives, seen on the wire in the Decline.
//!
//! Reasons of the server: a raw client sends what leads to them. Reasons of the client: a raw
//! server does. Resources that are refused: genuine hosts, with a kernel function that fails.
//! Documentation/uapi.rst lists the reasons.

use super::clc::{relay, Step};
use super::cycles::Memory;
use super::genl::{counted, handshakes_in_vain};
use super::hostile::{genuine_proposal, message, next_port, others_are_served, PROPOSAL};
use super::link::{echo, fresh, prove_by_queue_pairs, queue_pairs, stream};
use super::raw::{self, RawPeer, Refusing};
use super::settings::Changed;
use super::wiretap::{diagnosis, Wiretap};
use super::{join, once};
use crate::fault::Fault;
use crate::kind::Host;
use crate::mode;
use crate::rig::{self, SoftRoce};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use rand::RngCore;
use std::net::SocketAddr;
use std::time::Duration;

pub const TESTS: [Test; 14] = [
    once("decline.proposal", 120, proposal),
    once("decline.too_late", 120, too_late),
    once("decline.accept", 120, accept),
    once("decline.confirm", 200, confirm),
    once("decline.said_twice", 120, said_twice),
    once("decline.group_never_forms", 200, group_never_forms),
    once("decline.no_device", 120, no_device),
    once("decline.refused_resources", 300, refused_resources),
    once("decline.nothing_stays", 300, nothing_stays),
    once("decline.client_table_full", 200, client_table_full),
    once("decline.smaller_rings", 120, smaller_rings),
    once("decline.closed_at_once", 120, closed_at_once),
    once("decline.listener_without_hook", 60, listener_without_hook),
    once("decline.no_second_try", 60, no_second_try),
];

const MEM: u32 = 0x0101_0000;
const TIMEOUT_CL: u32 = 0x0201_0000;
const CNFERR: u32 = 0x0300_0000;
const NOSMCDDEV: u32 = 0x0303_0001;
const NOSMCRDEV: u32 = 0x0303_0002;
const NOISM2SUPP: u32 = 0x0303_0003;
const NOV2EXT: u32 = 0x0303_0004;
const NOUEID: u32 = 0x0303_0008;
const RELEASEERR: u32 = 0x0303_0009;
const MAXCONNERR: u32 = 0x0303_000a;
const MAXLINKERR: u32 = 0x0303_000b;
const MODEUNSUPP: u32 = 0x0304_0000;
const DIFFPREFIX: u32 = 0x0307_0000;
const NOACTLINK: u32 = 0x030a_0000;
const NOSRVLINK: u32 = 0x030b_0000;
const VERSMISMAT: u32 = 0x030c_0000;
const SYNCERR: u32 = 0x0400_0000;
const PEERDECL: u32 = 0x0500_0000;
const INTERR: u32 = 0x0999_0000;
const ERR_RDYLNK: u32 = 0x0999_0002;
const ERR_REGBUF: u32 = 0x0999_0003;

// Who a Proposal, Accept or Confirm is from.
pub(super) const PEER_ID: std::ops::Range<usize> = 8..16;
// Fields of Accept and Confirm of SMC-Rv2.
pub(super) const QUEUE_PAIR: std::ops::Range<usize> = 38..41;
const EID: usize = 64;
const FIRST_CONTACT: usize = 104;
const OS_AND_RELEASE: usize = 105;
const MAX_CONNS: usize = 140;
const MAX_LINKS: usize = 141;
/// The flag in byte 7 that says that the first contact extension is there.
const FIRST_CONTACT_FLAG: u8 = 0x08;

/// What a Proposal offers of a version.
#[derive(Clone, Copy)]
enum Offer {
    R = 0,
    D = 1,
    Nothing = 2,
}

/// A Proposal to be written.
#[derive(Clone, Copy)]
struct Draft {
    version: u8,
    v1: Offer,
    v2: Offer,
    /// Whether the area of version 2 is there.
    area: bool,
    subnet: [u8; 4],
    max_conns: u8,
    max_links: u8,
    strange_eid: bool,
}

const V2_ONLY: Draft = Draft {
    version: 2,
    v1: Offer::Nothing,
    v2: Offer::R,
    area: true,
    subnet: [10, 9, 0, 0],
    max_conns: 255,
    max_links: 2,
    strange_eid: false,
};

/// Writes a Proposal with identity, addresses and EID of a genuine one.
fn write(draft: Draft, genuine: &[u8]) -> Vec<u8> {
    let area = 52 + usize::from(u16::from_be_bytes([genuine[50], genuine[51]]));
    let subnets: Vec<u8> = match draft.v1 {
        Offer::Nothing => Vec::new(),
        _ => [draft.subnet.as_slice(), &[24, 0, 0, 0]].concat(),
    };
    let mut body = genuine[PEER_ID].to_vec();
    body.extend([0; 16]);
    body.extend(&genuine[32..38]);
    body.extend([0, 40]);
    body.extend([0; 10]);
    // Counted from byte 52.
    let offset = if draft.area {
        28 + subnets.len() as u16
    } else {
        0
    };
    body.extend(offset.to_be_bytes());
    body.extend([0; 28]);
    body.extend(subnets);
    if draft.area {
        // One EID, release 1, and where an area of SMC-Dv2 would be.
        body.extend([1, 0, 0, 0x10, 0, 0, 0, 64]);
        body.extend(&genuine[area + 8..area + 24]);
        body.extend([draft.max_conns, draft.max_links]);
        body.extend([0; 14]);
        let mut eid = genuine[area + 40..area + 72].to_vec();
        eid[0] ^= u8::from(draft.strange_eid);
        body.extend(eid);
        if let Offer::D = draft.v2 {
            body.extend([0; 48]);
        }
    }
    let mut all = message(PROPOSAL, draft.version, &body);
    all[7] |= draft.v1 as u8;
    if draft.version > 1 {
        all[7] |= (draft.v2 as u8) << 2;
    }
    all
}

pub(super) fn new_peer_id(ctx: &Ctx, stream: u64) -> [u8; 8] {
    let mut id = [0; 8];
    ctx.random(stream).fill_bytes(&mut id);
    id
}

/// After its Decline the raw peer's connection is TCP, both ways.
fn works_as_tcp(peer: &mut RawPeer, sock: &Sock, reason: u32) -> Outcome {
    peer.send(b"to the socket")?;
    let mut got = [0; 13];
    sock.recv_all(&mut got)?;
    check_eq!(&got, b"to the socket", "what the socket received");
    sock.send_all(b"from it")?;
    check_eq!(
        peer.receive(sys::PATIENCE)?,
        b"from it",
        "what the raw peer received"
    );
    check_eq!(
        mode::fallback_reason(sock)?,
        reason,
        "the socket's own reason"
    );
    Ok(())
}

/// The server's answer to a Proposal is a Decline for this reason, and then there is TCP.
fn server_declines(ctx: &Ctx, proposal: &[u8], reason: u32) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let mut peer = RawPeer::connect(next_port(), address)?;
    counted((Host::B, true, reason), || {
        peer.send(proposal)?;
        let answer = peer.receive(sys::PATIENCE)?;
        check_eq!(
            diagnosis(&answer),
            Some(reason),
            "diagnosis in {answer:02x?}"
        );
        works_as_tcp(&mut peer, &listener.accept()?, reason)
    })
}

fn proposal(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let genuine = genuine_proposal(ctx)?;
    let v1_only = Draft {
        version: 1,
        v1: Offer::R,
        area: false,
        ..V2_ONLY
    };
    for (name, draft, reason) in [
        (
            "another EID",
            Draft {
                strange_eid: true,
                ..V2_ONLY
            },
            NOUEID,
        ),
        (
            "15 connections",
            Draft {
                max_conns: 15,
                ..V2_ONLY
            },
            MAXCONNERR,
        ),
        (
            "no links",
            Draft {
                max_links: 0,
                ..V2_ONLY
            },
            MAXLINKERR,
        ),
        (
            "no area of version 2",
            Draft {
                area: false,
                ..V2_ONLY
            },
            NOV2EXT,
        ),
        (
            "SMC-Dv2 only",
            Draft {
                v2: Offer::D,
                ..V2_ONLY
            },
            NOISM2SUPP,
        ),
        (
            "SMC-Dv1 only",
            Draft {
                v1: Offer::D,
                ..v1_only
            },
            NOSMCDDEV,
        ),
        (
            "nothing",
            Draft {
                v2: Offer::Nothing,
                area: false,
                ..V2_ONLY
            },
            MODEUNSUPP,
        ),
        (
            "another subnet",
            Draft {
                subnet: [192, 0, 2, 0],
                ..v1_only
            },
            DIFFPREFIX,
        ),
    ] {
        server_declines(ctx, &write(draft, &genuine), reason).during(name)?;
    }
    // The same hand writes one that is taken: the reasons above are for what they seem to be for.
    let (listener, address) = ctx.listener(8)?;
    let mut peer = RawPeer::connect(next_port(), address)?;
    peer.send(&write(V2_ONLY, &genuine))?;
    let answer = peer.receive(sys::PATIENCE)?;
    check!(
        answer.len() >= 108 && answer[4] == 2,
        "the answer to a good Proposal is no Accept: {answer:02x?}"
    );
    drop(peer);
    others_are_served(ctx, &listener, address)
}

/// A client that is gone before the server's Decline has not fallen back: what is left of its connection is nothing for
/// accept(), where it would look like a stream that has ended well.
fn too_late(ctx: &Ctx) -> Outcome {
    const ROUNDS: u64 = 20;
    raw::prepare()?;
    let draft = Draft {
        strange_eid: true,
        ..V2_ONLY
    };
    let proposal = write(draft, &genuine_proposal(ctx)?);
    let (listener, address) = ctx.listener(64)?;
    // The server looks for its device when it has read the Proposal.
    let fault = Fault::late_in_kernel(&["dev_get_by_index_rcu"], 20)?;
    let before = handshakes_in_vain(Host::B)?;
    for round in 1..=ROUNDS {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal)?;
        // This resets it.
        drop(peer);
        sys::eventually("the handshake is over", || {
            // Some of a test before may end meanwhile.
            Ok(handshakes_in_vain(Host::B)? >= before + round)
        })?;
    }
    drop(fault);
    let mut offered = 0;
    while listener.poll(libc::POLLIN, Duration::ZERO)? != 0 {
        // The reset has come behind the Decline.
        check_errno!(
            listener.accept()?.recv(&mut [0; 16], 0),
            libc::ECONNRESET,
            "recv() of a connection whose client was reset"
        );
        offered += 1;
    }
    println!("# {offered} of {ROUNDS} resets came too late");
    check!(offered < ROUNDS, "no reset came before the Decline");
    others_are_served(ctx, &listener, address)
}

/// Accept and Confirm of a genuine first contact.
pub(super) fn genuine_handshake(ctx: &Ctx) -> Outcome<(Vec<u8>, Vec<u8>)> {
    fresh(ctx)?;
    let (listener, address) = ctx.listener(8)?;
    let (mut accept, mut confirm) = (Vec::new(), Vec::new());
    let relayed = relay(ctx, address, 9000, |step, message| {
        match step {
            Step::Accept => accept.clone_from(&message),
            Step::Confirm => confirm.clone_from(&message),
            Step::Proposal => {}
        }
        Some(message)
    })?;
    check!(relayed.is_some(), "the relay has no outcome");
    let server = listener.accept()?;
    drop(server);
    drop(relayed);
    // SMC-Rv1 has no areas behind what both have.
    let lengths = if SoftRoce::here() == SoftRoce::V1 {
        (68, 68)
    } else {
        (160, 180)
    };
    check_eq!(
        (accept.len(), confirm.len()),
        lengths,
        "lengths of Accept and Confirm at first contact"
    );
    Ok((accept, confirm))
}

/// The message as of version 1: without what version 2 adds.
fn as_version_1(mut message: Vec<u8>) -> Vec<u8> {
    let trailer = message[..4].to_vec();
    message.truncate(64);
    message.extend(trailer);
    message[5..7].copy_from_slice(&68u16.to_be_bytes());
    message[7] = 0x10 | (message[7] & 0x0f);
    message
}

/// The message as of a later contact: without the first contact extension.
fn as_later_contact(mut message: Vec<u8>) -> Vec<u8> {
    let trailer = message[..4].to_vec();
    message.truncate(FIRST_CONTACT);
    message.extend(trailer);
    message[5..7].copy_from_slice(&108u16.to_be_bytes());
    message[7] &= !FIRST_CONTACT_FLAG;
    message
}

/// A client of host B under way to a raw server, which has its Proposal.
pub(super) fn client_to_raw(
    ctx: &Ctx,
) -> Outcome<(
    RawPeer,
    std::thread::JoinHandle<Outcome<std::io::Result<Sock>>>,
)> {
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let kind = ctx.kind;
    let client = std::thread::spawn(move || -> Outcome<std::io::Result<Sock>> {
        let client = Sock::new(Host::B, kind, 0)?;
        Ok(client.connect(address).map(|()| client))
    });
    let mut peer = listening.accept()?;
    peer.receive(sys::PATIENCE)?;
    Ok((peer, client))
}

fn connected(client: std::thread::JoinHandle<Outcome<std::io::Result<Sock>>>) -> Outcome<Sock> {
    join(client)?.during("connect()")
}

/// The client's answer to an Accept is a Decline for this reason, and then there is TCP.
fn client_declines(ctx: &Ctx, accept: &[u8], reason: u32) -> Outcome {
    let (mut peer, client) = client_to_raw(ctx)?;
    counted((Host::B, false, reason), || {
        peer.send(accept)?;
        let answer = peer.receive(sys::PATIENCE)?;
        check_eq!(
            diagnosis(&answer),
            Some(reason),
            "diagnosis in {answer:02x?}"
        );
        works_as_tcp(&mut peer, &connected(client)?, reason)
    })
}

fn accept(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (genuine, _) = genuine_handshake(ctx)?;
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, u32); 7] = [
        ("another EID", |m| m[EID] ^= 1, NOUEID),
        ("a later release", |m| m[OS_AND_RELEASE] |= 0x0f, RELEASEERR),
        ("15 connections", |m| m[MAX_CONNS] = 15, MAXCONNERR),
        ("3 links", |m| m[MAX_LINKS] = 3, MAXLINKERR),
        (
            "version 1",
            |m| *m = as_version_1(std::mem::take(m)),
            MODEUNSUPP,
        ),
        (
            "SMC-D",
            |m| {
                *m = message(2, 1, &[0; 36]);
                m[3] = 0xc4;
                // The flavour that is chosen.
                m[7] |= Offer::D as u8;
                m[47] = 0xc4;
            },
            MODEUNSUPP,
        ),
        (
            "an unknown link group",
            |m| *m = as_later_contact(std::mem::take(m)),
            SYNCERR,
        ),
    ];
    for (number, (name, change, reason)) in changes.into_iter().enumerate() {
        let mut accept = genuine.clone();
        accept[PEER_ID].copy_from_slice(&new_peer_id(ctx, 200 + number as u64));
        change(&mut accept);
        client_declines(ctx, &accept, reason).during(name)?;
    }
    // There is a group with this peer, but without such a link (any more): the group goes on.
    let listener = ctx.socket(Host::A)?;
    listener.bind(Host::A.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let client = ctx.socket(Host::B)?;
    client.connect(listener.local()?)?;
    let pair = Pair {
        client,
        server: listener.accept()?,
    };
    echo(&pair, b"a group")?;
    let mut accept = as_later_contact(genuine);
    accept[QUEUE_PAIR].copy_from_slice(&[0, 0xff, 0xfe]);
    client_declines(ctx, &accept, NOSRVLINK).during("a link that is gone")?;
    echo(&pair, b"goes on")?;
    let (listener, address) = ctx.listener(8)?;
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

fn confirm(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (_, genuine) = genuine_handshake(ctx)?;
    let genuine_proposal = genuine_proposal(ctx)?;
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, u32); 7] = [
        ("another EID", |m| m[EID] ^= 1, NOUEID),
        ("another release", |m| m[OS_AND_RELEASE] &= 0xf0, RELEASEERR),
        (
            "no first contact extension",
            |m| *m = as_later_contact(std::mem::take(m)),
            RELEASEERR,
        ),
        ("16 connections", |m| m[MAX_CONNS] = 16, MAXCONNERR),
        ("1 link", |m| m[MAX_LINKS] = 1, MAXLINKERR),
        (
            "version 1",
            |m| *m = as_version_1(std::mem::take(m)),
            VERSMISMAT,
        ),
        (
            "a queue pair that is none",
            |m| m[QUEUE_PAIR].copy_from_slice(&[0, 0xff, 0xfe]),
            TIMEOUT_CL,
        ),
    ];
    let (listener, address) = ctx.listener(8)?;
    for (number, (name, change, reason)) in changes.into_iter().enumerate() {
        // A client that the server has never seen: it begins a link group.
        let peer_id = new_peer_id(ctx, 300 + number as u64);
        let mut proposal = genuine_proposal.clone();
        proposal[PEER_ID].copy_from_slice(&peer_id);
        let mut confirm = genuine.clone();
        confirm[PEER_ID].copy_from_slice(&peer_id);
        change(&mut confirm);
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal)?;
        let accept = peer.receive(sys::PATIENCE)?;
        check_eq!(accept.len(), 160, "length of the Accept before {name}");
        counted((Host::B, true, reason), || {
            peer.send(&confirm)?;
            let answer = peer.receive(sys::PATIENCE)?;
            check_eq!(
                diagnosis(&answer),
                Some(reason),
                "diagnosis in {answer:02x?}"
            );
            works_as_tcp(&mut peer, &listener.accept()?, reason)
        })
        .during(name)?;
    }
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// A message that would be declined comes twice: the second one is no data of a program, and so the connection is of no use any more. A
/// client begins anew, without SMC.
fn said_twice(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (mut accept, mut confirm) = genuine_handshake(ctx)?;
    let genuine = genuine_proposal(ctx)?;
    let is_reset = |peer: &mut RawPeer, what: &str| -> Outcome {
        let answer = peer.receive(sys::PATIENCE)?;
        check!(
            answer.is_empty() && peer.reset,
            "the answer to a {what} that comes twice: {answer:02x?}"
        );
        Ok(())
    };
    let (listener, address) = ctx.listener(8)?;
    let strange = Draft {
        strange_eid: true,
        ..V2_ONLY
    };
    let mut peer = RawPeer::connect(next_port(), address)?;
    peer.send(&write(strange, &genuine).repeat(2))?;
    is_reset(&mut peer, "Proposal")?;
    let peer_id = new_peer_id(ctx, 410);
    accept[PEER_ID].copy_from_slice(&peer_id);
    accept[EID] ^= 1;
    let (mut peer, client) = client_to_raw(ctx)?;
    peer.send(&accept.repeat(2))?;
    is_reset(&mut peer, "Accept")?;
    Refusing::new(peer.address().port())?.until(|| client.is_finished())?;
    check_errno!(join(client)?, libc::ECONNREFUSED, "connect(), without SMC");
    let mut proposal = genuine;
    proposal[PEER_ID].copy_from_slice(&peer_id);
    confirm[PEER_ID].copy_from_slice(&peer_id);
    confirm[EID] ^= 1;
    let mut peer = RawPeer::connect(next_port(), address)?;
    peer.send(&proposal)?;
    let answer = peer.receive(sys::PATIENCE)?;
    check_eq!(answer.len(), 160, "length of the Accept");
    peer.send(&confirm.repeat(2))?;
    is_reset(&mut peer, "Confirm")?;
    check_eq!(
        listener.poll(libc::POLLIN, Duration::ZERO)?,
        0,
        "events of the listener"
    );
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// Others wait for the first connection of a link group, which is never finished.
fn group_never_forms(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (accept, _) = genuine_handshake(ctx)?;
    let genuine_proposal = genuine_proposal(ctx)?;
    // At the server: the first client never confirms.
    let mut proposal = genuine_proposal;
    proposal[PEER_ID].copy_from_slice(&new_peer_id(ctx, 400));
    let (listener, address) = ctx.listener(8)?;
    let mut first = RawPeer::connect(next_port(), address)?;
    first.send(&proposal)?;
    check_eq!(
        first.receive(sys::PATIENCE)?.len(),
        160,
        "length of the Accept of the first client"
    );
    let mut second = RawPeer::connect(next_port(), address)?;
    second.send(&proposal)?;
    // At the client, meanwhile: the server never sends CONFIRM LINK.
    let mut accept = accept;
    accept[PEER_ID].copy_from_slice(&new_peer_id(ctx, 401));
    let (mut silent, forming) = client_to_raw(ctx)?;
    silent.send(&accept)?;
    let answer = silent.receive(sys::PATIENCE)?;
    check!(
        answer.len() == 180 && answer[4] == 3,
        "the answer to a good Accept is no Confirm: {answer:02x?}"
    );
    let (mut later, waiting) = client_to_raw(ctx)?;
    later.send(&as_later_contact(accept))?;

    counted((Host::B, true, NOACTLINK), || {
        counted((Host::B, false, NOACTLINK), || {
            let answer = second.receive(sys::PATIENCE)?;
            check_eq!(
                diagnosis(&answer),
                Some(NOACTLINK),
                "the server's diagnosis"
            );
            // The first client's connection may be in the queue as well, with its error.
            let server = loop {
                match listener.accept() {
                    Ok(server) => break server,
                    Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                    Err(error) => return Err(error).during("accept()"),
                }
            };
            works_as_tcp(&mut second, &server, NOACTLINK).during("the server's side")?;
            let answer = later.receive(sys::PATIENCE)?;
            check_eq!(
                diagnosis(&answer),
                Some(NOACTLINK),
                "the client's diagnosis"
            );
            works_as_tcp(&mut later, &connected(waiting)?, NOACTLINK).during("the client's side")
        })
    })?;
    // The one that nobody confirmed has said so in its stream, and is of no use.
    drop(silent);
    check!(
        connected(forming).is_err(),
        "connect() succeeded although the server went silent"
    );
    drop(first);
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// One side of a pair declined, and the other one knows of it.
fn check_reasons(pair: &Pair, who: Host, reason: u32) -> Outcome {
    let (own, other) = match who {
        Host::A => (&pair.client, &pair.server),
        Host::B => (&pair.server, &pair.client),
    };
    check_eq!(
        mode::fallback_reason(own)?,
        reason,
        "reason of who declined"
    );
    let other = mode::fallback(other)?;
    check_eq!(
        (other.reason, other.peer_diagnosis),
        (PEERDECL, reason),
        "reason of the other side, and what it was told"
    );
    Ok(())
}

/// A pair that fell back on both sides since one declined, which both count; and that works.
fn fallen_pair(ctx: &Ctx, listener: &(Sock, SocketAddr), who: Host, reason: u32) -> Outcome<Pair> {
    let by_server = who == Host::B;
    let other = if by_server { Host::A } else { Host::B };
    let pair = counted((who, by_server, reason), || {
        counted((other, !by_server, PEERDECL), || {
            let pair = ctx.unasked().pair_from(&listener.0, listener.1)?;
            echo(&pair, b"over TCP")?;
            Ok(pair)
        })
    })?;
    check_reasons(&pair, who, reason)?;
    Ok(pair)
}

fn no_device(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let tap = Wiretap::new()?;
    let listener = ctx.listener(8)?;
    for host in Host::BOTH {
        rig::run(&format!("rdma link del {}", host.rdma_device()))?;
        let outcome = fallen_pair(ctx, &listener, host, NOSMCRDEV).and_then(|_| tap.only_decline());
        rig::rdma_device_add(host)?;
        let what = format!("without {}", host.rdma_device());
        check_eq!(outcome.during(&what)?, (host, NOSMCRDEV), "{what}");
    }
    echo(&ctx.pair()?, b"with both")?;
    prove_by_queue_pairs(ctx)
}

/// Each resource of a connection, refused to the server (which comes first) and to the client.
fn refused_resources(ctx: &Ctx) -> Outcome {
    const ALL: u32 = i32::MAX as u32;
    let tap = Wiretap::new()?;
    // No link group, so that every connection begins one.
    fresh(ctx)?;
    // Made before anything fails.
    let listener = ctx.listener(8)?;
    for (function, result, skip, count, who, reason) in [
        ("__ib_alloc_pd", -12, 0, 1, Host::B, MEM),
        ("__ib_alloc_pd", -12, 1, 1, Host::A, MEM),
        // For what is sent, and for what is received.
        ("__ib_create_cq", -12, 0, 1, Host::B, MEM),
        ("__ib_create_cq", -12, 1, 1, Host::B, MEM),
        ("__ib_create_cq", -12, 2, 1, Host::A, MEM),
        ("__ib_create_cq", -12, 3, 1, Host::A, MEM),
        // A smaller queue pair is tried as well.
        ("ib_create_qp_kernel", -12, 0, ALL, Host::B, MEM),
        ("ib_create_qp_kernel", -12, 1, ALL, Host::A, MEM),
        // To INIT on either side, then to RTR at the client, and at the server.
        ("ib_modify_qp", -22, 0, 1, Host::B, MEM),
        ("ib_modify_qp", -22, 1, 1, Host::A, MEM),
        ("ib_modify_qp", -22, 2, 1, Host::A, ERR_RDYLNK),
        ("ib_modify_qp", -22, 3, 1, Host::B, ERR_RDYLNK),
        // Memory regions and memory, in every size that is tried.
        ("ib_alloc_mr", -12, 0, ALL, Host::B, MEM),
        ("ib_alloc_mr", -12, 1, ALL, Host::A, MEM),
        ("rust_helper_alloc_pages", 0, 0, ALL, Host::B, MEM),
        // The own address of a connection: without it nobody can tell what to use.
        ("inet_getname", -107, 0, 1, Host::A, CNFERR),
    ] {
        let what = format!("{function} fails after {skip}");
        let fault = Fault::new(function, result, skip, count)?;
        let pair = fallen_pair(ctx, &listener, who, reason).during(&what)?;
        check!(fault.hits()? > 0, "{what}: it was never called");
        drop(fault);
        check_eq!(tap.only_decline().during(&what)?, (who, reason), "{what}");
        echo(&pair, b"still there")?;
        // Nothing is left of the link group that was to begin: the next one begins it anew.
        for host in Host::BOTH {
            check_eq!(queue_pairs(host)?, 0, "queue pairs after {what}");
        }
    }
    // Registration is a request to the device, for memory that was not registered before.
    let mut open = vec![ctx.pair()?];
    echo(&open[0], b"nothing fails any more")?;
    for (skip, who) in [(0, Host::B), (1, Host::A)] {
        let what = format!("registration fails on host {}", who.name());
        let fault = Fault::of_registration(skip, 1)?;
        let _pair = fallen_pair(ctx, &listener, who, ERR_REGBUF).during(&what)?;
        check_eq!(fault.hits()?, 1, "{what}: failed requests");
        drop(fault);
        check_eq!(
            tap.only_decline().during(&what)?,
            (who, ERR_REGBUF),
            "{what}"
        );
        echo(&open[0], b"the link is as before").during(&what)?;
        open.push(ctx.pair().during(&what)?);
    }
    prove_by_queue_pairs(ctx)
}

/// A device that has no memory region left refuses all connections of a link group, which goes on. As long as it does, nothing may
/// stay of them: they are as many as the clients like.
fn nothing_stays(ctx: &Ctx) -> Outcome {
    const HALF: usize = 50;
    const ALL: u32 = i32::MAX as u32;
    fresh(ctx)?;
    let listener = ctx.listener(8)?;
    let lives = ctx.pair()?;
    echo(&lives, b"a link group")?;
    let fault = Fault::new("ib_alloc_mr", -12, 0, ALL)?;
    let refused = |many| -> Outcome<Memory> {
        for number in 0..many {
            fallen_pair(ctx, &listener, Host::B, MEM).during(&format!("connection {number}"))?;
        }
        Memory::now()
    };
    let [first, middle, last] = [refused(5)?, refused(HALF)?, refused(HALF)?];
    // Memory for rings, which is let go, in more than one size.
    check!(fault.hits()? as usize > 4 * HALF, "regions refused");
    drop(fault);
    Memory::compare([&first, &middle, &last], 2 * HALF)?;
    echo(&lives, b"the link group is as before")?;
    echo(&ctx.pair()?, b"nothing fails any more")?;
    prove_by_queue_pairs(ctx)
}

/// The server has seen the end of its connections and has room; the client has not closed yet.
fn client_table_full(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let small = [
        Changed::new(&Host::BOTH, "wmem", 16384)?,
        Changed::new(&Host::BOTH, "rmem", 16384)?,
    ];
    let tap = Wiretap::new()?;
    let listener = ctx.listener(64)?;
    let mut clients = Vec::new();
    for _ in 0..255 {
        let Pair { client, server } = ctx.pair_from(&listener.0, listener.1)?;
        server.set_linger(Some(0))?;
        clients.push(client);
        drop(server);
    }
    for client in &clients {
        client.await_events(libc::POLLHUP)?;
    }
    check_eq!(tap.declines()?, vec![], "Declines so far");
    let _pair = fallen_pair(ctx, &listener, Host::A, INTERR)?;
    check_eq!(tap.only_decline()?, (Host::A, INTERR), "a full table");
    drop(clients);
    drop(small);
    prove_by_queue_pairs(ctx)?;
    echo(&ctx.pair()?, b"room again")
}

/// Where there is no memory for large rings there are smaller ones.
fn smaller_rings(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let large = [
        Changed::new(&Host::BOTH, "wmem", 1 << 20)?,
        Changed::new(&Host::BOTH, "rmem", 1 << 20)?,
    ];
    // With the device's own memory, so that only rings are allocated from here on.
    let (listener, address) = ctx.listener(8)?;
    let first = ctx.pair_from(&listener, address)?;
    let send = |sock: &Sock| sock.get(libc::SOL_SOCKET, libc::SO_SNDBUF);
    let receive = |sock: &Sock| sock.get(libc::SOL_SOCKET, libc::SO_RCVBUF);
    let all = 2 * 524_288;
    check_eq!(
        (send(&first.server)?, receive(&first.server)?),
        (all, all),
        "sizes with memory"
    );
    // The small ring that the server's send buffer begins with is the first. Then three sizes fail, the fourth is taken.
    let fault = Fault::new("rust_helper_alloc_pages", 0, 1, 3)?;
    let second = ctx.pair_from(&listener, address)?;
    check_eq!(fault.hits()?, 3, "allocations that failed");
    drop(fault);
    check_eq!(receive(&second.server)?, 2 * 65_536, "SO_RCVBUF without");
    check_eq!(receive(&second.client)?, all, "SO_RCVBUF of the client");
    // The same for a send buffer, once that is used.
    let mut room = [0; 20_000];
    check_eq!(send(&second.client)?, all, "SO_SNDBUF before");
    let fault = Fault::new("rust_helper_alloc_pages", 0, 0, 3)?;
    second.client.send_all(&[7; 20_000])?;
    second.server.recv_all(&mut room)?;
    check_eq!(fault.hits()?, 3, "allocations that failed");
    drop(fault);
    check_eq!(send(&second.client)?, 2 * 65_536, "SO_SNDBUF without");
    // No memory at all: from 512 KiB to 8 KiB. It does with the ring that it has.
    let fault = Fault::new("rust_helper_alloc_pages", 0, 0, 7)?;
    let writer = second.server.dup()?;
    let thread = std::thread::spawn(move || writer.send_all(&[9; 20_000]).during("the writer"));
    second.client.recv_all(&mut room)?;
    join(thread)?;
    check_eq!(fault.hits()?, 7, "allocations that failed");
    drop(fault);
    check_eq!(room, [9; 20_000], "what came by the small ring");
    stream(ctx, second, 1_000_000).during("smaller rings")?;
    drop(large);
    prove_by_queue_pairs(ctx)
}

/// The calling thread on a processor that it shares with the module's work items, before whom it runs as soon as it can: so it is
/// in its next call before the item that has woken it returns.
struct Hasty {
    cpus_of_items: String,
    cpus: libc::cpu_set_t,
}

impl Hasty {
    const CPUS: &'static str = "/sys/devices/virtual/workqueue/cpumask";

    fn new() -> Outcome<Hasty> {
        // SAFETY: all zeroes is no processor.
        let (mut first, mut cpus): (libc::cpu_set_t, libc::cpu_set_t) =
            unsafe { std::mem::zeroed() };
        // SAFETY: `cpus` is live.
        sys::cvt(unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus) })?;
        let hasty = Hasty {
            cpus_of_items: sys::read_file(Self::CPUS)?,
            cpus,
        };
        sys::write_file(Self::CPUS, "1")?;
        // SAFETY: there is a first one.
        unsafe { libc::CPU_SET(0, &mut first) };
        Self::set(&first, libc::SCHED_FIFO, 1)?;
        Ok(hasty)
    }

    fn set(cpus: &libc::cpu_set_t, policy: i32, priority: i32) -> std::io::Result<()> {
        // SAFETY: `cpus` is live.
        sys::cvt(unsafe { libc::sched_setaffinity(0, size_of_val(cpus), cpus) })?;
        let param = libc::sched_param {
            sched_priority: priority,
        };
        // SAFETY: `param` is live.
        sys::cvt(unsafe { libc::sched_setscheduler(0, policy, &raw const param) })?;
        Ok(())
    }
}

impl Drop for Hasty {
    fn drop(&mut self) {
        let put_back = Self::set(&self.cpus, libc::SCHED_OTHER, 0)
            .and_then(|()| sys::write_file(Self::CPUS, self.cpus_of_items.trim()));
        if let Err(error) = put_back {
            eprintln!("# {error}");
        }
    }
}

/// A client that falls back is closed while the work item of its handshake has not returned yet: when close() has, so has TCP's
/// socket ended, and its port is free.
fn closed_at_once(ctx: &Ctx) -> Outcome {
    const ROUNDS: usize = 50;
    fresh(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    listener.set_nonblocking(true)?;
    let port = ctx.own_port()?;
    rig::run(&format!("rdma link del {}", Host::B.rdma_device()))?;
    let outcome = (|| -> Outcome {
        let _hasty = Hasty::new()?;
        for round in 0..ROUNDS {
            let client = ctx.socket(Host::A)?;
            client
                .bind(Host::A.address(ctx.kind, port))
                .during(&format!("bind() after {round} rounds"))?;
            // There is no TIME_WAIT after a reset.
            client.set_linger(Some(0))?;
            client.connect(address)?;
            drop(client);
            // There is to be room for the next ones.
            while listener.accept().is_ok() {}
        }
        Ok(())
    })();
    rig::rdma_device_add(Host::B)?;
    outcome?;
    drop(listener);
    echo(&ctx.pair()?, b"with a device")?;
    prove_by_queue_pairs(ctx)
}

/// Where the hook that answers to the option cannot be registered, a listener is one of TCP: listen() does not fail.
fn listener_without_hook(ctx: &Ctx) -> Outcome {
    // A namespace of its own each time, where the hook is not left from another one.
    const APART: &str = "C";
    let _ = rig::run(&format!("ip netns del {APART}"));
    for (error, reason) in [(-12, MEM), (-17, INTERR)] {
        rig::run(&format!("ip netns add {APART}"))?;
        rig::run(&format!("ip -n {APART} link set lo up"))?;
        let outcome = sys::enter_named(APART)
            .map_err(Fail::from)
            .and_then(|()| without_hook(ctx, error, reason));
        sys::leave()?;
        rig::run(&format!("ip netns del {APART}"))?;
        outcome.during(&format!("error {error}"))?;
    }
    Ok(())
}

/// In the calling thread's namespace, where the first registration gives `error`.
fn without_hook(ctx: &Ctx, error: i64, reason: u32) -> Outcome {
    let (family, protocol) = ctx.kind.arguments();
    let listener = || -> Outcome<Sock> {
        let sock = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
        sock.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        sock.listen(4).during("listen()")?;
        Ok(sock)
    };
    let converse = |listener: &Sock| -> Outcome<Sock> {
        let client = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
        client.connect(listener.local()?)?;
        let server = listener.accept()?;
        client.send_all(b"x")?;
        server.recv_all(&mut [0; 1])?;
        Ok(server)
    };
    let fault = Fault::new("nf_register_net_hooks", error, 0, 1)?;
    let plain = listener().during("without the hook")?;
    check_eq!(fault.hits()?, 1, "refused registrations");
    drop(fault);
    check_eq!(
        mode::fallback_reason(&plain)?,
        reason,
        "the listener's reason"
    );
    // The client has the hook, and TCP accepts it.
    let server = converse(&plain)?;
    check!(
        crate::diag::of(&server)?.is_none(),
        "a listener of TCP has accepted an SMC socket"
    );
    // Both sides have seen the option, and the client says that it has no device over loopback.
    let server = converse(&listener()?).during("with the hook")?;
    check_eq!(
        mode::fallback_reason(&server)?,
        PEERDECL,
        "reason where the hook is there"
    );
    Ok(())
}

/// A client whose server does not answer its Proposal connects anew, from the same port; where that fails at once, the port is
/// not its own: it can be bound.
fn no_second_try(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    // It connects, dissolves the connection, and connects.
    let fault = Fault::new("__inet_stream_connect", -101, 2, 1)?;
    let kind = ctx.kind;
    let client = std::thread::spawn(move || -> Outcome<Sock> {
        let client = Sock::new(Host::B, kind, 0)?;
        check_errno!(client.connect(address), libc::ENETUNREACH, "connect()");
        Ok(client)
    });
    let mut peer = listening.accept()?;
    peer.receive(sys::PATIENCE)?;
    // This resets it.
    drop(peer);
    let client = join(client)?;
    check_eq!(fault.hits()?, 1, "failed second tries");
    drop(fault);
    client.bind(Host::B.address(kind, 0)).during("bind()")?;
    let (listener, address) = ctx.listener(8)?;
    drop(client);
    others_are_served(ctx, &listener, address)
}
