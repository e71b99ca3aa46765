//! A peer that says wrong things in the handshake. Whatever it says: an error or a fallback for
//! this one connection, nothing else.

use super::link::{fresh, prove_by_queue_pairs};
use super::raw::{self, RawPeer, Refusing};
use super::{join, once};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Test};
use crate::sys::Sock;
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::{Rng, RngCore};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub const TESTS: [Test; 10] = [
    once("hostile.option_is_negotiated", 60, option_is_negotiated),
    once("hostile.garbage_to_server", 300, garbage_to_server),
    once("hostile.truncated_to_server", 300, truncated_to_server),
    once("hostile.mutated_proposal", 600, mutated_proposal),
    once("hostile.garbage_to_client", 300, garbage_to_client),
    once("hostile.damaged_and_used", 60, damaged_and_used),
    once("hostile.ended_and_reset", 120, ended_and_reset),
    once("hostile.silent_server", 200, silent_server),
    once("hostile.server_goes_away", 120, server_goes_away),
    once("hostile.silent_clients", 200, silent_clients),
];

pub(super) const EYE: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];
pub(super) const PROPOSAL: u8 = 1;
const ACCEPT: u8 = 2;
pub(super) const DECLINE: u8 = 4;

static PORTS_TAKEN: AtomicU16 = AtomicU16::new(0);

/// A port of the raw peer that this test has not used, and the tests before it probably have not.
pub(super) fn next_port() -> u16 {
    let first = std::process::id().wrapping_mul(100) % 20_000;
    10_000 + first as u16 + PORTS_TAKEN.fetch_add(1, Ordering::Relaxed)
}

/// Everybody else is served as before.
pub(super) fn others_are_served(ctx: &Ctx, listener: &Sock, address: SocketAddr) -> Outcome {
    // Connections of the raw peer that became plain TCP may be in the queue: drain them.
    let client = ctx.connect(address).during("a good client")?;
    let local = client.local()?;
    let server = loop {
        match listener.accept_from(0) {
            Ok((server, from)) if from == local => break server,
            // A raw peer's connection: it became plain TCP, or is broken already (accept(2)).
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            Err(error) => return Err(error).during("accept() of a good client"),
        }
    };
    ctx.prove(Host::A, &client)?;
    client.send_all(b"well?")?;
    let mut got = [0; 5];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"well?", "what a good client sent");
    Ok(())
}

/// A CLC message with a header that is right and a body that is not.
pub(super) fn message(kind: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let length = (8 + body.len() + 4) as u16;
    let mut all = EYE.to_vec();
    all.push(kind);
    all.extend_from_slice(&length.to_be_bytes());
    all.push(version << 4);
    all.extend_from_slice(body);
    all.extend_from_slice(&EYE);
    all
}

/// The first message of a genuine client of host B.
pub(super) fn genuine_proposal(ctx: &Ctx) -> Outcome<Vec<u8>> {
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let client = Sock::new(Host::B, ctx.kind, libc::SOCK_NONBLOCK)?;
    // Its outcome does not matter here.
    client.connect(address).err();
    let mut peer = listening.accept()?;
    check!(
        peer.peer_offers_smc,
        "the client's SYN carries no SMC option"
    );
    let proposal = peer.receive(Duration::from_secs(20))?;
    check!(
        proposal.len() >= 12 && proposal[..4] == EYE && proposal[4] == PROPOSAL,
        "the client's first bytes are no CLC proposal: {proposal:02x?}"
    );
    Ok(proposal)
}

fn option_is_negotiated(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    let peer = RawPeer::connect(next_port(), address)?;
    check!(
        peer.peer_offers_smc,
        "the SYN-ACK of an SMC listener carries no SMC option"
    );
    drop(peer);
    genuine_proposal(ctx)?;
    // A plain listener must not offer what it cannot do.
    let (plain, plain_address) = ctx.with_kind(Kind::Tcp4).listener(8)?;
    let peer = RawPeer::connect(next_port(), plain_address)?;
    check!(
        !peer.peer_offers_smc,
        "the SYN-ACK of a plain TCP listener carries the SMC option"
    );
    drop(plain);
    others_are_served(ctx, &listener, address)
}

