//! The handshake of SMC (CLC messages) as a broken or hostile peer, or somebody in between, does it.
//! Continues `hostile`: here the messages are genuine ones, relayed between a genuine client and a
//! genuine server, and wrong in one place.

use super::decline::{client_to_raw, genuine_handshake, new_peer_id, PEER_ID, QUEUE_PAIR};
use super::hostile::{self, next_port, others_are_served, DECLINE, EYE};
use super::link::{echo, fresh, prove_by_queue_pairs, queue_pairs};
use super::raw::{self, RawPeer, Refusing};
use super::{join, once};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use rand::Rng;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 11] = [
    once("clc.relayed", 120, relayed),
    once("clc.in_small_pieces", 120, in_small_pieces),
    once("clc.every_truncation", 200, every_truncation),
    once("clc.silence", 200, silence),
    once(
        "clc.half_done_keeps_nobody_waiting",
        300,
        half_done_keeps_nobody_waiting,
    ),
    once("clc.twice", 300, twice),
    once("clc.plain_words", 200, plain_words),
    once("clc.decline_then_data", 200, decline_then_data),
    once("clc.wrong_fields", 600, wrong_fields),
    once("clc.random_changes", 600, random_changes),
    once("clc.peer_goes_at_any_step", 300, peer_goes_at_any_step),
];

/// A step of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Proposal,
    Accept,
    Confirm,
}

/// How a relayed handshake ended.
pub(super) struct Relayed {
    pub(super) outcome: std::io::Result<Sock>,
    pub(super) to_client: RawPeer,
    pub(super) to_server: RawPeer,
}

fn dial(kind: Kind, address: SocketAddr) -> JoinHandle<Outcome<std::io::Result<Sock>>> {
    std::thread::spawn(move || -> Outcome<std::io::Result<Sock>> {
        let client = Sock::new(Host::B, kind, 0)?;
        client.set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(500))?;
        client.set_timeout(libc::SO_SNDTIMEO, Duration::from_secs(20))?;
        Ok(client.connect(address).map(|()| client))
    })
}

/// A client of host B and a server of host B shake hands through a raw peer, which may change each
/// message, or send it in pieces of `piece` bytes. None in `change`: the raw peer goes away.
pub(super) fn relay(
    ctx: &Ctx,
    server: SocketAddr,
    piece: usize,
    mut change: impl FnMut(Step, Vec<u8>) -> Option<Vec<u8>>,
) -> Outcome<Option<Relayed>> {
    let listening = RawPeer::listen(next_port())?;
    let client = dial(ctx.kind, listening.address());
    let mut to_client = listening.accept()?;
    let mut to_server = RawPeer::connect(next_port(), server)?;
    let patience = Duration::from_secs(10);
    let mut alive = true;
    for step in [Step::Proposal, Step::Accept, Step::Confirm] {
        let (from, to) = match step {
            Step::Accept => (&mut to_server, &mut to_client),
            _ => (&mut to_client, &mut to_server),
        };
        let message = from.receive(patience)?;
        if message.is_empty() {
            break;
        }
        let Some(message) = change(step, message) else {
            alive = false;
            break;
        };
        for part in message.chunks(piece) {
            to.send(part)?;
        }
        to.flush()?;
    }
    if !alive {
        let mut gone = Refusing::new(to_client.address().port())?;
        drop((to_client, to_server));
        gone.until(|| client.is_finished())?;
        return Ok(None);
    }
    // What comes now is a Decline, or nothing.
    let end = Instant::now() + Duration::from_secs(60);
    while !client.is_finished() {
        check!(Instant::now() < end, "connect() through the relay hangs");
        let said = to_client.receive(Duration::from_millis(20))?;
        to_server.send(&said)?;
        let said = to_server.receive(Duration::from_millis(20))?;
        to_client.send(&said)?;
        if to_server.finished || to_server.reset {
            to_client.finish()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        if to_client.reset {
            // The client comes again without SMC, if at all.
            Refusing::new(to_client.address().port())?.until(|| client.is_finished())?;
        }
    }
    Ok(Some(Relayed {
        outcome: join(client)?,
        to_client,
        to_server,
    }))
}

/// Accepts whatever there is, so that the listener's queue has room.
fn drain(listener: &Sock) -> Outcome<Vec<Sock>> {
    let mut all = Vec::new();
    while listener.poll(libc::POLLIN, Duration::ZERO)? != 0 {
        if let Ok(sock) = listener.accept() {
            all.push(sock);
        }
    }
    Ok(all)
}

fn works_by_rdma(ctx: &Ctx, listener: &Sock, relayed: Relayed) -> Outcome {
    let client = relayed.outcome.during("connect() through the relay")?;
    listener
        .await_events(libc::POLLIN)
        .during("the connection at the server, whose client has it")?;
    let server = listener.accept()?;
    ctx.prove(Host::B, &client)?;
    ctx.prove(Host::B, &server)?;
    client.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(30))?;
    let pair = Pair { client, server };
    echo(&pair, b"not seen by the relay")?;
    for mut peer in [relayed.to_client, relayed.to_server] {
        let seen = peer.receive(Duration::from_millis(200))?;
        check!(seen.is_empty(), "data went through the relay: {seen:02x?}");
    }
    Ok(())
}

