//! Words that come too early or too late: before the Confirm, before CONFIRM LINK, after the close, after DELETE LINK.

use super::speaker::{llc, llc_message, producer, state, Again, Cursor, Offer, Peer, Role, LEN};
use super::{join, Dialling, Failures, Meeting, Stage};
use crate::fault::Fault;
use crate::kind::Host;
use crate::mode;
use crate::runner::Ctx;
use crate::sys::{eventually, Sock};
use crate::tests::link::{fresh, prove_by_queue_pairs, queue_pairs};
use crate::verbs::{REMOTE_ACCESS_ERROR, RETRIES_EXCEEDED};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::time::{Duration, Instant};

/// What must come of an early word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The connection is made, and works.
    Up,
    /// A server's queue pair takes in what comes from the moment that it is connected, and the key of the RMB is registered
    /// by that queue pair, a moment later. So the word is refused or not, as it comes.
    UpOrRefused,
    /// The link is not confirmed: a server declines with one of these diagnoses, and so does a client with its own, or else
    /// waits for the server's Decline in vain, and `connect` fails.
    Unconfirmed {
        server: &'static [u32],
        client: Option<u32>,
    },
    /// The connection is made, and reset.
    Reset,
}

struct Early {
    what: &'static str,
    says: fn(&mut Peer) -> Outcome,
    then: Then,
}

const fn early_word(what: &'static str, then: Then, says: fn(&mut Peer) -> Outcome) -> Early {
    Early { what, says, then }
}

const TIMEOUT: u32 = 0x0201_0000;
const EYE_CATCHER: u32 = 0x0305_0000;
const NOT_READY: u32 = 0x0999_0002;

/// The link group has ended meanwhile, while CONFIRM LINK was waited for or already before, or the right message never came.
const ENDED_SERVER: &[u32] = &[TIMEOUT, NOT_READY];
const ENDED: Then = Then::Unconfirmed {
    server: ENDED_SERVER,
    client: None,
};
/// CONFIRM LINK is not of the queue pair that the CLC message named.
const WRONG_PEER: Then = Then::Unconfirmed {
    server: &[TIMEOUT],
    client: Some(NOT_READY),
};

/// Before the Confirm as a client, before CONFIRM LINK as a server.
const EARLY: &[Early] = &[
    early_word("a CDC message as it should be", Then::Up, |p| {
        p.say(p.next())
    }),
    early_word("thirty messages", Then::Up, |p| {
        for _ in 0..30 {
            p.say(p.next())?;
        }
        Ok(())
    }),
    early_word("a producer beyond the ring", Then::Reset, |p| {
        let mut cdc = p.next();
        cdc.producer = Cursor::at(0, u32::MAX);
        p.say(cdc)
    }),
    early_word("a consumer of what was never sent", Then::Reset, |p| {
        let mut cdc = p.next();
        cdc.consumer = Cursor::at(0, 1);
        p.say(cdc)
    }),
    early_word("a failover", Then::Up, |p| {
        let mut cdc = p.next();
        cdc.flags = producer::FAILOVER;
        cdc.sequence = 0;
        p.qp.send(&cdc.bytes())
    }),
    early_word("a message for nobody", Then::Up, |p| {
        let mut cdc = p.next();
        cdc.token ^= 0x01;
        cdc.state = state::ABORT;
        p.qp.send(&cdc.bytes())
    }),
    early_word("CONFIRM RKEY", Then::Up, |p| {
        p.qp.send(&llc_message(llc::CONFIRM_RKEY, 0, &[(5, &[1; 12])]))
    }),
    early_word("ADD LINK", Then::Up, |p| {
        p.qp.send(&llc_message(llc::ADD_LINK, 0, &[(12, &[1; 24])]))
    }),
    early_word("DELETE LINK of one", Then::Up, |p| {
        p.qp.send(&llc_message(llc::DELETE_LINK, 0, &[(4, &[1])]))
    }),
    early_word("DELETE LINK of all", ENDED, |p| {
        p.qp.send(&llc_message(llc::DELETE_LINK, llc::ALL, &[]))
    }),
    early_word("a type that is none", ENDED, |p| {
        p.qp.send(&llc_message(0x2f, 0, &[]))
    }),
    early_word("a SEND longer than any message", ENDED, |p| {
        p.qp.send(&[0xfe; 8193])
    }),
];