fn garbage_to_server(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(64)?;
    let mut random = ctx.random(91);
    for round in 0..30 {
        let mut bytes = vec![0; random.gen_range(1..300)];
        random.fill_bytes(&mut bytes);
        let said = match round % 5 {
            0 => bytes,
            // The eyecatcher is right, nothing else.
            1 => [EYE.as_slice(), &bytes].concat(),
            2 => message(PROPOSAL, random.gen_range(0..4), &bytes),
            // A message that is not the client's to send first.
            3 => message(random.gen_range(2..=255), random.gen_range(1..3), &bytes),
            // A length that is far from the truth.
            _ => {
                let mut message = message(PROPOSAL, 1, &bytes);
                message[5..7]
                    .copy_from_slice(&[0u16, 7, 8, 12, 4095, u16::MAX][round / 5].to_be_bytes());
                message
            }
        };
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&said)?;
        peer.receive(Duration::from_millis(300))?;
    }
    others_are_served(ctx, &listener, address)
}

fn truncated_to_server(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let proposal = genuine_proposal(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let mut cuts: Vec<usize> = vec![
        0,
        1,
        4,
        7,
        8,
        9,
        12,
        proposal.len() / 2,
        proposal.len() - 4,
        proposal.len() - 1,
    ];
    cuts.dedup();
    for cut in cuts {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal[..cut])?;
        peer.finish()?;
        peer.receive(Duration::from_millis(300))?;
    }
    others_are_served(ctx, &listener, address)
}

/// A genuine proposal with a few bytes changed, many times.
fn mutated_proposal(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let proposal = genuine_proposal(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let mut random = ctx.random(92);
    for round in 1..=(200 / ctx.divisor).max(20) {
        let mut said = proposal.clone();
        for _ in 0..random.gen_range(1..5) {
            let at = random.gen_range(5..said.len());
            said[at] = *[0, 1, 0x7f, 0x80, 0xff, random.gen()]
                .get(random.gen_range(0..6))
                .unwrap_or(&0);
        }
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&said)?;
        // The answer, an accept or a decline, goes to somebody who does not go on.
        peer.receive(Duration::from_millis(200))?;
        // Broken connections wait for accept() like good ones; the queue shall not overflow.
        if round % 20 == 0 {
            others_are_served(ctx, &listener, address)?;
        }
    }
    others_are_served(ctx, &listener, address)
}

/// What a client makes of a server that answers its proposal with `answer`.
fn client_against(ctx: &Ctx, answer: &[u8], then_finish: bool) -> Outcome<std::io::Result<()>> {
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let kind = ctx.kind;
    let thread = std::thread::spawn(move || -> Outcome<std::io::Result<()>> {
        let client = Sock::new(Host::B, kind, 0)?;
        Ok(client.connect(address))
    });
    let mut peer = listening.accept()?;
    peer.receive(Duration::from_secs(20))?;
    peer.send(answer)?;
    if then_finish {
        peer.finish()?;
    }
    // It goes on until the client has made up its mind; one that tries once more without SMC is refused.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !thread.is_finished() && !peer.reset && std::time::Instant::now() < end {
        peer.receive(Duration::from_millis(200))?;
    }
    Refusing::new(address.port())?
        .until(|| thread.is_finished())
        .during(&format!("after the answer {answer:02x?}"))?;
    join(thread)
}

fn garbage_to_client(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let mut random = ctx.random(93);
    for round in 0..24 {
        let mut bytes = vec![0; random.gen_range(1..300)];
        random.fill_bytes(&mut bytes);
        let answer = match round % 6 {
            0 => bytes,
            1 => [EYE.as_slice(), &bytes].concat(),
            2 => message(ACCEPT, 1, &bytes),
            3 => message(ACCEPT, 2, &bytes),
            4 => message(random.gen_range(0..=255), random.gen_range(0..4), &bytes),
            _ => {
                // An accept of the right size, cut short.
                let mut message = message(ACCEPT, 1, &[0; 56]);
                message.truncate(random.gen_range(8..68));
                message
            }
        };
        // Any outcome is right that comes to an end.
        client_against(ctx, &answer, true)?.err();
    }
    // A server that declines properly is a fallback: the connection works as TCP.
    let decline = message(DECLINE, 1, &[0; 16]);
    client_against(ctx, &decline, false)?.during("connect() to a server that declines")?;
    let (listener, address) = ctx.listener(8)?;
    others_are_served(ctx, &listener, address)
}

