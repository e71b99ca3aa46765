// SPDX-License-Identifier: GPL-2.0

//! Two connections and a network between them, in memory. The code here does what the glue of
//! the kernel module does, and checks every byte that arrives.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::collections::VecDeque;

use smc_proto::{
    rx_tx::{
        cdc::{CdcMessage, CdcSeq},
        conn::*,
        cursor::{
            Cursor,
            Ring,
            Spans, //
        },
        immediate::Immediate,
        receiver::UrgentByte,
    },
    smc_core::{
        state::{
            Event,
            Farewell,
            Life, //
        },
        types::AlertToken,
    },
};

/// The byte at a position of every stream.
pub fn stream(position: u64) -> u8 {
    let mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u8 ^ position as u8
}

/// What is posted as one chain: RDMA writes, and the CDC message behind them.
#[derive(Debug)]
pub struct Chain {
    writes: Vec<(u32, Vec<u8>)>,
    cdc: Said,
    seqno: CdcSeq,
    sent: Cursor,
    /// Which link it goes over.
    link: usize,
}

/// How a CDC message travels.
#[derive(Debug)]
pub enum Said {
    Message([u8; 44]),
    Immediate(Immediate),
}

/// One side.
#[derive(Debug)]
pub struct Peer {
    pub conn: Connection,
    pub life: Life,
    sndbuf: Vec<u8>,
    /// Up to which the send buffer grows by itself.
    most: u32,
    rmb: Vec<u8>,
    /// On the way to the other side, in order.
    pub wire: VecDeque<Chain>,
    /// Delivered, and the completion not seen yet.
    pub completions: VecDeque<(CdcSeq, Cursor)>,
    /// Work requests that may be posted at a time.
    slots: usize,
    pub written: u64,
    pub read: u64,
    /// Positions of urgent bytes that this side has written, out of line for the reader.
    pub urgent: VecDeque<u64>,
    pub eof: bool,
    pub reset: bool,
    /// The application has closed.
    pub closed: bool,
    /// No link is left.
    dead: bool,
    draining: bool,
    pub freed: u32,
    pub released: u32,
    /// CDC messages without data.
    pub updates: u64,
    pub chains: u64,
    /// Those of them with an immediate.
    pub immediates: u64,
    link: usize,
    /// In the other side's memory over a link that is gone, and not heard of there yet.
    late: VecDeque<Chain>,
}

impl Peer {
    pub fn new(sndbuf_len: u32, rmb_len: u32, peer_rmb_len: u32, slots: usize) -> Self {
        let params = ConnParams {
            sndbuf_len,
            rmb_len,
            peer_rmb_len,
            peer_token: AlertToken(1),
            immediates: true,
        };
        let mut life = Life::new();
        life.handle(Event::Established);
        Self {
            conn: Connection::new(&params).unwrap(),
            life,
            sndbuf: vec![0; sndbuf_len as usize],
            most: sndbuf_len,
            rmb: vec![0; rmb_len as usize],
            wire: VecDeque::new(),
            completions: VecDeque::new(),
            slots,
            written: 0,
            read: 0,
            urgent: VecDeque::new(),
            eof: false,
            reset: false,
            closed: false,
            dead: false,
            draining: false,
            freed: 0,
            released: 0,
            updates: 0,
            chains: 0,
            immediates: 0,
            link: 0,
            late: VecDeque::new(),
        }
    }

    /// The same with a send buffer of `limit` bytes that begins with a smaller ring, and grows up to `most`.
    pub fn growing(mut self, limit: u32, most: u32) -> Self {
        self.conn.tx.raise_limit(limit);
        self.most = most;
        self
    }

    /// Exchanges the ring of the send buffer if `n` more bytes need a larger one.
    fn grow_for(&mut self, n: u32) {
        let Some(growth) = self.conn.tx.growth(n) else {
            return;
        };
        let len = self.conn.tx.sndbuf_len();
        let mut larger = gather(&self.sndbuf, growth.source);
        larger.resize(len as usize, 0);
        // While it is copied, what was there goes on to be sent.
        self.complete();
        let pending = !self.wire.is_empty() || !self.completions.is_empty();
        let ring = Ring::new(len).unwrap();
        assert!(self.conn.grow(ring, &growth, pending));
        self.sndbuf = larger;
    }

