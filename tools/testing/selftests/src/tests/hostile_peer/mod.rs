//! A peer over raw verbs that says and writes what no peer may (RFC 7609, section 4.8.2; weaknesses 8, 13 and 18 of
//! Documentation/hardening.rst). First it proves that it is one: honest connections, either role.

mod speaker;

use super::raw;
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Needs, Test};
use crate::sys::Sock;
use crate::{check_eq, Context, Fail, Outcome};
use speaker::{state, Offer, Peer, Role};
use std::net::SocketAddr;

pub const TESTS: [Test; 2] = [
    peer("hostile_peer.honest_client", 120, honest_client),
    peer("hostile_peer.honest_server", 120, honest_server),
];

const fn peer(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::HostilePeer,
    }
}

/// A connection of the peer with a socket of host B.
struct Meeting {
    peer: Peer,
    sock: Sock,
}

/// The peer connects to a listener of host B.
fn as_client(offer: Offer, listener: &Sock, address: SocketAddr) -> Outcome<Meeting> {
    let peer = Peer::client(offer, address)?;
    let sock = loop {
        // Connections of the peer that came to nothing may be in the queue.
        match listener.accept_from(0) {
            Ok((sock, from)) if from == peer.tcp.address() => break sock,
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            Err(error) => return Err(error).during("accept()"),
        }
    };
    Ok(Meeting { peer, sock })
}

/// A socket of host B connects to the peer.
fn as_server(offer: Offer, kind: Kind) -> Outcome<Meeting> {
    let listening = speaker::listen()?;
    let address = listening.address();
    let thread = std::thread::spawn(move || -> Outcome<Sock> {
        let sock = Sock::new(Host::B, kind, 0)?;
        sock.connect(address).during("connect() to the peer")?;
        Ok(sock)
    });
    let peer = Peer::server(offer, listening)?;
    let sock = thread
        .join()
        .map_err(|_| Fail("the client's thread panicked".into()))??;
    Ok(Meeting { peer, sock })
}

fn meet(ctx: &Ctx, role: Role, offer: Offer) -> Outcome<Meeting> {
    match role {
        Role::Client => {
            let (listener, address) = ctx.listener(8)?;
            as_client(offer, &listener, address)
        }
        Role::Server => as_server(offer, ctx.kind),
    }
}

impl Meeting {
    /// Some bytes both ways.
    fn echo(&mut self, words: &[u8]) -> Outcome {
        self.peer.send(words)?;
        let mut got = vec![0; words.len()];
        self.sock.recv_all(&mut got)?;
        check_eq!(got, words, "what the socket received of the peer");
        self.sock.send_all(&got)?;
        let got = self.peer.receive(words.len())?;
        check_eq!(got, words, "what the peer received of the socket");
        Ok(())
    }
}

fn honest(ctx: &Ctx, role: Role) -> Outcome {
    raw::prepare()?;
    for offer in [Offer::PLAIN, Offer::IMMEDIATES] {
        let mut meeting = meet(ctx, role, offer)?;
        ctx.prove(Host::B, &meeting.sock)?;
        check_eq!(
            meeting.peer.immediates,
            offer.immediates,
            "whether immediates were agreed to"
        );
        // Rings wrap more than once.
        for round in 0..24 {
            let words: Vec<u8> = (0..3_000u32).map(|n| (n * 7 + round) as u8).collect();
            meeting
                .echo(&words)
                .during(&format!("round {round} of {offer:?}"))?;
        }
        meeting.peer.close()?;
        check_eq!(meeting.sock.recv_to_end()?.len(), 0, "bytes before the end");
        drop(meeting.sock);
        meeting.peer.await_state(state::CLOSED)?;
    }
    Ok(())
}

fn honest_client(ctx: &Ctx) -> Outcome {
    honest(ctx, Role::Client)
}

fn honest_server(ctx: &Ctx) -> Outcome {
    honest(ctx, Role::Server)
}