fn relayed(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    // First contact, and the link group's second connection.
    for _ in 0..2 {
        let relayed = relay(ctx, address, 9000, |_, message| Some(message))?;
        works_by_rdma(ctx, &listener, relayed.ok_or(Fail("no outcome".into()))?)?;
    }
    Ok(())
}

fn in_small_pieces(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    for piece in [1, 7, 9] {
        let relayed = relay(ctx, address, piece, |_, message| Some(message))?;
        works_by_rdma(ctx, &listener, relayed.ok_or(Fail("no outcome".into()))?)
            .during(&format!("pieces of {piece} bytes"))?;
    }
    Ok(())
}

/// Every part of a proposal, and then the end of the stream.
fn every_truncation(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let healthy = ctx.pair()?;
    let proposal = hostile::genuine_proposal(ctx)?;
    let (listener, address) = ctx.listener(512)?;
    for cut in 0..proposal.len() {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal[..cut])?;
        peer.finish()?;
        if cut % 16 == 0 {
            echo(&healthy, b"healthy")?;
        }
        peer.receive(Duration::from_millis(30))?;
    }
    others_are_served(ctx, &listener, address)
}

/// Peers that stop in the middle of the handshake hold nobody up, and are given up in the end.
fn silence(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let proposal = hostile::genuine_proposal(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let mut peers = Vec::new();
    for cut in [0, 1, 7, 8, 9, proposal.len() - 1] {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal[..cut])?;
        peers.push((cut, peer));
    }
    // They are served now, not after the others' time.
    others_are_served(ctx, &listener, address)?;
    // Too little to tell: it may be a program's own words, or its silence. It is TCP now.
    let mut plain: Vec<_> = peers.iter_mut().filter(|(cut, _)| *cut < HEADER).collect();
    for _ in 0..plain.len() {
        // They time out at the same moment, so any of them may be the first.
        listener
            .await_events(libc::POLLIN)
            .during("a fallback in time")?;
        let (server, from) = listener.accept_from(0)?;
        let (cut, peer) = plain
            .iter_mut()
            .find(|(_, peer)| peer.address() == from)
            .ok_or(Fail(format!("{from} is none of the silent peers")))?;
        let mut got = vec![0; *cut];
        server.recv_all(&mut got)?;
        check_eq!(
            got,
            proposal[..*cut],
            "what {from} said before it was silent"
        );
        server.send_all(b"are you there?")?;
        check_eq!(
            peer.receive(sys::PATIENCE)?,
            b"are you there?",
            "what {from} received"
        );
    }
    // RFC 7609, section 3.5.1.6: no answer in time.
    for (cut, peer) in peers.iter_mut().filter(|(cut, _)| *cut >= HEADER) {
        let end = Instant::now() + Duration::from_secs(60);
        while !peer.finished && !peer.reset {
            check!(
                Instant::now() < end,
                "after {cut} bytes and silence the server waits for ever"
            );
            peer.receive(Duration::from_millis(500))?;
        }
    }
    others_are_served(ctx, &listener, address)
}