    /// `send()`: as much as there is space for.
    pub fn write(&mut self, n: u32, urgent: bool) -> u32 {
        if !self.life.may_write() || (urgent && self.conn.tx.urgent_busy()) {
            return 0;
        }
        self.grow_for(n);
        let spans = self.conn.tx.chunks_for_write(n);
        for span in spans.iter() {
            for at in span.offset..span.offset + span.len {
                self.sndbuf[at as usize] = stream(self.written);
                self.written += 1;
            }
        }
        let n = spans.len();
        if urgent && n > 0 {
            assert_eq!(self.conn.tx.commit_urgent(n), n);
            self.urgent.push_back(self.written - 1);
        } else {
            assert_eq!(self.conn.tx.commit(n), n);
        }
        self.push();
        n
    }

    /// What the reader should have: everything, except urgent bytes at the very end, which are
    /// stepped over without being read.
    pub fn readable_end(&self) -> u64 {
        let mut end = self.written;
        for &position in self.urgent.iter().rev() {
            end -= u64::from(position + 1 == end);
        }
        end
    }

    /// Posts what can be posted.
    pub fn push(&mut self) {
        while !self.dead && self.wire.len() + self.completions.len() < self.slots {
            let (writes, plan, cdc) = match self.conn.plan(u32::MAX) {
                Some(plan) => {
                    let len: u32 = plan.writes.iter().map(|w| w.len()).sum();
                    assert_eq!(len, plan.len);
                    let writes = plan
                        .writes
                        .iter()
                        .filter(|w| !w.is_empty())
                        .map(|w| (w.remote_offset, gather(&self.sndbuf, w.source)))
                        .collect();
                    (writes, Some(plan), self.conn.commit_tx(&plan))
                }
                None if self.conn.cdc_due() => {
                    self.updates += 1;
                    (Vec::new(), None, self.conn.make_cdc())
                }
                None => break,
            };
            self.chains += 1;
            let cdc = match self.conn.shorten(&cdc, plan.as_ref()) {
                Some(immediate) => {
                    self.immediates += 1;
                    Said::Immediate(immediate)
                }
                None => Said::Message(cdc.emit()),
            };
            self.wire.push_back(Chain {
                link: self.link,
                writes,
                cdc,
                seqno: self.conn.last_sent(),
                sent: self.conn.tx.sent(),
            });
            // `Conn::push` relies on that.
            let nothing = self.conn.plan(u32::MAX).is_none() && !self.conn.cdc_due();
            assert!(nothing, "a message has said everything");
        }
        self.report_drained();
    }

    /// The oldest completion is seen.
    pub fn complete(&mut self) -> bool {
        let Some((seqno, sent)) = self.completions.pop_front() else {
            return false;
        };
        self.conn.on_send_complete(seqno, sent);
        if self.conn.tx.is_short_of_room() {
            let next = self.conn.tx.sndbuf_len() * 2;
            self.conn.tx.raise_limit(next.min(self.most));
        }
        self.push();
        true
    }

