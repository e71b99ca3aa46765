// SPDX-License-Identifier: GPL-2.0

//! One connection, as `core/conn.rs` drives it, against a peer that says anything: CDC messages and immediates, before and
//! after its part of the handshake is known, over any link, while the application writes, reads and closes, the send
//! buffer grows and links die.

use super::{
    common::vector,
    Script, //
};
use smc_proto::{
    rx_tx::{
        cdc::*,
        conn::*,
        cursor::*,
        early::Early,
        immediate::Immediate,
        sender::TxPlan, //
    },
    smc_core::{
        state::{
            Event,
            Farewell,
            Life,
            State, //
        },
        types::AlertToken,
    },
};
use std::collections::VecDeque;

const LINKS: usize = 4;
const TOKEN: AlertToken = AlertToken(0x0001_2345);

struct Victim {
    conn: Connection,
    life: Life,
    /// Bytes of the ring of the send buffer, and how many it may get by itself.
    ring: u32,
    most: u32,
    posted: VecDeque<(CdcSeq, Cursor)>,
    draining: bool,
    /// The application has closed, and knows of the end of the stream.
    closed: bool,
    eof: bool,
    freed: u32,
    released: u32,
}

pub fn inside(spans: Spans, len: u32) -> bool {
    spans.iter().all(|span| {
        let end = u64::from(span.offset) + u64::from(span.len);
        end <= u64::from(len)
    })
}

impl Victim {
    fn event(&mut self, event: Event) {
        let actions = self.life.handle(event);
        self.draining |= actions.wait_drained;
        self.eof |= actions.eof;
        if actions.discard_unsent {
            self.conn.tx.discard_unsent();
        }
        if let Some(farewell) = actions.send {
            self.conn.announce(match farewell {
                Farewell::DoneWriting => ConnState::DONE_WRITING,
                Farewell::Closed => ConnState::CLOSED,
                Farewell::Abort => ConnState::ABORT,
            });
        }
        self.released += u32::from(actions.release_peer_ref);
        self.freed += u32::from(actions.free);
        self.push();
    }

    fn push(&mut self) {
        // A window that is one byte wide does with one message for each.
        let mut budget = 1000;
        while self.posted.len() < 4 {
            let plan = self.conn.plan(u32::MAX);
            let cdc = match &plan {
                Some(plan) => {
                    self.check_plan(plan);
                    self.conn.commit_tx(plan)
                }
                None if self.conn.cdc_due() => self.conn.make_cdc(),
                None => break,
            };
            assert_eq!(CdcMessage::parse(&cdc.emit()), Ok(cdc));
            let _ = self.conn.shorten(&cdc, plan.as_ref());
            self.posted
                .push_back((self.conn.last_sent(), self.conn.tx.sent()));
            budget -= 1;
            assert!(budget > 0, "messages without end");
        }
        if self.draining && self.conn.tx.is_drained() {
            self.draining = false;
            self.event(Event::Drained);
        }
    }

    fn check_plan(&self, plan: &TxPlan) {
        let peer = self.conn.tx.peer_rmb_len();
        let mut len = 0;
        for write in &plan.writes {
            assert!(inside(write.source, self.ring), "reads beyond the buffer");
            let end = u64::from(write.remote_offset) + u64::from(write.len());
            assert!(end <= peer.into(), "writes beyond the peer's RMBE");
            len += write.len();
        }
        assert_eq!(len, plan.len);
        assert!(len > 0 && len <= self.conn.tx.window());
    }