/// What a server can take before CONFIRM LINK, and what a client can, whose RMB has no key yet. A client's answers wait until it
/// can send.
const EARLY_TO_SERVER: &[Early] = &[
    early_word("data", Then::UpOrRefused, early_data),
    early_word("a reset", Then::Reset, early_reset),
    early_word("an immediate", Then::UpOrRefused, early_immediate),
    early_word("TEST LINK", Then::Up, early_test),
];

const EARLY_TO_CLIENT: &[Early] = &[
    early_word("data", ENDED, early_data),
    early_word("a reset", Then::Reset, early_reset),
    early_word("an immediate", ENDED, early_immediate),
    early_word("TEST LINK", Then::Up, early_test),
];

fn early_data(p: &mut Peer) -> Outcome {
    p.put(b"early")?;
    p.say(p.next())
}

fn early_reset(p: &mut Peer) -> Outcome {
    let mut cdc = p.next();
    cdc.state = state::ABORT;
    p.say(cdc)
}

fn early_immediate(p: &mut Peer) -> Outcome {
    let far = p.far;
    p.qp.write_with_immediate(b"imm", far.address, far.rkey, (far.token & 0x3fff) << 18)
}

fn early_test(p: &mut Peer) -> Outcome {
    p.qp.send(&llc_message(llc::TEST_LINK, 0, &[]))
}

/// In place of CONFIRM LINK, or of the answer to it: not of the queue pair that the CLC message named.
fn wrong_confirm_link(peer: &mut Peer, change: fn(&mut [u8])) -> Outcome {
    let flags = match peer.role {
        Role::Client => llc::ANSWER,
        Role::Server => 0,
    };
    let mut message = peer.confirm_link(flags);
    change(&mut message);
    peer.qp.send(&message)
}

const INSTEAD: &[Early] = &[
    early_word("CONFIRM LINK of another queue pair", WRONG_PEER, |p| {
        wrong_confirm_link(p, |bytes| bytes[28] ^= 1)
    }),
    early_word("CONFIRM LINK of another port", WRONG_PEER, |p| {
        wrong_confirm_link(p, |bytes| bytes[25] ^= 1)
    }),
    early_word(
        "CONFIRM LINK with eye catchers",
        Then::Unconfirmed {
            server: &[EYE_CATCHER],
            client: Some(EYE_CATCHER),
        },
        |p| wrong_confirm_link(p, |bytes| bytes[3] &= llc::ANSWER),
    ),
    early_word("CONFIRM LINK as the other side would say it", ENDED, |p| {
        // Never what is waited for, so the time runs out.
        wrong_confirm_link(p, |bytes| bytes[3] ^= llc::ANSWER)
    }),
];

/// The server gives the link its number, the client says it again.
const INSTEAD_TO_SERVER: &[Early] = &[early_word(
    "CONFIRM LINK of another link",
    WRONG_PEER,
    |p| wrong_confirm_link(p, |bytes| bytes[29] ^= 0x55),
)];

pub(super) fn early(ctx: &Ctx) -> Outcome {
    let stage = Stage::new(ctx)?;
    let mut failures = Failures::default();
    let mut say = |role, word: &Early, instead, when| {
        let outcome = early_one(&stage, role, word, instead).and_then(|()| stage.go_on());
        failures.note(outcome, &format!("'{}' as a {role:?}{when}", word.what));
    };
    for role in [Role::Client, Role::Server] {
        let (own, own_instead) = match role {
            Role::Client => (EARLY_TO_SERVER, INSTEAD_TO_SERVER),
            Role::Server => (EARLY_TO_CLIENT, [].as_slice()),
        };
        for word in EARLY.iter().chain(own) {
            say(role, word, false, "");
        }
        for word in INSTEAD.iter().chain(own_instead) {
            say(role, word, true, "");
        }
    }
    // A server's queue pair is connected, and its RMB has no key for longer than the peer's device waits before it says
    // everything once more.
    let fault = Fault::late(&["rxe_reg_fast_mr"], 200)?;
    for word in EARLY.iter().chain(EARLY_TO_SERVER) {
        say(Role::Client, word, false, ", and no key yet");
    }
    check!(fault.hits()? > 0, "no key was late");
    drop(fault);
    failures.note(urgent_inline(&stage), "an urgent byte before the Confirm");
    failures.outcome()
}

