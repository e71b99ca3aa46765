//! A peer over raw verbs that says and writes what no peer may (RFC 7609, section 4.8.2; weaknesses 8, 13 and 18 of
//! Documentation/hardening.rst). First it proves that it is one: honest connections, in either role.
//!
//! Each wrong word is a [`Statement`] with what must come of it. All the while an ordinary connection between the two
//! hosts goes on ([`Others`]); after each statement it must have moved, and every byte be right.

mod data;
mod keys;
mod links;
mod many;
mod memory;
mod moments;
mod random;
mod speaker;
mod vanished;

pub use random::at_random;

use super::{join, raw};
use crate::kind::{Host, Kind};
use crate::pattern::Pattern;
use crate::runner::{Ctx, Needs, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use speaker::{llc, state, Offer, Peer, Role};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const TESTS: [Test; 22] = [
    peer("hostile_peer.honest_client", 120, honest_client),
    peer("hostile_peer.honest_server", 120, honest_server),
    peer("hostile_peer.cdc_to_server", 300, |ctx| {
        every(ctx, Role::Client, Offer::PLAIN, data::MESSAGES)
    }),
    peer("hostile_peer.cdc_to_client", 300, |ctx| {
        every(ctx, Role::Server, Offer::PLAIN, data::MESSAGES)
    }),
    peer("hostile_peer.immediates", 300, |ctx| {
        every(ctx, Role::Client, Offer::IMMEDIATES, data::IMMEDIATES)
    }),
    peer("hostile_peer.lengths", 300, |ctx| {
        every(ctx, Role::Server, Offer::PLAIN, data::LENGTHS)
    }),
    peer("hostile_peer.llc_to_server", 300, |ctx| {
        every(ctx, Role::Client, Offer::PLAIN, links::BOTH)?;
        every(ctx, Role::Client, Offer::PLAIN, links::TO_SERVER)
    }),
    peer("hostile_peer.llc_to_client", 300, |ctx| {
        every(ctx, Role::Server, Offer::PLAIN, links::BOTH)?;
        every(ctx, Role::Server, Offer::PLAIN, links::TO_CLIENT)
    }),
    peer("hostile_peer.llc_types", 300, links::types),
    peer("hostile_peer.second_link", 300, links::second_link),
    peer("hostile_peer.second_link_offers", 300, links::offers),
    peer("hostile_peer.confirm_link", 300, links::confirmed),
    peer("hostile_peer.early", 300, moments::early),
    peer("hostile_peer.late", 300, moments::late),
    peer("hostile_peer.slandered", 200, moments::slandered),
    peer("hostile_peer.on_its_way", 300, moments::on_its_way),
    peer("hostile_peer.keys", 300, keys::keys),
    peer("hostile_peer.random", 600, random::random),
    peer("hostile_peer.memory", 300, memory::limited),
    peer("hostile_peer.many", 300, many::groups),
    peer("hostile_peer.vanished_device", 200, vanished::device_goes),
    peer("hostile_peer.vanished_idle", 200, vanished::idle),
];

const fn peer(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::HostilePeer,
    }
}

/// What must come of a wrong word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Nothing: the connection goes on.
    No,
    /// The connection is reset, and the peer told so; the link group lives.
    Connection,
    /// The link group ends, and the peer is told this reason.
    Group(u32),
    /// The link is broken, so that nothing can be told.
    Link,
}

/// A wrong word.
struct Statement {
    what: &'static str,
    says: fn(&mut Meeting<'_>) -> Outcome,
    ends: Ends,
}

const fn says(what: &'static str, ends: Ends, says: fn(&mut Meeting<'_>) -> Outcome) -> Statement {
    Statement { what, says, ends }
}

/// LLC protocol violation, a reason of DELETE LINK (RFC 7609, appendix A.3.4).
const VIOLATION: Ends = Ends::Group(0x0004_0000);

/// A connection of the peer with a socket of host B.
struct Meeting<'a> {
    stage: &'a Stage,
    peer: Peer,
    sock: Sock,
}

/// Where meetings take place.
struct Stage {
    kind: Kind,
    listener: Sock,
    address: SocketAddr,
    others: Option<Others>,
}

impl Stage {
    fn new(ctx: &Ctx) -> Outcome<Stage> {
        Ok(Stage {
            others: Some(Others::new(ctx)?),
            ..Stage::without_others(ctx)?
        })
    }