    /// The adapter writes.
    fn store(&mut self, chain: &Chain) {
        for (offset, bytes) in &chain.writes {
            let at = *offset as usize;
            // An adapter refuses what is outside of the memory region.
            self.rmb[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The adapter tells.
    pub fn receive(&mut self, chain: &Chain, from: &mut Peer) {
        let msg = match &chain.cdc {
            Said::Message(bytes) => CdcMessage::parse(bytes).unwrap(),
            // An adapter tells how much the last write has written.
            Said::Immediate(immediate) => {
                let len = chain
                    .writes
                    .last()
                    .map_or(0, |(_, bytes)| bytes.len() as u32);
                let expanded = self.conn.expand(chain.link, *immediate, len);
                expanded.unwrap().expect("it follows a message")
            }
        };
        self.conn.hear(chain.link, &msg);
        if self.comes_for_nobody(&msg) {
            self.event(Event::LocalAbort);
        }
        let effects = self.conn.handle_cdc(&msg).expect("a fair peer");
        if let Some(offset) = effects.urgent_offset {
            let byte = self.rmb[offset as usize];
            self.conn.rx.set_urgent_byte(byte);
            let position = *from.urgent.back().expect("urgent data was sent");
            assert_eq!(self.conn.rx.urgent(), UrgentByte::Valid(stream(position)));
            assert!(effects.sigurg);
        }
        self.apply(&effects);
    }

    /// Whether data comes that nobody is going to read: `take_cdc` answers it with a reset.
    fn comes_for_nobody(&self, msg: &CdcMessage) -> bool {
        let said = self.conn.state().union(msg.conn_state);
        let aborted = said.contains(smc_proto::rx_tx::cdc::ConnState::ABORT);
        !self.eof && self.life.is_orphan() && !aborted && self.conn.brings_data(msg)
    }

    /// Does what a message leads to, in the order of `take_cdc`.
    fn apply(&mut self, effects: &Effects) {
        let unsent = self.conn.tx.unsent() > 0;
        if effects.push_tx || effects.send_update || effects.freed {
            self.push();
        }
        if effects.peer_abort {
            self.event(Event::PeerAbort);
        } else if effects.peer_closed {
            self.event(Event::PeerClosed { unsent });
        } else if effects.peer_done {
            self.event(Event::PeerDoneWriting);
        }
    }

    /// A message that need not be true; what it says of data is looked at by nobody.
    pub fn hear_a_lie(&mut self, link: usize, msg: &CdcMessage) {
        self.conn.hear(link, msg);
        if self.comes_for_nobody(msg) {
            self.event(Event::LocalAbort);
        }
        match self.conn.handle_cdc(msg) {
            Ok(effects) => {
                if let Some(offset) = effects.urgent_offset {
                    let byte = self.rmb[offset as usize];
                    self.conn.rx.set_urgent_byte(byte);
                }
                self.apply(&effects);
            }
            Err(_) => self.event(Event::LocalAbort),
        }
    }

    /// The other side's adapter has acknowledged the oldest chain, whatever it has done with it.
    pub fn acknowledge(&mut self) -> bool {
        let Some(chain) = self.wire.pop_front() else {
            return false;
        };
        self.completions.push_back((chain.seqno, chain.sent));
        true
    }

    /// `close()`.
    pub fn close(&mut self, unread: bool) {
        self.closed = true;
        self.event(Event::AppClose { unread });
    }

    /// No link is left: nothing arrives or completes any more.
    pub fn lose_all(&mut self) {
        self.dead = true;
        self.wire.clear();
        self.completions.clear();
        self.late.clear();
    }

    /// `recv()` with a buffer of `n` bytes. With `all`, as with MSG_WAITALL: nothing is
    /// taken before `n` bytes are there, or the end.
    pub fn read(&mut self, n: u32, all: bool, from: &mut Peer) -> u32 {
        if all && self.conn.rx.readable_now() < n && !self.eof {
            self.conn.rx.set_starved(true);
            if self.conn.cdc_due() {
                self.push();
            }
            return 0;
        }
        self.conn.rx.set_starved(false);
        let spans = self.conn.rx.chunks_for_read(n);
        for byte in gather(&self.rmb, spans) {
            while from.urgent.front() == Some(&self.read) {
                from.urgent.pop_front();
                self.read += 1;
            }
            assert_eq!(byte, stream(self.read), "at {}", self.read);
            self.read += 1;
        }
        assert_eq!(self.conn.rx.consume(spans.len()), spans.len());
        if self.conn.cdc_due() {
            self.push();
        }
        spans.len()
    }

    /// Feeds an event to the life, and does what it says.
    pub fn event(&mut self, event: Event) {
        let actions = self.life.handle(event);
        self.draining |= actions.wait_drained;
        if actions.discard_unsent {
            self.conn.tx.discard_unsent();
        }
        if let Some(farewell) = actions.send {
            self.conn.announce(match farewell {
                Farewell::DoneWriting => smc_proto::rx_tx::cdc::ConnState::DONE_WRITING,
                Farewell::Closed => smc_proto::rx_tx::cdc::ConnState::CLOSED,
                Farewell::Abort => smc_proto::rx_tx::cdc::ConnState::ABORT,
            });
        }
        self.eof |= actions.eof;
        self.reset |= actions.reset;
        self.released += u32::from(actions.release_peer_ref);
        self.freed += u32::from(actions.free);
        self.push();
    }

    fn report_drained(&mut self) {
        if self.draining && self.conn.tx.is_drained() {
            self.draining = false;
            self.event(Event::Drained);
        }
    }
}

fn gather(ring: &[u8], spans: Spans) -> Vec<u8> {
    let mut bytes = Vec::new();
    for span in spans.iter() {
        let at = span.offset as usize;
        bytes.extend_from_slice(&ring[at..at + span.len as usize]);
    }
    bytes
}

/// Both sides.
#[derive(Debug)]
pub struct Pair {
    pub sides: [Peer; 2],
}

impl Pair {
    /// Delivers the oldest chain of a side to the other.
    pub fn deliver(&mut self, from: usize) -> bool {
        let (from, to) = self.both(from);
        let Some(chain) = from.wire.pop_front() else {
            return false;
        };
        from.completions.push_back((chain.seqno, chain.sent));
        to.store(&chain);
        to.receive(&chain, from);
        true
    }

    /// The other side hears of a chain that has come over a link that is gone.
    pub fn deliver_late(&mut self, from: usize) -> bool {
        let (from, to) = self.both(from);
        let Some(chain) = from.late.pop_front() else {
            return false;
        };
        to.receive(&chain, from);
        true
    }

    /// The link of a side dies. Of what is under way the first `arriving` chains arrive, without being acknowledged; of the
    /// next `late` ones, of which some are acknowledged, the other side hears later. The rest goes again on
    /// another link.
    pub fn fail_over(&mut self, side: usize, arriving: usize, late: usize, acknowledged: usize) {
        // It hears of all before that link's place is another one's.
        while self.deliver_late(side) {}
        for _ in 0..arriving {
            self.deliver(side);
        }
        let (from, to) = self.both(side);
        let late = late.min(from.wire.len());
        let acknowledged = acknowledged.min(late);
        if acknowledged > 0 {
            for (seqno, sent) in from.completions.drain(..) {
                from.conn.on_send_complete(seqno, sent);
            }
        }
        for number in 0..late {
            let chain = from.wire.pop_front().expect("it was counted");
            to.store(&chain);
            if number < acknowledged {
                from.conn.on_send_complete(chain.seqno, chain.sent);
            }
            from.late.push_back(chain);
        }
        from.wire.clear();
        from.completions.clear();
        from.link = (from.link + 1) % 3;
        let moved = from.conn.fail_over();
        from.wire.push_back(Chain {
            writes: Vec::new(),
            cdc: Said::Message(moved.validation.emit()),
            link: from.link,
            seqno: moved.validation.seqno,
            sent: from.conn.tx.fin(),
        });
        from.push();
    }

    /// A side reads.
    pub fn read(&mut self, reader: usize, n: u32, all: bool) -> u32 {
        let (reader, writer) = self.both(reader);
        reader.read(n, all, writer)
    }

    /// Delivers and completes until nothing is under way.
    pub fn settle(&mut self) {
        let mut budget = 100_000;
        loop {
            let mut moved = false;
            for side in 0..2 {
                moved |= self.deliver(side);
                moved |= self.deliver_late(side);
                moved |= self.sides[side].complete();
            }
            if !moved {
                return;
            }
            budget -= 1;
            assert!(budget > 0, "messages without end");
        }
    }

    /// Lets both readers read until nothing moves any more.
    pub fn drain(&mut self, chunk: u32, all: bool) {
        loop {
            self.settle();
            let got: u32 = (0..2).map(|side| self.read(side, chunk, all)).sum();
            self.settle();
            if got == 0 && !(0..2).any(|side| self.can_read(side, chunk, all)) {
                return;
            }
        }
    }

    fn can_read(&self, side: usize, chunk: u32, all: bool) -> bool {
        let there = self.sides[side].conn.rx.readable_now();
        there > 0 && (!all || there >= chunk || self.sides[side].eof)
    }

    fn both(&mut self, first: usize) -> (&mut Peer, &mut Peer) {
        let [a, b] = &mut self.sides;
        if first == 0 {
            (a, b)
        } else {
            (b, a)
        }
    }
}