/// A socket whose handshake was damaged leads nowhere: not into the TCP stream in which that was.
fn damaged_and_used(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let client = Sock::new(Host::B, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    let mut peer = listening.accept()?;
    peer.receive(Duration::from_secs(20))?;
    peer.send(&[EYE.as_slice(), &[0xff; 60]].concat())?;
    // The server stays, and TCP with it.
    client.await_events(libc::POLLOUT | libc::POLLERR)?;
    check!(client.error()? != 0, "the handshake succeeded");
    if let Ok(count) = client.recv(&mut [0; 64], 0) {
        check_eq!(count, 0, "bytes of the handshake that recv() gives");
    }
    check_errno!(
        client.send(b"lost", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send()"
    );
    check_errno!(client.peer(), libc::ENOTCONN, "getpeername()");
    // As after every failure the next one tells of it; it does not find that connection.
    check_errno!(
        client.connect(address),
        libc::ECONNABORTED,
        "connect() again"
    );
    Ok(())
}

/// A server that ends the connection in the middle of the handshake, and resets it: TCP tells of that by another error than
/// the handshake does, and the program gets one of the two, once.
fn ended_and_reset(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    // In a link group connect() is done with the Confirm.
    fresh(ctx)?;
    let (listener, server) = ctx.listener(8)?;
    // It takes luck that TCP has seen both before the client looks.
    for _ in 0..20 {
        let listening = RawPeer::listen(next_port())?;
        let address = listening.address();
        let client = Sock::new(Host::B, ctx.kind, libc::SOCK_NONBLOCK)?;
        check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
        let mut to_client = listening.accept()?;
        let mut to_server = RawPeer::connect(next_port(), server)?;
        let patience = Duration::from_secs(20);
        to_server.send(&to_client.receive(patience)?)?;
        to_client.send(&to_server.receive(patience)?)?;
        let confirm = to_client.receive(patience)?;
        check!(!confirm.is_empty(), "the client does not confirm");
        to_client.finish()?;
        drop(to_client);
        client.await_events(libc::POLLOUT | libc::POLLERR)?;
        check_eq!(client.error()?, libc::ECONNRESET, "SO_ERROR");
        let events = client.poll(!0, Duration::ZERO)?;
        check_eq!(events & libc::POLLERR, 0, "another error in {events:#x}");
        check_errno!(
            client.connect(address),
            libc::ECONNABORTED,
            "connect() again"
        );
    }
    others_are_served(ctx, &listener, server)?;
    prove_by_queue_pairs(ctx)
}

/// A server that never answers: the handshake's own time limit ends it.
fn silent_server(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    client_against(ctx, &[], false)?.err();
    let (listener, address) = ctx.listener(8)?;
    others_are_served(ctx, &listener, address)
}

/// A server that resets the connection instead of an answer.
fn server_goes_away(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let kind = ctx.kind;
    let thread = std::thread::spawn(move || -> Outcome<std::io::Result<()>> {
        let client = Sock::new(Host::B, kind, 0)?;
        Ok(client.connect(address))
    });
    let mut peer = listening.accept()?;
    peer.receive(Duration::from_secs(20))?;
    drop(peer);
    // It comes again without SMC, to a host where nobody listens any more.
    Refusing::new(address.port())?.until(|| thread.is_finished())?;
    check_errno!(
        join(thread)?,
        libc::ECONNREFUSED,
        "connect() to a server that is gone"
    );
    let (listener, address) = ctx.listener(8)?;
    others_are_served(ctx, &listener, address)
}

/// More than the handshakes that can be under way at once in the module.
const CROWD: u16 = 1_100;

/// Clients that offer SMC and then say nothing, on one listener: neither that one nor others are held up.
fn silent_clients(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (crowded, address) = ctx.listener(i32::from(CROWD) * 2)?;
    let first = next_port();
    let mut negotiated = 0;
    for number in 0..CROWD {
        let peer = RawPeer::connect(first.wrapping_add(number), address)?;
        negotiated += u32::from(peer.peer_offers_smc);
        peer.vanish();
    }
    check!(
        negotiated > 500,
        "only {negotiated} of {CROWD} silent clients were taken for clients that speak SMC"
    );
    let (other, elsewhere) = ctx.listener(8)?;
    for (listener, address) in [(&crowded, address), (&other, elsewhere)] {
        let ctx = ctx.unasked();
        others_are_served(&ctx, listener, address)?;
    }
    drop((crowded, other));
    // And once they are gone everything is as before.
    crate::sys::eventually("connections go by RDMA again", || {
        let pair = ctx.unasked().pair()?;
        Ok(mode::of(&pair.client)? == Mode::Rdma)
    })?;
    let (listener, address) = ctx.listener(8)?;
    others_are_served(ctx, &listener, address)
}