/// How far a handshake gets before its peer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// The server has sent its Accept.
    Accepted,
    /// The server has the Confirm, too, and waits for the answer to its CONFIRM LINK.
    Confirmed,
    /// The client has sent its Proposal.
    Proposed,
    /// The client has the Accept, too, and waits for CONFIRM LINK.
    Answered,
}

/// A handshake of host B that is half done.
struct HalfDone {
    peer: RawPeer,
    /// Where host B has the client.
    client: Option<JoinHandle<Outcome<std::io::Result<Sock>>>>,
}

impl HalfDone {
    /// With a host that nobody has seen. `messages`: Proposal, Accept and Confirm of that one.
    fn new(ctx: &Ctx, half: Half, server: SocketAddr, messages: &[Vec<u8>; 3]) -> Outcome<Self> {
        let [proposal, accept, confirm] = messages;
        if matches!(half, Half::Proposed | Half::Answered) {
            let (mut peer, client) = client_to_raw(ctx)?;
            if half == Half::Answered {
                peer.send(accept)?;
                let answer = peer.receive(sys::PATIENCE)?;
                check!(
                    answer.len() == confirm.len() && answer[4] == 3,
                    "the answer to a good Accept is no Confirm: {answer:02x?}"
                );
            }
            let client = Some(client);
            return Ok(HalfDone { peer, client });
        }
        let mut peer = RawPeer::connect(next_port(), server)?;
        peer.send(proposal)?;
        let answer = peer.receive(sys::PATIENCE)?;
        check!(
            answer.len() == accept.len() && answer[4] == 2,
            "the answer to a good Proposal is no Accept: {answer:02x?}"
        );
        if half == Half::Confirmed {
            peer.send(confirm)?;
            peer.flush()?;
        }
        Ok(HalfDone { peer, client: None })
    }

    /// Whether host B still waits for the rest of it.
    fn is_undecided(&mut self) -> Outcome<bool> {
        let said = self.peer.receive(Duration::from_millis(50))?;
        let ended = self.client.as_ref().is_some_and(JoinHandle::is_finished);
        Ok(said.is_empty() && !self.peer.finished && !self.peer.reset && !ended)
    }

    /// The peer goes, and nobody waits for it any more.
    fn end(self) -> Outcome {
        let port = self.peer.address().port();
        drop(self.peer);
        match self.client {
            // It comes again without SMC.
            Some(client) => Refusing::new(port)?.until(|| client.is_finished()),
            None => Ok(()),
        }
    }
}