    fn hear(&mut self, link: usize, msg: &CdcMessage) {
        self.conn.hear(link, msg);
        let over = self.conn.state().union(msg.conn_state);
        if !self.eof
            && self.life.is_orphan()
            && !over.contains(ConnState::ABORT)
            && self.conn.brings_data(msg)
        {
            return self.event(Event::LocalAbort);
        }
        let figures = |conn: &Connection| {
            let (rx, tx) = (&conn.rx, &conn.tx);
            (rx.readable(), tx.window(), tx.unconfirmed(), tx.used())
        };
        let before = figures(&self.conn);
        let held = self.conn.lacks_message();
        match self.conn.handle_cdc(msg) {
            Ok(effects) => {
                assert!(effects.received <= self.conn.rx.rmb_len());
                assert!(effects.confirmed <= self.conn.tx.peer_rmb_len());
                if let Some(offset) = effects.urgent_offset {
                    assert!(offset < self.conn.rx.rmb_len());
                    self.conn.rx.set_urgent_byte(1);
                }
                if effects.push_tx || effects.send_update || effects.freed {
                    self.push();
                }
                let unsent = self.conn.tx.unsent() > 0;
                if effects.peer_abort {
                    self.event(Event::PeerAbort);
                } else if effects.peer_closed {
                    self.event(Event::PeerClosed { unsent });
                } else if effects.peer_done {
                    self.event(Event::PeerDoneWriting);
                }
            }
            Err(violation) => {
                // What it has waited for was legal, and what came behind that is not.
                assert!(held || before == figures(&self.conn), "{violation}");
                self.event(Event::LocalAbort);
            }
        }
    }

    fn immediate(&mut self, link: usize, immediate: Immediate, len: u32) {
        let token = immediate.token();
        assert_eq!(u32::from(token.index()), (immediate.0 >> 18) & 0xff);
        match self.conn.expand(link, immediate, len) {
            Ok(Some(msg)) => self.hear(link, &msg),
            Ok(None) => {}
            Err(_) => self.event(Event::LocalAbort),
        }
    }

    fn write(&mut self, n: u32, urgent: bool) {
        if !self.life.may_write() || (urgent && self.conn.tx.urgent_busy()) {
            return;
        }
        if let Some(growth) = self.conn.tx.growth(n) {
            assert!(inside(growth.source, self.ring));
            let len = self.conn.tx.sndbuf_len();
            let ring = Ring::new(len).expect("a length");
            let pending = !self.posted.is_empty();
            assert!(self.conn.grow(ring, &growth, pending));
            self.ring = len;
        }
        let room = self.conn.tx.chunks_for_write(n);
        assert!(inside(room, self.ring));
        let taken = if urgent {
            self.conn.tx.commit_urgent(n)
        } else {
            self.conn.tx.commit(n)
        };
        assert_eq!(taken, room.len());
        self.push();
    }

    fn complete(&mut self) -> bool {
        let Some((seqno, sent)) = self.posted.pop_front() else {
            return false;
        };
        let used = self.conn.tx.used();
        let completed = self.conn.on_send_complete(seqno, sent);
        assert_eq!(used - completed.freed, self.conn.tx.used());
        if self.conn.tx.is_short_of_room() {
            let next = self.conn.tx.sndbuf_len() * 2;
            self.conn.tx.raise_limit(next.min(self.most));
        }
        self.push();
        true
    }

    fn check(&self) {
        let (rx, tx) = (&self.conn.rx, &self.conn.tx);
        assert!(rx.readable() <= rx.rmb_len() && rx.untold() <= rx.rmb_len());
        assert!(rx.readable_now() <= rx.readable());
        assert!(rx.readable_before_mark() <= rx.readable());
        assert!(inside(rx.chunks_for_read(u32::MAX), rx.rmb_len()));
        assert!(tx.window() <= tx.peer_rmb_len() && tx.unconfirmed() <= tx.peer_rmb_len());
        assert!(tx.unsent() <= tx.used() && tx.used() <= self.ring);
        assert!(self.ring <= tx.sndbuf_len() && tx.free() <= tx.sndbuf_len());
        assert!(inside(tx.chunks_for_write(u32::MAX), self.ring));
        let (sndbuf, rmbe) = self.conn.written();
        assert!(sndbuf <= tx.sndbuf_len() && rmbe <= rx.rmb_len());
        assert!(self.freed <= 1 && self.released <= 1 && self.freed <= self.released);
        let over = self.closed && self.life.state() == State::Closed;
        assert_eq!(self.freed == 1, over);
    }
}