    fn without_others(ctx: &Ctx) -> Outcome<Stage> {
        raw::prepare()?;
        let (listener, address) = ctx.listener(64)?;
        Ok(Stage {
            kind: ctx.kind,
            listener,
            address,
            others: None,
        })
    }

    /// Waits until the others have gone on.
    fn go_on(&self) -> Outcome {
        self.others.as_ref().map_or(Ok(()), Others::go_on)
    }

    fn meet(&self, role: Role, offer: Offer) -> Outcome<Meeting<'_>> {
        match role {
            Role::Client => self.as_client(offer),
            Role::Server => self.as_server(offer),
        }
    }

    /// The peer connects to a listener of host B.
    fn as_client(&self, offer: Offer) -> Outcome<Meeting<'_>> {
        let peer = Peer::client(offer, self.address)?;
        let sock = self.accepted(&peer)?;
        Ok(Meeting {
            stage: self,
            peer,
            sock,
        })
    }

    /// The socket that the peer has connected to.
    fn accepted(&self, peer: &Peer) -> Outcome<Sock> {
        loop {
            let events = self.listener.poll(libc::POLLIN, sys::PATIENCE)?;
            check!(events != 0, "the peer's connection is never accepted");
            // Connections of the peer that came to nothing may be in the queue.
            match self.listener.accept_from(0) {
                Ok((sock, from)) if from == peer.tcp.address() => {
                    sock.set_timeouts(sys::PATIENCE)?;
                    return Ok(sock);
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(error) => return Err(error).during("accept()"),
            }
        }
    }

    /// A socket of host B connects to the peer.
    fn as_server(&self, offer: Offer) -> Outcome<Meeting<'_>> {
        let dialling = Dialling::new(self.kind)?;
        let peer = Peer::server(offer, dialling.listening)?;
        let sock = join(dialling.thread)?.during("connect() to the peer")?;
        Ok(Meeting {
            stage: self,
            peer,
            sock,
        })
    }
}

/// A socket of host B that is connecting to the peer.
struct Dialling {
    listening: raw::Listening,
    thread: std::thread::JoinHandle<Outcome<std::io::Result<Sock>>>,
}

impl Dialling {
    fn new(kind: Kind) -> Outcome<Dialling> {
        let listening = speaker::listen()?;
        let address = listening.address();
        let thread = std::thread::spawn(move || {
            let sock = Sock::new(Host::B, kind, 0)?;
            let outcome = sock.connect(address);
            sock.set_timeouts(sys::PATIENCE)?;
            Ok(outcome.map(|()| sock))
        });
        Ok(Dialling { listening, thread })
    }
}

impl Meeting<'_> {
    /// Another connection of the same link group in place of this one.
    fn renew(&mut self) -> Outcome {
        let stage = self.stage;
        self.sock = match self.peer.role {
            Role::Client => {
                self.peer.dial_again(stage.address)?;
                stage.accepted(&self.peer)?
            }
            Role::Server => {
                let dialling = Dialling::new(stage.kind)?;
                self.peer.accept_again(dialling.listening)?;
                join(dialling.thread)?.during("connect() to the peer, again")?
            }
        };
        Ok(())
    }

    /// Some bytes both ways.
    fn echo(&mut self, words: &[u8]) -> Outcome {
        self.peer.send(words)?;
        let mut got = vec![0; words.len()];
        self.sock
            .recv_all(&mut got)
            .during("recv() of what the peer has sent")?;
        check_eq!(got, words, "what the socket received of the peer");
        self.sock.send_all(&got).during("send() to the peer")?;
        let got = self.peer.receive(words.len())?;
        check_eq!(got, words, "what the peer received of the socket");
        Ok(())
    }

    /// Waits for the connection to end by an error at the socket; what is in it before may come or be lost, as with TCP.
    fn is_reset(&self, errno: i32) -> Outcome {
        let mut bytes = [0; 1024];
        loop {
            match self.sock.recv(&mut bytes, 0) {
                Ok(0) => return Err(Fail("recv() says that the peer has finished".into())),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(errno) => return Ok(()),
                Err(error) => {
                    let due = std::io::Error::from_raw_os_error(errno);
                    return Err(error).during(&format!("recv() instead of '{due}'"));
                }
            }
        }
    }

    fn judge(&mut self, ends: Ends) -> Outcome {
        match ends {
            Ends::No => self.echo(b"and on it goes"),
            Ends::Connection => {
                self.is_reset(libc::ECONNRESET)?;
                self.peer.await_state(state::ABORT)?;
                self.peer.test_link()
            }
            Ends::Group(reason) => {
                self.is_reset(libc::ECONNABORTED)?;
                let told = self.peer.llc(llc::DELETE_LINK, 0)?;
                check!(told[3] & llc::ALL != 0, "a single link is deleted");
                let why = u32::from_be_bytes([told[5], told[6], told[7], told[8]]);
                check_eq!(why, reason, "reason of the DELETE LINK");
                Ok(())
            }
            Ends::Link => self.is_reset(libc::ECONNABORTED),
        }
    }
}