/// A handshake that is half done holds up no handshake with another peer, at either side.
fn half_done_keeps_nobody_waiting(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (accept, confirm) = genuine_handshake(ctx)?;
    let genuine = [hostile::genuine_proposal(ctx)?, accept, confirm];
    let (listener, address) = ctx.listener(8)?;
    let halves = [
        Half::Accepted,
        Half::Confirmed,
        Half::Proposed,
        Half::Answered,
    ];
    for (number, half) in (500..).zip(halves) {
        let mut messages = genuine.clone();
        let peer_id = new_peer_id(ctx, number);
        for message in &mut messages {
            message[PEER_ID].copy_from_slice(&peer_id);
        }
        for message in &mut messages[1..] {
            message[QUEUE_PAIR].copy_from_slice(&[0, 0xff, 0xfe]);
        }
        passes_by(ctx, half, &(&listener, address), &messages).during(&format!("{half:?}"))?;
    }
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// A first contact begins and ends while that one is half done.
fn passes_by(
    ctx: &Ctx,
    half: Half,
    (listener, address): &(&Sock, SocketAddr),
    messages: &[Vec<u8>; 3],
) -> Outcome {
    // On a slow machine its time may be up before the other one has begun.
    for round in 0..4 {
        fresh(ctx)?;
        let mut waiting = HalfDone::new(ctx, half, *address, messages)?;
        check_eq!(
            queue_pairs(Host::A)?,
            0,
            "queue pairs of host A before its first contact"
        );
        let pair = if waiting.client.is_some() {
            let pair = ctx.pair_the_other_way()?;
            ctx.prove(Host::B, &pair.client)?;
            ctx.prove(Host::A, &pair.server)?;
            pair
        } else {
            ctx.pair_from(listener, *address)?
        };
        echo(&pair, b"another peer")?;
        let passed = waiting.is_undecided()?;
        waiting.end()?;
        while listener.poll(libc::POLLIN, Duration::ZERO)? != 0 {
            // What is left of the half-done one.
            listener.accept().err();
        }
        if passed {
            return Ok(());
        }
        println!(
            "# {half:?}, round {round}: it was given up before the other one had begun and ended"
        );
    }
    Err(Fail(
        "no first contact came to its end before the half-done one was given up".into(),
    ))
}

/// What must come of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Rdma,
    Error,
    /// Depends on whether the link is confirmed before the message is seen.
    RdmaOrError,
}

/// A message comes twice: where another one is due that is an error; where none is due any more nobody reads it, least
/// of all the program.
fn twice(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    for (there, step, due) in [
        (false, Step::Proposal, Due::Error),
        (false, Step::Accept, Due::Error),
        (false, Step::Confirm, Due::RdmaOrError),
        (true, Step::Proposal, Due::Error),
        (true, Step::Accept, Due::Rdma),
        (true, Step::Confirm, Due::Rdma),
    ] {
        let what = if there {
            format!("{step:?} twice in a link group")
        } else {
            format!("{step:?} twice at first contact")
        };
        fresh(ctx)?;
        if there {
            let relayed = relay(ctx, address, 9000, |_, message| Some(message))?;
            works_by_rdma(ctx, &listener, relayed.ok_or(Fail("no outcome".into()))?)
                .during("the link group")?;
        }
        let healthy = ctx.pair()?;
        let mut doubled = 0;
        let relayed = relay(ctx, address, 9000, |now, message| {
            Some(if now == step {
                doubled += 1;
                message.repeat(2)
            } else {
                message
            })
        })
        .during(&what)?
        .ok_or(Fail("no outcome".into()))?;
        check_eq!(doubled, 1, "times that a {step:?} was said twice");
        let by_rdma = match due {
            Due::Rdma => true,
            Due::Error => false,
            Due::RdmaOrError => relayed.outcome.is_ok(),
        };
        println!("# {what}: {}", if by_rdma { "RDMA" } else { "an error" });
        if by_rdma {
            works_by_rdma(ctx, &listener, relayed).during(&what)?;
        } else {
            comes_to_nothing(&listener, relayed, there).during(&what)?;
        }
        echo(&healthy, b"healthy").during(&what)?;
    }
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// Neither program gets a connection of use, or a byte. In a link group the client may have it before the server sees what is wrong.
fn comes_to_nothing(listener: &Sock, relayed: Relayed, there: bool) -> Outcome {
    let Relayed {
        outcome,
        to_client,
        mut to_server,
    } = relayed;
    let end = Instant::now() + sys::PATIENCE;
    while there && !to_server.finished && !to_server.reset {
        check!(Instant::now() < end, "the server keeps the connection");
        let said = to_server.receive(Duration::from_millis(100))?;
        check!(said.is_empty(), "the server says {said:02x?}");
    }
    drop((to_client, to_server));
    match outcome {
        Ok(client) => {
            check!(there, "connect() has succeeded at first contact");
            client.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(30))?;
            check_errno!(
                client.recv(&mut [0; 512], 0),
                libc::ECONNRESET,
                "recv() of the client"
            );
        }
        // The end may come before connect() has returned on a slow machine: then connect() tells of it.
        refused if there => {
            check_errno!(refused, libc::ECONNRESET, "connect()");
            println!("# connect() itself has told of the end");
        }
        Err(_) => {}
    }
    // Long enough for a server that is still about to give up.
    while listener.poll(libc::POLLIN, Duration::from_secs(8))? != 0 {
        match listener.accept() {
            Ok(server) => check_errno!(
                server.recv(&mut [0; 512], 0),
                libc::ECONNRESET,
                "recv() of the server"
            ),
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            Err(error) => return Err(error).during("accept()"),
        }
    }
    Ok(())
}

