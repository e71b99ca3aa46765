//! Words by chance: CDC, LLC, immediates, writes, TCP, in any order and number. Nothing is expected of the connection
//! but that it comes to an end; the others go on.

use super::speaker::{llc, llc_message, Cdc, Cursor, Offer, Peer, Role, CDC, LEN};
use super::Stage;
use crate::runner::Ctx;
use crate::{Context, Outcome};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};
use std::time::Duration;

const ROUNDS: usize = 240;

pub(super) fn random(ctx: &Ctx) -> Outcome {
    at_random(ctx, (ROUNDS / ctx.divisor).max(12))
}

/// So many connections, spoilt one after the other.
pub fn at_random(ctx: &Ctx, rounds: usize) -> Outcome {
    let stage = Stage::new(ctx)?;
    for round in 0..rounds {
        // So that a round can be made again alone: seed and number make it.
        let mut random = ctx.random(9700 + round as u64);
        play(&stage, &mut random).during(&format!("round {round} of seed {}", ctx.seed))?;
    }
    // And honest peers are served as before.
    let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
    meeting.echo(b"an honest peer")
}

fn play(stage: &Stage, random: &mut SmallRng) -> Outcome {
    let role = if random.gen() {
        Role::Client
    } else {
        Role::Server
    };
    let offer = Offer {
        immediates: random.gen(),
        links: random.gen_range(1..3),
    };
    let mut meeting = stage.meet(role, offer).during("an honest handshake")?;
    for _ in 0..random.gen_range(0..3) {
        meeting.echo(b"an honest word")?;
    }
    for _ in 0..random.gen_range(1..40) {
        word(&mut meeting.peer, random)?;
        if random.gen_ratio(1, 8) {
            // What the socket says of it may be anything.
            let _ = meeting
                .sock
                .send(b"back", libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            let _ = meeting.sock.recv(&mut [0; 4096], libc::MSG_DONTWAIT);
        }
        if random.gen_ratio(1, 10) {
            meeting.peer.qp.receive(Duration::ZERO)?;
        }
    }
    stage.go_on()
}

/// A number that is likely to be at an edge of something.
fn number(random: &mut SmallRng, near: u32) -> u32 {
    match random.gen_range(0..6) {
        0 => near,
        1 => near.wrapping_add(random.gen_range(0..5)).wrapping_sub(2),
        2 => [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 16384][random.gen_range(0..6)],
        3 => 1 << random.gen_range(0..32),
        4 => near.wrapping_add(random.gen_range(0..70_000)),
        _ => random.gen(),
    }
}

fn cursor(random: &mut SmallRng, near: Cursor) -> Cursor {
    Cursor {
        wrap: number(random, near.wrap.into()) as u16,
        count: number(random, near.count),
    }
}

fn word(peer: &mut Peer, random: &mut SmallRng) -> Outcome {
    let far = peer.far;
    match random.gen_range(0..12) {
        // As it should be.
        0 | 1 => {
            let mut data = vec![0; random.gen_range(0..500)];
            random.fill_bytes(&mut data);
            peer.send(&data)
        }
        // A CDC message with one field wrong, or more.
        2..=4 => {
            let mut cdc: Cdc = peer.next();
            for _ in 0..random.gen_range(1..3) {
                match random.gen_range(0..6) {
                    0 => cdc.sequence = number(random, cdc.sequence.into()) as u16,
                    1 => cdc.token = number(random, cdc.token),
                    2 => cdc.producer = cursor(random, cdc.producer),
                    3 => cdc.consumer = cursor(random, cdc.consumer),
                    4 => cdc.flags = random.gen(),
                    _ => cdc.state = random.gen(),
                }
            }
            peer.qp.send(&cdc.bytes())
        }
        // An LLC message of a type there is.
        5..=7 => {
            let kinds = [
                llc::CONFIRM_LINK,
                llc::ADD_LINK,
                llc::REQUEST_ADD_LINK,
                llc::CONFIRM_RKEY,
                llc::TEST_LINK,
                llc::DELETE_RKEY,
                llc::DELETE_LINK,
            ];
            let kind = kinds[random.gen_range(0..kinds.len())];
            let mut body = [0; 40];
            random.fill_bytes(&mut body);
            let (rkey, address, _) = peer.ring();
            // Sometimes it is about what there is.
            if random.gen() {
                body[0] = random.gen_range(0..4);
                body[27] = random.gen_range(0..4);
                body[1..5].copy_from_slice(&rkey.to_be_bytes());
                body[5..13].copy_from_slice(&address.to_be_bytes());
            }
            let flags = if random.gen() {
                [0, llc::ANSWER, 0x40, 0x20][random.gen_range(0..4)]
            } else {
                random.gen()
            };
            let message = llc_message(kind, flags, &[(4, &body)]);
            let mut message = message.to_vec();
            if random.gen_ratio(1, 4) {
                message.resize(random.gen_range(1..6000), random.gen());
            }
            peer.qp.send(&message)
        }
        // Anything.
        8 => {
            let mut bytes = vec![0; random.gen_range(0..200)];
            random.fill_bytes(&mut bytes);
            if let (Some(first), true) = (bytes.first_mut(), random.gen()) {
                *first = CDC;
            }
            if bytes.len() == LEN && random.gen() {
                bytes[1] = LEN as u8;
            }
            peer.qp.send(&bytes)
        }
        // Into the ring; seldom beside it.
        9 => {
            let mut data = vec![0; random.gen_range(0..5000)];
            random.fill_bytes(&mut data);
            let most = if random.gen_ratio(1, 20) {
                2 * far.ring
            } else {
                far.ring - data.len()
            };
            let at = far.address + random.gen_range(0..=most) as u64;
            peer.qp.write(&data, at, far.rkey)
        }
        // An immediate.
        10 => {
            let at = u64::from(peer.said.producer.count) % (far.ring as u64 - 600);
            let data = vec![7; random.gen_range(0..600)];
            let token = number(random, far.token & 0x3fff) & 0x3fff;
            let low = number(random, 0) & 0x3_ffff;
            peer.qp
                .write_with_immediate(&data, far.address + at, far.rkey, (token << 18) | low)
        }
        // The TCP connection, over which nothing is to come any more.
        _ => match random.gen_range(0..6) {
            0 => peer.tcp.finish(),
            1 => peer.tcp.send(b"words by TCP"),
            _ => Ok(()),
        },
    }
}
