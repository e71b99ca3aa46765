// SPDX-License-Identifier: GPL-2.0

//! The simulation of two peers, by a script: who writes, reads, closes or aborts when, what arrives and completes when,
//! which links die, and what a hostile one says in between.
//!
//! As long as both are fair: every byte arrives, in its place and once, nobody waits for ever, and each end is
//! freed once. From a peer's first lie on its data is worth nothing; the other side stays in its bounds, and still ends.

use super::{
    cdc::inside,
    simulation::*,
    Script, //
};
use smc_proto::{
    rx_tx::{
        cdc::*,
        cursor::Cursor,
        immediate::Immediate, //
    },
    smc_core::{
        state::{
            Event,
            State, //
        },
        types::AlertToken,
    },
};

/// What has happened that may cost data.
#[derive(Default)]
struct Losses {
    /// By the side that has closed: what the other one had written then, if all of that was read.
    closed_at: [Option<Option<u64>>; 2],
    aborted: bool,
}

impl Losses {
    /// Whether one side may have answered by an abort what the other one has done.
    fn may_be(&self, pair: &Pair) -> bool {
        let unread = |side: usize| {
            let written = pair.sides[1 - side].written;
            self.closed_at[side].is_some_and(|all| all != Some(written))
        };
        self.aborted || unread(0) || unread(1)
    }
}

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let what = script.u8();
    let wide = what & 1 != 0;
    let mut size = |limit| {
        if wide {
            script.size(4000)
        } else {
            script.size(limit)
        }
    };
    let (sndbufs, rmbs) = ([size(200), size(200)], [size(200), size(200)]);
    let slots = 1 + script.below(6);
    let (limit, most) = if what & 2 != 0 {
        (script.u16().into(), script.u16().into())
    } else {
        (0, 0)
    };
    let peer =
        |a: usize, b: usize| Peer::new(sndbufs[a], rmbs[a], rmbs[b], slots).growing(limit, most);
    let mut pair = Pair {
        sides: [peer(0, 1), peer(1, 0)],
    };
    let mut losses = Losses::default();

    for _ in 0..600 {
        if script.is_empty() {
            break;
        }
        let op = script.u8();
        let side = usize::from(op >> 7);
        match op & 0x0f {
            0..=2 => {
                pair.sides[side].write(script.size(256), op & 0x40 != 0);
            }
            3..=5 => {
                if !pair.sides[side].closed {
                    pair.read(side, script.size(256), op & 0x40 != 0);
                }
            }
            6..=8 => {
                pair.deliver(side);
            }
            9 | 10 => {
                pair.sides[side].complete();
            }
            11 => {
                pair.deliver_late(side);
            }
            12 => {
                let fate = script.u8();
                let part = |n: u8| usize::from((fate >> n) & 3);
                if pair.sides[side].released == 0 {
                    pair.fail_over(side, part(0) + part(6), part(2), part(4));
                }
            }
            13 => pair.settle(),
            14 => end(&mut pair, side, op, &mut losses),
            _ if what & 4 != 0 => {
                // It begins to lie: from here on only the other side is looked at.
                return against_a_liar(pair, side, &mut script);
            }
            _ => {}
        }
    }

    // Whoever still reads reads all that there is.
    let chunk = script.size(300);
    drain(&mut pair, chunk);
    for writer in 0..2 {
        let (from, to) = (&pair.sides[writer], &pair.sides[1 - writer]);
        assert!(to.read <= from.written);
        if losses.may_be(&pair) {
            continue;
        }
        assert_eq!(to.read, from.readable_end(), "bytes are missing");
        assert!(from.conn.tx.is_drained() && !from.conn.tx.urgent_busy());
        let (sent, came) = (from.conn.traffic(), to.conn.traffic());
        let all = (from.written, from.written, from.written);
        assert_eq!(
            (sent.bytes_sent, sent.bytes_acked, came.bytes_received),
            all
        );
    }
    // Both close, in either order, and that is the end.
    for side in if what & 8 != 0 { [1, 0] } else { [0, 1] } {
        close(&mut pair, side, &mut losses);
        drain(&mut pair, chunk);
    }
    for (side, peer) in pair.sides.iter().enumerate() {
        assert_eq!(
            peer.life.state(),
            State::Closed,
            "side {side} waits for ever"
        );
        assert_eq!((peer.freed, peer.released), (1, 1));
        assert!(losses.may_be(&pair) || !peer.reset, "side {side} was reset");
    }
}

fn drain(pair: &mut Pair, chunk: u32) {
    loop {
        pair.settle();
        let mut got = 0;
        for side in 0..2 {
            if !pair.sides[side].closed {
                got += pair.read(side, chunk, false);
            }
        }
        pair.settle();
        if got == 0 {
            return;
        }
    }
}

fn end(pair: &mut Pair, side: usize, op: u8, losses: &mut Losses) {
    match (op >> 4) & 7 {
        0..=2 => pair.sides[side].event(Event::AppShutdownWrite),
        3..=5 => close(pair, side, losses),
        6 => {
            losses.aborted = true;
            pair.sides[side].event(Event::LocalAbort);
        }
        _ => {
            losses.aborted = true;
            // The last link is gone, and the other side sees that, too.
            for peer in &mut pair.sides {
                peer.event(Event::LinkGroupDown);
                peer.lose_all();
            }
        }
    }
}

fn close(pair: &mut Pair, side: usize, losses: &mut Losses) {
    let writer = &pair.sides[1 - side];
    let peer = &pair.sides[side];
    let unread = peer.conn.rx.readable() > 0;
    let all_came = peer.conn.traffic().bytes_received == writer.written;
    losses.closed_at[side].get_or_insert((all_came && !unread).then_some(writer.written));
    pair.sides[side].close(unread);
}