/// Length of a CLC header: with less nobody can tell whether it is CLC.
const HEADER: usize = 8;

/// A client whose SYN got the option from somebody else, and that knows nothing of SMC.
fn plain_words(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    let mut long = vec![b'x'; 6_000];
    long.extend_from_slice(b"END");
    for words in [
        b"GET / HTTP/1.0\r\n\r\n".as_slice(),
        b"12345678",
        &EYE[..3],
        &[&EYE[..3], b"\0 almost the eyecatcher"].concat(),
        &long,
    ] {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(words)?;
        let server = listener.accept()?;
        let mut got = vec![0; words.len()];
        server.recv_all(&mut got)?;
        check_eq!(got, words, "what the server received");
        server.send_all(b"200 OK")?;
        let mut answer = Vec::new();
        let end = Instant::now() + sys::PATIENCE;
        while answer.len() < 6 && Instant::now() < end {
            answer.extend(peer.receive(Duration::from_millis(500))?);
        }
        check_eq!(answer, b"200 OK", "what the raw client received");
    }
    others_are_served(ctx, &listener, address)
}

/// Data right behind a Decline is the program's.
fn decline_then_data(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let healthy = ctx.pair()?;
    for version in [1u8, 2] {
        for flags in [0u8, 0x08, 0x0f] {
            let what = format!("Decline of version {version} with flags {flags:#x}");
            let mut decline = hostile::message(DECLINE, version, &[0; 16]);
            decline[7] |= flags;
            // The server declines.
            let listening = RawPeer::listen(next_port())?;
            let client = dial(ctx.kind, listening.address());
            let mut peer = listening.accept()?;
            peer.receive(Duration::from_secs(20))?;
            peer.send(&[&decline, b"welcome".as_slice()].concat())?;
            let end = Instant::now() + Duration::from_secs(60);
            while !client.is_finished() && Instant::now() < end {
                peer.receive(Duration::from_millis(50))?;
            }
            check!(client.is_finished(), "connect() hangs: {what}");
            let client = join(client)?.during(&what)?;
            let mut got = [0; 7];
            client.recv_all(&mut got).during(&what)?;
            check_eq!(&got, b"welcome", "what the client received");
            client.send_all(b"thanks")?;
            check_eq!(
                peer.receive(Duration::from_secs(20))?,
                b"thanks",
                "what the raw server received"
            );
            drop(client);
            // The client declines the server's Accept.
            let (listener, address) = ctx.listener(8)?;
            let mut peer = RawPeer::connect(next_port(), address)?;
            peer.send(&hostile::genuine_proposal(ctx)?)?;
            check!(
                !peer.receive(Duration::from_secs(20))?.is_empty(),
                "no answer to a proposal"
            );
            peer.send(&[&decline, b"hello".as_slice()].concat())?;
            let server = listener.accept().during(&what)?;
            let mut got = [0; 5];
            server.recv_all(&mut got).during(&what)?;
            check_eq!(&got, b"hello", "what the server received");
            echo(&healthy, b"healthy")?;
        }
    }
    Ok(())
}