/// An urgent byte stays in the stream of a socket whose listener has `SO_OOBINLINE`, however early it comes.
fn urgent_inline(stage: &Stage) -> Outcome {
    let inline = |on: i32| {
        let listener = &stage.listener;
        listener.set(libc::SOL_SOCKET, libc::SO_OOBINLINE, on)
    };
    // In a group that is there the RMB has its key before the Accept.
    let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
    meeting.echo(b"before")?;
    inline(1)?;
    let again = meeting.peer.try_again_saying(stage.address, |p| {
        p.put(b"!")?;
        let mut cdc = p.next();
        cdc.flags = producer::URGENT_PRESENT;
        p.say(cdc)?;
        p.said.flags = 0;
        let outcome = p.qp.settle(Duration::from_secs(20))?;
        check!(outcome.is_some(), "the urgent byte never arrives");
        Ok(())
    });
    let again = again.and_then(|again| {
        check!(
            matches!(again, Again::Made),
            "another connection: {again:?}"
        );
        stage.accepted(&meeting.peer)
    });
    inline(0)?;
    meeting.sock = again?;
    let mut got = [0; 1];
    meeting.sock.recv_all(&mut got)?;
    check_eq!(&got, b"!", "the urgent byte");
    meeting.echo(b"and on it goes")?;
    stage.go_on()
}

/// A connection goes on, whoever says that its link group is not there any more.
pub(super) fn slandered(ctx: &Ctx) -> Outcome {
    let stage = Stage::new(ctx)?;
    let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
    meeting.echo(b"before")?;
    meeting.peer.is_slandered(stage.address)?;
    // For as long as it takes to find out that a link is dead.
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        meeting.echo(b"and on it goes")?;
        meeting.peer.idle()?;
    }
    meeting.renew()?;
    meeting.echo(b"another one")?;
    stage.go_on()
}

/// `instead`: a client says it in place of its answer to CONFIRM LINK; before that nobody waits for one.
fn early_one(stage: &Stage, role: Role, word: &Early, instead: bool) -> Outcome {
    let mut then = word.then;
    let (mut peer, sock) = match role {
        Role::Client => {
            let mut peer = Peer::dial(Offer::PLAIN, stage.address)?;
            if instead {
                peer.confirm()?;
                peer.llc(llc::CONFIRM_LINK, 0)?;
                (word.says)(&mut peer)?;
            } else {
                (word.says)(&mut peer)?;
                peer.confirm()?;
            }
            match word.then {
                Then::Unconfirmed { server, .. } => declines(&mut peer, server)?,
                Then::UpOrRefused if peer.is_refused()? => {
                    declines(&mut peer, ENDED_SERVER)?;
                    then = ENDED;
                }
                Then::Up | Then::UpOrRefused | Then::Reset => peer.confirm_link_as_client()?,
            }
            let sock = stage.accepted_or_not(&peer)?;
            (peer, sock)
        }
        Role::Server => {
            let dialling = Dialling::new(stage.kind)?;
            let mut peer = Peer::accept(Offer::PLAIN, dialling.listening)?;
            peer.take_confirm()?;
            (word.says)(&mut peer)?;
            match word.then {
                Then::Unconfirmed { client: None, .. } => {
                    // Which error is TCP's or the group's business.
                    let outcome = join(dialling.thread)?;
                    check!(outcome.is_err(), "connect() succeeds without a link");
                    return Ok(());
                }
                Then::Unconfirmed {
                    client: Some(why), ..
                } => declines(&mut peer, &[why])?,
                Then::Up | Then::UpOrRefused | Then::Reset => peer.confirm_link_as_server()?,
            }
            let sock = join(dialling.thread)?;
            (peer, sock.ok())
        }
    };
    match then {
        Then::Up | Then::UpOrRefused => {
            let sock = sock.ok_or(Fail("the connection has failed".into()))?;
            let early = peer.said.producer.count as usize;
            let mut got = vec![0; early];
            sock.recv_all(&mut got)?;
            check_eq!(got, b"early"[..early], "what came early");
            let mut meeting = Meeting { stage, peer, sock };
            meeting.echo(b"the connection works")
        }
        Then::Unconfirmed { .. } => {
            let sock = sock.ok_or(Fail("there is no fallback".into()))?;
            mode::fallback_reason(&sock).during("the connection after a Decline")?;
            sock.send_all(b"by TCP")?;
            let came = peer.tcp.receive(Duration::from_secs(20))?;
            check_eq!(came, b"by TCP", "what comes by TCP after a Decline");
            Ok(())
        }
        Then::Reset => match sock {
            // accept() or connect() has said so.
            None => Ok(()),
            Some(sock) => Meeting { stage, peer, sock }.is_reset(libc::ECONNRESET),
        },
    }
}

