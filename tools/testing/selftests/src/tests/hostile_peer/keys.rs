//! RDMA WRITEs to where none may go, and with keys that are not the peer's, or not any more (weakness 18).

use super::speaker::{state, Offer, Peer, Role};
use super::{Failures, Stage};
use crate::kind::Host;
use crate::runner::Ctx;
use crate::tests::wiretap::Wiretap;
use crate::verbs::REMOTE_ACCESS_ERROR;
use crate::{check, check_eq, Context, Fail, Outcome};
use std::time::Duration;

const WORDS: &[u8] = b"not for you";

/// The other side's device refuses the write, and that is the end of the peer's link.
fn refused(peer: &mut Peer, address: u64, rkey: u32, data: &[u8]) -> Outcome {
    // What went before has arrived.
    peer.qp.settle(Duration::from_secs(10))?;
    peer.qp.write(data, address, rkey)?;
    let outcome = peer.qp.settle(Duration::from_secs(10))?;
    check_eq!(
        outcome,
        Some(vec![REMOTE_ACCESS_ERROR]),
        "the write to {address:#x} with key {rkey:#x}"
    );
    Ok(())
}

/// Where a write is wrong.
type Place = fn(&Peer) -> (u64, u32);

const WRONG: [(&str, Place); 7] = [
    ("over the end of the ring", |p| {
        (
            p.far.address + p.far.ring as u64 - WORDS.len() as u64 + 1,
            p.far.rkey,
        )
    }),
    ("behind the ring", |p| {
        (p.far.address + p.far.ring as u64, p.far.rkey)
    }),
    ("before the ring", |p| (p.far.address - 1, p.far.rkey)),
    ("at the end of the addresses", |p| {
        (u64::MAX - 4, p.far.rkey)
    }),
    ("at address 0", |p| (0, p.far.rkey)),
    ("another key of the place", |p| {
        (p.far.address, p.far.rkey ^ 0x55)
    }),
    ("a key of another place", |p| {
        (p.far.address, p.far.rkey ^ 0x100)
    }),
];

pub(super) fn keys(ctx: &Ctx) -> Outcome {
    let tap = Wiretap::new()?;
    let stage = Stage::new(ctx)?;
    others_key(&stage, &tap)?;
    let mut failures = Failures::default();
    for (what, place) in WRONG {
        for role in [Role::Client, Role::Server] {
            failures.note(
                wrong_place(&stage, role, place),
                &format!("{what}, as a {role:?}"),
            );
        }
    }
    failures.outcome()?;
    all_of_the_ring(&stage)?;
    for role in [Role::Client, Role::Server] {
        stale(&stage, role).during(&format!("a stale key of a {role:?}"))?;
    }
    Ok(())
}

fn wrong_place(stage: &Stage, role: Role, place: Place) -> Outcome {
    let mut meeting = stage.meet(role, Offer::PLAIN)?;
    meeting.echo(b"a word before")?;
    let (address, rkey) = place(&meeting.peer);
    refused(&mut meeting.peer, address, rkey, WORDS)?;
    meeting.is_reset(libc::ECONNABORTED)?;
    stage.go_on()
}

/// The peer may write to all of its ring at any time; what counts is what it says of it.
fn all_of_the_ring(stage: &Stage) -> Outcome {
    let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
    let far = meeting.peer.far;
    let part = vec![0x99; 16384];
    for at in (0..far.ring).step_by(part.len()) {
        meeting
            .peer
            .qp
            .write(&part, far.address + at as u64, far.rkey)?;
    }
    meeting.echo(b"right all the same")?;
    stage.go_on()
}

/// The key of the ordinary connection, which passes over the wire for all to read, is of no use on another link.
fn others_key(stage: &Stage, tap: &Wiretap) -> Outcome {
    let seen = tap.seen()?;
    let accept = seen
        .clc
        .iter()
        .find(|clc| clc.from == Host::B && clc.bytes.len() >= 68 && clc.bytes[4] == 2)
        .ok_or(Fail(
            "the ordinary connection's Accept was not heard".into(),
        ))?;
    let bytes = &accept.bytes;
    let rkey = u32::from_be_bytes([bytes[41], bytes[42], bytes[43], bytes[44]]);
    let mut address = [0; 8];
    address.copy_from_slice(&bytes[52..60]);
    let ring = 16384u64 << (bytes[50] >> 4);
    let address = u64::from_be_bytes(address) + ring * u64::from(bytes[45] - 1);
    for offset in [0, ring / 2] {
        let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
        refused(&mut meeting.peer, address + offset, rkey, WORDS)
            .during("with the key of others")?;
        meeting.is_reset(libc::ECONNABORTED)?;
        stage.go_on()?;
    }
    Ok(())
}

/// A key that the peer had for a connection that is over.
fn stale(stage: &Stage, role: Role) -> Outcome {
    const SECRET: &[u8] = b"of the connection before";

    let mut meeting = stage.meet(role, Offer::PLAIN)?;
    meeting.echo(&SECRET.repeat(40))?;
    let old = meeting.peer.far;
    meeting.peer.close()?;
    check_eq!(meeting.sock.recv_to_end()?.len(), 0, "bytes before the end");
    meeting.sock = crate::sys::Sock::new(Host::B, stage.kind, 0)?;
    meeting.peer.await_state(state::CLOSED)?;

    meeting.renew()?;
    let new = meeting.peer.far;
    check_eq!(
        (new.rkey, new.address),
        (old.rkey, old.address),
        "key and address of the ring that is used again"
    );
    check!(new.token != old.token, "the token is the same again");
    // Of the connection before nothing is left: a byte that was not written is zero.
    meeting.peer.said.producer.count += 900;
    let cdc = meeting.peer.next();
    meeting.peer.say(cdc)?;
    let mut got = [1; 900];
    meeting.sock.recv_all(&mut got)?;
    check!(
        got.iter().all(|byte| *byte == 0),
        "a connection sees bytes of the one before"
    );
    // A late write by the old key lands where the peer itself writes next, and is written over.
    let at = u64::from(meeting.peer.said.producer.count);
    meeting
        .peer
        .qp
        .write(&[0x66; 300], old.address + at, old.rkey)?;
    meeting.echo(&[0x11; 250])?;
    stage.go_on()?;

    // The group ends; another one of the same peer begins. The old key is of no use there.
    drop(meeting);
    let mut meeting = stage.meet(role, Offer::PLAIN)?;
    check!(
        meeting.peer.far.rkey != old.rkey,
        "another link group has the key of the one before"
    );
    refused(&mut meeting.peer, old.address, old.rkey, WORDS)?;
    meeting.is_reset(libc::ECONNABORTED)?;
    stage.go_on()
}