/// What a connection does whose handshake was tampered with does not matter, as long as it ends.
fn use_and_forget(listener: &Sock, relayed: Option<Relayed>) -> Outcome {
    let servers = drain(listener)?;
    for server in &servers {
        server.set_nonblocking(true)?;
        let _ = server.send(b"from the server", libc::MSG_NOSIGNAL);
    }
    if let Some(Relayed {
        outcome: Ok(client),
        ..
    }) = relayed
    {
        let _ = client.send(&[9; 40_000], libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        let _ = client.recv(&mut [0; 100], 0);
    }
    Ok(())
}

/// Offsets of fields of Accept and Confirm (RFC 7609, sections A.2.3 and A.2.4; SMC-Rv2).
const FIELDS: [(&str, usize, u8); 14] = [
    ("length", 6, 0x04),
    ("version", 7, 0x30),
    ("peer id", 8, 0x55),
    ("GID", 31, 0x40),
    ("MAC", 37, 0x11),
    ("queue pair", 40, 0x3c),
    ("key of the RMB", 43, 0xa5),
    ("RMB element", 45, 0x05),
    ("alert token", 49, 0x81),
    ("size and MTU", 50, 0xff),
    ("address of the RMB", 52, 0x80),
    ("packet sequence number", 63, 0x77),
    ("EID", 65, 0x01),
    ("eyecatcher at the end", usize::MAX, 0x01),
];

fn wrong_fields(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    fresh(ctx)?;
    let healthy = ctx.pair()?;
    let (listener, address) = ctx.listener(64)?;
    // Twice: at first contact, as long as every handshake fails, and in an existing link group.
    for step in [Step::Accept, Step::Confirm] {
        for (name, at, mask) in FIELDS {
            let what = format!("a wrong {name} in {step:?}");
            let relayed = relay(ctx, address, 9000, |now, mut message| {
                if now == step {
                    let at = at.min(message.len() - 1);
                    message[at] ^= mask;
                }
                Some(message)
            })
            .during(&what)?;
            use_and_forget(&listener, relayed).during(&what)?;
            echo(&healthy, b"healthy").during(&what)?;
        }
    }
    drop(healthy);
    // Connections whose ends do not know each other wait for a minute: end them now.
    fresh(ctx)?;
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

fn random_changes(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let healthy = ctx.pair()?;
    let (listener, address) = ctx.listener(64)?;
    let mut random = ctx.random(96);
    // As many as fit: a change that breaks the link takes a time limit to be noticed.
    let end = Instant::now() + Duration::from_secs(30 / ctx.divisor.clamp(1, 3) as u64);
    let mut round = 0;
    while Instant::now() < end {
        let chosen = [Step::Proposal, Step::Accept, Step::Confirm][random.gen_range(0..3)];
        let what = format!("round {round}, {chosen:?}");
        let relayed = relay(ctx, address, 9000, |step, mut message| {
            if step == chosen {
                for _ in 0..random.gen_range(1..4) {
                    // Not the eyecatcher and the type: they are `hostile`'s.
                    let at = random.gen_range(5..message.len());
                    message[at] = random.gen();
                }
                if random.gen_range(0..6) == 0 {
                    message.truncate(random.gen_range(5..message.len()));
                }
            }
            Some(message)
        })
        .during(&what)?;
        use_and_forget(&listener, relayed).during(&what)?;
        echo(&healthy, b"healthy").during(&what)?;
        round += 1;
    }
    drop(healthy);
    fresh(ctx)?;
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}

/// The peer resets the connection instead of passing on one of the messages.
fn peer_goes_at_any_step(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let (listener, address) = ctx.listener(64)?;
    // At first contact, and with a link group that is there.
    for there in [false, true] {
        fresh(ctx)?;
        if there {
            let relayed = relay(ctx, address, 9000, |_, message| Some(message))?;
            works_by_rdma(ctx, &listener, relayed.ok_or(Fail("no outcome".into()))?)?;
        }
        let healthy = ctx.pair()?;
        for gone in [Step::Proposal, Step::Accept, Step::Confirm] {
            relay(ctx, address, 9000, |step, message| {
                (step != gone).then_some(message)
            })
            .during(&format!("without {gone:?}"))?;
            drain(&listener)?;
            echo(&healthy, b"healthy").during(&format!("without {gone:?}"))?;
        }
    }
    others_are_served(ctx, &listener, address)?;
    prove_by_queue_pairs(ctx)
}