/// Waits for the Decline.
fn declines(peer: &mut Peer, diagnoses: &[u32]) -> Outcome {
    let decline = peer.tcp.receive(Duration::from_secs(20))?;
    check!(
        decline.len() >= 20 && decline[4] == 4,
        "this came in place of a Decline: {decline:02x?}"
    );
    let why = u32::from_be_bytes([decline[16], decline[17], decline[18], decline[19]]);
    check!(
        diagnoses.contains(&why),
        "diagnosis {why:#010x} in the Decline, expected one of {diagnoses:#010x?}"
    );
    Ok(())
}

impl Peer {
    /// Whether the other side's device has refused what was written into its memory. Its host hears of a refused immediate
    /// by a completion, and may end the queue pair before the device has said so: then the peer's own device gives up.
    fn is_refused(&mut self) -> Outcome<bool> {
        let outcome = self.qp.settle(Duration::from_secs(20))?;
        let all = outcome.ok_or(Fail("an early word neither fails nor succeeds".into()))?;
        Ok(all.contains(&REMOTE_ACCESS_ERROR) || all.contains(&RETRIES_EXCEEDED))
    }
}

impl Stage {
    /// The socket that the peer has connected to, unless accept() says that the connection has failed.
    fn accepted_or_not(&self, peer: &Peer) -> Outcome<Option<Sock>> {
        loop {
            let events = self.listener.poll(libc::POLLIN, crate::sys::PATIENCE)?;
            check!(events != 0, "the peer's connection is never accepted");
            match self.listener.accept_from(0) {
                Ok((sock, from)) if from == peer.tcp.address() => {
                    sock.set_timeouts(crate::sys::PATIENCE)?;
                    return Ok(Some(sock));
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => return Ok(None),
                Err(error) => return Err(error).during("accept()"),
            }
        }
    }
}

/// Says what a connection that is over might have said, and worse.
fn ghost(meeting: &mut Meeting<'_>) -> Outcome {
    let peer = &mut meeting.peer;
    let far = peer.far;
    let last = peer.said;
    for step in 1..=8u16 {
        let mut cdc = last;
        cdc.sequence = last.sequence.wrapping_add(step);
        match step {
            1 => cdc.producer = Cursor::at(0, last.producer.count + 100),
            2 => cdc.producer = Cursor::at(0, u32::MAX),
            3 => cdc.consumer = Cursor::at(9, 9),
            4 => cdc.state = 0,
            5 => cdc.flags = producer::URGENT_PRESENT,
            6 => cdc.flags = producer::FAILOVER,
            7 => cdc.state = state::CLOSED,
            _ => cdc.state = state::ABORT,
        }
        peer.qp.send(&cdc.bytes())?;
        let word = ((far.token & 0x3fff) << 18) | 1;
        peer.qp
            .write_with_immediate(b"ghost", far.address, far.rkey, word)?;
    }
    Ok(())
}

pub(super) fn late(ctx: &Ctx) -> Outcome {
    let stage = Stage::new(ctx)?;
    for role in [Role::Client, Role::Server] {
        for offer in [Offer::PLAIN, Offer::IMMEDIATES] {
            late_ones(&stage, role, offer).during(&format!("as a {role:?}, {offer:?}"))?;
        }
    }
    Ok(())
}

fn late_ones(stage: &Stage, role: Role, offer: Offer) -> Outcome {
    // Both have closed.
    let mut meeting = stage.meet(role, offer)?;
    meeting.echo(b"before the end")?;
    meeting.peer.close()?;
    check_eq!(meeting.sock.recv_to_end()?.len(), 0, "bytes before the end");
    meeting.close_sock()?;
    meeting.peer.await_state(state::CLOSED)?;
    ghost(&mut meeting).during("after both have closed")?;
    // Its place and its memory are another connection's now.
    for round in 0..3 {
        meeting
            .renew()
            .during("a connection in the place of a ghost")?;
        meeting
            .echo(b"not a ghost")
            .during(&format!("round {round}"))?;
        meeting.peer.close()?;
        check_eq!(meeting.sock.recv_to_end()?.len(), 0, "bytes before the end");
        meeting.close_sock()?;
        meeting.peer.await_state(state::CLOSED)?;
        ghost(&mut meeting)?;
    }
    stage.go_on()?;

    // The socket is gone, and the peer goes on: as with TCP it is reset.
    meeting.renew()?;
    meeting.echo(b"before the end")?;
    meeting.close_sock()?;
    meeting
        .peer
        .await_state(state::CLOSED | state::DONE_WRITING)?;
    meeting.peer.send(b"to nobody")?;
    meeting.peer.await_state(state::ABORT)?;
    ghost(&mut meeting).during("after a reset")?;
    meeting.renew().during("a connection after a reset")?;
    meeting.echo(b"after a reset")?;
    stage.go_on()?;

    // The group has ended.
    let all = delete_all_links();
    meeting.peer.qp.send(&all)?;
    meeting
        .is_reset(libc::ECONNABORTED)
        .during("after DELETE LINK")?;
    ghost(&mut meeting)?;
    meeting.peer.qp.send(&all)?;
    let outcome = meeting.peer.qp.settle(Duration::from_secs(20))?;
    check!(
        outcome.is_some(),
        "requests after DELETE LINK neither fail nor succeed"
    );
    stage.go_on()
}

/// DELETE LINK of all links, as a peer says it that is done.
fn delete_all_links() -> [u8; LEN] {
    llc_message(llc::DELETE_LINK, llc::ALL, &[(5, &[0, 3, 0, 0])])
}

/// The peer goes on while its link group ends. What Soft-RoCE has let in by then comes to a queue pair that is being
/// reset and destroyed. That ends nevertheless, at once and without a warning, as the kernel's log tells the oracles.
pub(super) fn on_its_way(ctx: &Ctx) -> Outcome {
    let late: [&[&str]; 2] = [
        &["rxe_resp_queue_pkt", "rxe_enable_task"],
        &["rxe_sched_task"],
    ];
    fresh(ctx)?;
    let stage = Stage::without_others(ctx)?;
    for functions in late {
        for round in 0..5 {
            let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
            meeting.echo(b"before the end")?;
            ctx.prove(Host::B, &meeting.sock)?;
            prove_by_queue_pairs(ctx)?;
            let fault = Fault::late(functions, 5)?;
            let all = delete_all_links();
            meeting.peer.qp.send(&all)?;
            for _ in 0..100 {
                meeting.peer.qp.write(
                    b"on and on",
                    meeting.peer.far.address,
                    meeting.peer.far.rkey,
                )?;
            }
            meeting.is_reset(libc::ECONNABORTED)?;
            eventually("the queue pair is gone", || Ok(queue_pairs(Host::B)? == 0))
                .during(&format!("{functions:?} late, round {round}"))?;
            check!(fault.hits()? > 0, "no call of {functions:?} was late");
        }
    }
    Ok(())
}

impl Meeting<'_> {
    /// Closes the socket; a listener that nobody connects to takes its place.
    fn close_sock(&mut self) -> Outcome {
        self.sock = Sock::new(crate::kind::Host::B, self.stage.kind, 0)?;
        Ok(())
    }
}