/// A connection of each statement's own; the statements begin when some bytes have gone both ways.
fn every(ctx: &Ctx, role: Role, offer: Offer, statements: &[Statement]) -> Outcome {
    let stage = Stage::new(ctx)?;
    let mut failures = Failures::default();
    for statement in statements {
        failures.note(
            one(&stage, role, offer, statement),
            &format!("'{}' as a {role:?}", statement.what),
        );
    }
    failures.outcome()
}

/// All words are said, whatever becomes of one.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, outcome: Outcome, what: &str) {
        if let Err(Fail(words)) = outcome {
            self.0.push(format!("{what}: {words}"));
        }
    }

    fn outcome(self) -> Outcome {
        check!(self.0.is_empty(), "{}", self.0.join("\n"));
        Ok(())
    }
}

fn one(stage: &Stage, role: Role, offer: Offer, statement: &Statement) -> Outcome {
    let mut meeting = stage.meet(role, offer).during("an honest handshake")?;
    meeting
        .echo(b"a word before the wrong one")
        .during("an honest beginning")?;
    (statement.says)(&mut meeting)?;
    meeting.judge(statement.ends)?;
    stage.go_on()
}

/// An ordinary connection between the hosts, all of whose bytes are compared all the time.
struct Others {
    rounds: Arc<AtomicU64>,
    trouble: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
}

impl Others {
    fn new(ctx: &Ctx) -> Outcome<Others> {
        const STREAM: u64 = 95;

        let Pair { client, server } = ctx.pair()?;
        client.set_timeouts(sys::PATIENCE)?;
        let pattern = Pattern::new(ctx, STREAM);
        let others = Others {
            rounds: Arc::default(),
            trouble: Arc::default(),
            stop: Arc::default(),
        };
        std::thread::spawn(move || {
            let mut bytes = vec![0; 8192];
            while let Ok(got @ 1..) = server.recv(&mut bytes, 0) {
                if server.send_all(&bytes[..got]).is_err() {
                    return;
                }
            }
        });
        let (rounds, trouble, stop) = (
            Arc::clone(&others.rounds),
            Arc::clone(&others.trouble),
            Arc::clone(&others.stop),
        );
        std::thread::spawn(move || {
            let mut at = 0;
            let mut round = || -> Outcome {
                let length = 1 + at % 7_000;
                client.send_all(pattern.at(at, length))?;
                let mut got = vec![0; length];
                client.recv_all(&mut got)?;
                pattern.verify(at, &got)?;
                at += length;
                Ok(())
            };
            while !stop.load(Ordering::Relaxed) {
                if let Err(Fail(words)) = round() {
                    *trouble
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(words);
                    return;
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                // The peer is to have the processor, too.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(others)
    }

    /// Waits until bytes have gone both ways that began their way after now.
    fn go_on(&self) -> Outcome {
        let before = self.rounds.load(Ordering::Relaxed);
        let end = Instant::now() + sys::PATIENCE;
        loop {
            let trouble = self.trouble.lock().map(|words| words.clone());
            if let Ok(Some(words)) = trouble {
                return Err(Fail(format!("the others' connection: {words}")));
            }
            if self.rounds.load(Ordering::Relaxed) >= before + 2 {
                return Ok(());
            }
            check!(Instant::now() < end, "the others' connection stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn honest(ctx: &Ctx, role: Role) -> Outcome {
    let stage = Stage::new(ctx)?;
    for offer in [Offer::PLAIN, Offer::IMMEDIATES] {
        let mut meeting = stage.meet(role, offer)?;
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
        stage.go_on()?;
    }
    Ok(())
}

fn honest_client(ctx: &Ctx) -> Outcome {
    honest(ctx, Role::Client)
}

fn honest_server(ctx: &Ctx) -> Outcome {
    honest(ctx, Role::Server)
}