/// A message whose fields are often near what can be.
fn message(script: &mut Script<'_>, conn: &Connection, last: &mut CdcSeq) -> CdcMessage {
    let how = script.u8();
    let view = conn.view();
    let (own, peer) = (
        Ring::new(conn.rx.rmb_len()).expect("a length"),
        Ring::new(conn.tx.peer_rmb_len()).expect("a length"),
    );
    let seqno = match how & 3 {
        0 | 1 => last.next(),
        2 => CdcSeq(last.0.wrapping_add(u16::from(script.u8())).wrapping_sub(4)),
        _ => CdcSeq(script.u16()),
    };
    *last = seqno;
    let prod = match (how >> 2) & 3 {
        0 => view.rx.prod,
        1 | 2 => own.add(view.rx.prod, script.u8().into()),
        _ => Cursor::from_u64(script.u64()),
    };
    let cons = match (how >> 4) & 3 {
        0 => view.tx.peer_cons,
        1 => view.tx.prod,
        2 => peer.add(view.tx.peer_cons, script.u8().into()),
        _ => Cursor::from_u64(script.u64()),
    };
    CdcMessage {
        seqno,
        token: TOKEN,
        prod,
        cons,
        prod_flags: ProducerFlags(if how & 0x40 != 0 { script.u8() } else { 0 }),
        conn_state: ConnState(if how & 0x80 != 0 { script.u8() } else { 0 }),
    }
}

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let what = script.u8();
    let [sndbuf_len, rmb_len, peer_rmb_len] = [0; 3].map(|_| script.size(64));
    let mut victim = Victim {
        conn: Connection::new(&ConnParams {
            sndbuf_len,
            rmb_len,
            peer_rmb_len,
            peer_token: TOKEN,
            immediates: what & 1 != 0,
        })
        .expect("lengths are no zeroes"),
        life: Life::new(),
        ring: sndbuf_len,
        most: sndbuf_len,
        posted: VecDeque::new(),
        draining: false,
        closed: false,
        eof: false,
        freed: 0,
        released: 0,
    };
    if what & 2 != 0 {
        victim.most = script.u8().into();
        victim.conn.tx.raise_limit(script.u8().into());
    }
    victim.conn.rx.set_oob_inline(what & 4 != 0);
    let mut last = CdcSeq(0);

    // What comes before the peer's part is known.
    let mut early = Early::default();
    for _ in 0..what >> 4 {
        let link = script.below(LINKS);
        let msg = message(&mut script, &victim.conn, &mut last);
        early.note(link, &msg);
    }
    for (link, msg) in early.messages() {
        victim.hear(link, msg);
    }
    victim.conn.recall(&early);
    victim.event(Event::Established);

    for _ in 0..300 {
        if script.is_empty() {
            break;
        }
        let op = script.u8();
        let link = usize::from(op >> 6);
        match op & 0x0f {
            0..=2 => {
                let msg = message(&mut script, &victim.conn, &mut last);
                victim.hear(link, &msg);
            }
            3 => {
                if let Ok(msg) = CdcMessage::parse(script.take(CDC_LEN)) {
                    victim.hear(link, &msg);
                }
            }
            4 | 5 => {
                // An immediate with small numbers, or any.
                let word = if op & 0x20 == 0 {
                    (u32::from(script.u8() & 3) << 16) | u32::from(script.u8())
                } else {
                    script.u32()
                };
                let len = if op & 0x10 == 0 {
                    script.u8().into()
                } else {
                    script.u32()
                };
                victim.immediate(link, Immediate(word), len);
            }
            6 => victim.write(script.size(100), op & 0x40 != 0),
            7 if !victim.closed => {
                let n = script.u8().into();
                assert!(inside(
                    victim.conn.rx.chunks_for_peek(n, script.u8().into()),
                    rmb_len
                ));
                let n = victim.conn.rx.consume(n);
                assert!(n <= rmb_len);
                victim.push();
            }
            8 => {
                victim.complete();
            }
            9 => {
                // The link dies.
                victim.posted.clear();
                let moved = victim.conn.fail_over();
                assert!(moved.validation.is_validation());
                victim
                    .posted
                    .push_back((moved.validation.seqno, victim.conn.tx.fin()));
                victim.push();
            }
            10 => {
                let rx = &mut victim.conn.rx;
                match op >> 4 {
                    0 => rx.set_oob_inline(true),
                    1 => rx.set_oob_inline(false),
                    2 => rx.set_starved(true),
                    3 => rx.set_starved(false),
                    4 => rx.take_urgent(),
                    5 => rx.pass_mark(),
                    _ => {
                        let _ = (rx.at_mark(), rx.is_mark_at(script.u8().into()));
                    }
                }
                victim.push();
            }
            11 => {
                let unread = victim.conn.rx.readable() > 0;
                victim.closed = true;
                victim.event(Event::AppClose { unread });
            }
            12 => victim.event(Event::AppShutdownWrite),
            13 => {
                let event = [Event::Timeout, Event::LocalAbort, Event::LinkGroupDown][link % 3];
                victim.event(event);
            }
            14 => {
                if victim.conn.tx.is_short_of_room() {
                    victim.conn.tx.stay();
                }
            }
            _ => {}
        }
        victim.check();
    }
    // The application lets go, and the peer says nothing more: it is freed, once.
    let unread = victim.conn.rx.readable() > 0;
    victim.closed = true;
    victim.event(Event::AppClose { unread });
    for _ in 0..3 {
        while victim.complete() {}
        victim.event(Event::Timeout);
    }
    victim.check();
    assert_eq!((victim.freed, victim.released), (1, 1));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // Lengths 40, 20 and 20; with immediates, with growth, inline.
    for head in [
        &[0, 39, 19, 19][..],
        &[1, 39, 19, 19],
        &[3, 39, 19, 19, 200, 80],
        &[5, 9, 63, 0],
    ] {
        let with = |rest: &[u8]| [head, rest].concat();
        // Data both ways, by messages and immediates.
        all.push(with(&[
            6, 10, 0, 0x14, 5, 7, 5, 0, 8, 4, 0, 3, 3, 4, 2, 1, 7, 9, 9, 8, 6, 99, 8,
        ]));
        // Urgent.
        all.push(with(&[
            0, 0x44, 5, 0x18, 7, 9, 0, 10, 0x26, 0x46, 10, 8, 0, 0x10, 0x46, 5,
        ]));
        // A failover on either side, with data again, and what is said of it.
        all.push(with(&[
            6, 10, 9, 8, 8, 6, 3, 0x40, 0x40, 0x04, 0x40, 4, 3, 0x40, 4, 3, 0x80, 4, 2,
        ]));
        // Ends of all kinds.
        for state in [0x80, 0x40, 0x20, 0xc0] {
            all.push(with(&[6, 10, 0, 0x84, 3, state, 8, 7, 9, 9, 12, 8, 11, 8]));
            all.push(with(&[6, 10, 11, 8, 0, 0x90, state, 8, 13]));
            all.push(with(&[12, 8, 8, 0, 0x84, 3, state, 7, 9, 9, 11, 8, 13]));
        }
        all.push(with(&[
            6, 80, 6, 80, 8, 6, 80, 9, 6, 80, 8, 8, 8, 0x50, 10, 0x2a, 0x0a,
        ]));
        // As Linux says it.
        for name in [
            "00-00", "00-20", "00-40", "00-80", "00-c0", "60-00", "80-00",
        ] {
            let bytes = vector(&format!("linux/cdc-{name}"));
            all.push(with(&[&[3], &bytes[..]].concat()));
        }
    }
    // Early: data, a failover, data over the other link.
    all.push(vec![
        0x41, 39, 19, 19, 0, 4, 3, 0, 0x44, 2, 0x40, 1, 0x40, 0x04, 1, 4, 2, 4, 0, 1, 1, 7, 9, 9,
    ]);
    all
}