/// What the other side does when a peer lies.
fn against_a_liar(mut pair: Pair, victim: usize, script: &mut Script<'_>) {
    let [a, b] = &mut pair.sides;
    let (victim, liar) = if victim == 0 { (a, b) } else { (b, a) };
    let (own, peers) = (victim.conn.rx.rmb_len(), victim.conn.tx.peer_rmb_len());
    let mut seqno = liar.conn.last_sent();
    for _ in 0..200 {
        if script.is_empty() {
            break;
        }
        let op = script.u8();
        let link = usize::from(op >> 6);
        match op & 7 {
            0 | 1 => {
                seqno = CdcSeq(seqno.0.wrapping_add(script.u8().into()));
                let view = victim.conn.view();
                let cursor = |script: &mut Script<'_>, near: Cursor, len: u32| {
                    let n = u32::from(script.u8());
                    Cursor {
                        wrap: near.wrap.wrapping_add((n / 64) as u16),
                        count: near.count.wrapping_add(n % 64) % (len + 1),
                    }
                };
                let msg = CdcMessage {
                    seqno,
                    token: AlertToken(1),
                    prod: cursor(script, view.rx.prod, own),
                    cons: cursor(script, view.tx.peer_cons, peers),
                    prod_flags: ProducerFlags(script.u8()),
                    conn_state: ConnState(script.u8() & 0xe0),
                };
                victim.hear_a_lie(link, &msg);
            }
            2 => {
                let word = (u32::from(script.u8() & 3) << 16) | u32::from(script.u8());
                match victim
                    .conn
                    .expand(link, Immediate(word), script.u8().into())
                {
                    Ok(Some(msg)) => victim.hear_a_lie(link, &msg),
                    Ok(None) => {}
                    Err(_) => victim.event(Event::LocalAbort),
                }
            }
            3 => {
                victim.write(script.size(256), op & 0x40 != 0);
            }
            4 if !victim.closed => {
                assert!(inside(victim.conn.rx.chunks_for_read(u32::MAX), own));
                victim.conn.rx.consume(script.u8().into());
                victim.push();
            }
            5 => {
                // What it has sent arrives, or at least completes.
                victim.acknowledge();
            }
            6 => victim.event(Event::AppShutdownWrite),
            7 if op & 0x30 == 0x30 => {
                let unread = victim.conn.rx.readable() > 0;
                victim.close(unread);
            }
            _ => {
                victim.complete();
            }
        }
        assert!(victim.conn.rx.readable() <= own);
        assert!(victim.conn.tx.window() <= peers);
        assert!(victim.freed <= 1 && victim.released <= 1);
    }
    let unread = victim.conn.rx.readable() > 0;
    victim.close(unread);
    for _ in 0..3 {
        while victim.acknowledge() || victim.complete() {}
        victim.event(Event::Timeout);
    }
    assert_eq!(victim.life.state(), State::Closed, "it waits for ever");
    assert_eq!((victim.freed, victim.released), (1, 1));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for head in [
        &[0, 50, 50, 20, 30, 2][..],
        &[8, 5, 199, 1, 99, 0],
        &[2, 50, 50, 20, 30, 5, 0, 120, 1, 200],
        &[4, 50, 50, 20, 30, 2],
        &[9, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 4],
    ] {
        let with = |rest: &[u8]| [head, rest].concat();
        // Both talk, with urgent bytes, and wait for all.
        all.push(with(&[
            0, 60, 0x80, 40, 6, 0x86, 9, 0x89, 3, 99, 0x83, 20, 0x40, 5, 13, 0x83, 99,
        ]));
        all.push(with(&[
            0, 20, 6, 9, 0x83, 99, 0x80, 20, 0x86, 0x89, 3, 99, 13, 0, 9, 6, 0xc3, 30,
        ]));
        // Links die: something arrives, something late, something is acknowledged.
        for fate in [0x00, 0x15, 0x1a, 0x55, 0xff] {
            let talk = [
                0, 60, 0x80, 40, 6, 0, 9, 0x80, 9, 12, fate, 0x8c, fate, 11, 0x8b,
            ];
            all.push(with(
                &[&talk[..], &talk, &[0x83, 99, 3, 99, 13, 0x83, 99]].concat(),
            ));
        }
        // Data comes late, and nobody reads it: the other side's last word comes with it, or is held back behind it.
        all.push(with(&[0, 10, 0xbe, 12, 0x14, 0x86, 0x3e, 6, 6, 11]));
        all.push(with(&[0, 10, 12, 0x14, 0x3e, 6, 6, 0xbe, 0x86, 11]));
        // Ends of all kinds, with data under way and without; and links that die then.
        for how in [0x0e, 0x3e, 0x6e, 0x7e] {
            all.push(with(&[
                0, 60, 0x80, 40, how, 6, 0x86, 12, 0x15, 0x83, 99, 0x8e,
            ]));
            all.push(with(&[
                0, 60, how, 13, 0x83, 99, 13, 0x80, 40, 0x8e, 13, 3, 99, 0xbe, 13,
            ]));
        }
        // A liar.
        all.push(with(&[
            0, 60, 6, 0x0f, 0, 1, 0, 0, 0, 0, 2, 1, 2, 3, 3, 30, 5, 7, 4, 9, 0, 1, 1, 0, 0x60, 0,
            0, 1, 0, 0, 0x10, 0x80, 6, 0x37, 0, 1, 70, 70, 0xff, 0xff,
        ]));
    }
    all
}
