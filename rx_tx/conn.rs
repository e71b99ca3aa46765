// SPDX-License-Identifier: GPL-2.0

//! The data path of one connection: both halves, and the CDC messages between the peers.
//!
//! A [`Connection`] is a plain value that its owner keeps inside one lock. It does no I/O:
//!
//! - to send: [`Connection::plan`], then [`Connection::commit_tx`], which yields the CDC message
//!   to post behind the writes of the plan, in one chain;
//! - without data: [`Connection::cdc_due`], then [`Connection::make_cdc`];
//! - on reception: [`Connection::handle_cdc`], whose [`Effects`] are performed after the lock
//!   is dropped.
//!
//! Writes and messages must be posted in the order in which they were made, that is under the
//! lock. Once made, a message counts as sent: if it cannot be posted the link is broken.

#![forbid(unsafe_code)]

use core::fmt;

use super::cdc::{
    CdcMessage,
    CdcSeq,
    ConnState,
    ProducerFlags, //
};
use super::cursor::{
    Cursor,
    Ring, //
};
use super::early::{
    self,
    Early, //
};
use super::immediate::{
    Immediate,
    Shorthand,
    Wrote, //
};
use super::receiver::{
    Receiver,
    RxView, //
};
use super::sender::{
    Completed,
    Growth,
    Sender,
    TxPlan,
    TxView, //
};
use crate::smc_core::types::AlertToken;

/// A CDC message that says what cannot be. The connection is to be aborted (RFC 7609, section
/// 4.8.2); nothing of the message has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The producer cursor is outside of the ring, behind, or beyond the window.
    ProducerCursor,
    /// The consumer cursor is outside of the ring, behind, or beyond what was sent.
    ConsumerCursor,
    /// Failover validation: the peer believes that we have received a message that we have not
    /// (RFC 7609, section 4.6.1).
    DataLost,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProducerCursor => "illegal producer cursor",
            Self::ConsumerCursor => "illegal consumer cursor",
            Self::DataLost => "data lost in failover",
        })
    }
}

/// What a CDC message leads to. To be performed after the lock is dropped, except for
/// `urgent_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Effects {
    /// Bytes that have arrived.
    pub received: u32,
    /// By how much the peer's window has opened.
    pub confirmed: u32,
    /// There is room in the send buffer: what was to go again had arrived.
    pub freed: bool,
    /// Read the byte at this offset of the RMBE and pass it to [`Receiver::set_urgent_byte`],
    /// *before* dropping the lock.
    pub urgent_offset: Option<u32>,
    /// Wake readers, because of what came. Whom the three last ones concern is for the state machine to say.
    pub readable: bool,
    /// Wake writers that wait for [`Sender::urgent_busy`].
    pub urgent_confirmed: bool,
    /// Data can be sent now that could not before: plan.
    pub push_tx: bool,
    /// A CDC message is due; any that carries data will do.
    pub send_update: bool,
    /// Urgent data is on its way or here: SIGURG, POLLPRI.
    pub sigurg: bool,
    /// The peer has just said that it writes no more (D). Data in the RMBE is still to be read.
    pub peer_done: bool,
    /// The peer has just closed (C). Data in the RMBE is still to be read.
    pub peer_closed: bool,
    /// The peer has just aborted (A): nothing in the RMBE is to be read.
    pub peer_abort: bool,
}

const _: () = assert!(size_of::<Effects>() <= 64);

impl Effects {
    /// Those of two messages, the other one later.
    fn and(self, later: Self) -> Self {
        Self {
            received: self.received.saturating_add(later.received),
            confirmed: self.confirmed.saturating_add(later.confirmed),
            freed: self.freed | later.freed,
            // An urgent byte that was not fetched in time becomes ordinary data.
            urgent_offset: later.urgent_offset.or(self.urgent_offset),
            readable: self.readable | later.readable,
            urgent_confirmed: self.urgent_confirmed | later.urgent_confirmed,
            push_tx: self.push_tx | later.push_tx,
            send_update: self.send_update | later.send_update,
            sigurg: self.sigurg | later.sigurg,
            peer_done: self.peer_done | later.peer_done,
            peer_closed: self.peer_closed | later.peer_closed,
            peer_abort: self.peer_abort | later.peer_abort,
        }
    }
}

/// What a connection needs to know from the handshake.
#[derive(Clone, Copy, Debug)]
pub struct ConnParams {
    /// Length of the ring of our send buffer.
    pub sndbuf_len: u32,
    /// Length of our RMBE.
    pub rmb_len: u32,
    /// Length of the peer's RMBE.
    pub peer_rmb_len: u32,
    /// The alert token that the peer has assigned.
    pub peer_token: AlertToken,
    /// Both sides understand messages in immediates.
    pub immediates: bool,
}

/// What has gone either way since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that were posted.
    pub bytes_sent: u64,
    /// Bytes that the peer's adapter has acknowledged.
    pub bytes_acked: u64,
    /// Bytes that have come.
    pub bytes_received: u64,
    /// Messages that were made, and those of them with data.
    pub messages_sent: u32,
    /// See `messages_sent`.
    pub data_messages_sent: u32,
    /// Messages that were applied, and those of them with data.
    pub messages_received: u32,
    /// See `messages_received`.
    pub data_messages_received: u32,
}

/// A connection at one moment, for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The sending half.
    pub tx: TxView,
    /// The receiving half.
    pub rx: RxView,
    /// What both sides have said.
    pub flags: FlagsView,
}

/// The flags of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagsView {
    /// Those of the peer's last message about data.
    pub received: ProducerFlags,
    /// Those of our last message.
    pub sent: ProducerFlags,
    /// What the peer has said about the connection.
    pub peer_state: ConnState,
    /// What we have said, or are about to say.
    pub state: ConnState,
}

/// A message that has come over the link at place `link`.
#[derive(Clone, Copy, Debug)]
struct Heard {
    link: usize,
    msg: CdcMessage,
}

/// The peer has moved the connection to another link.
#[derive(Clone, Copy, Debug)]
struct Failover {
    /// It says that we have got the message of this number. That may still be in the completion queue of
    /// the old link: nothing that comes behind it is looked at before it.
    expected: Option<CdcSeq>,
    /// It has moved again meanwhile, and says that we have got this one, too.
    then: Option<CdcSeq>,
    /// The last of what has come behind the first of them: messages are cumulative.
    held: Option<Heard>,
    /// Over this link it sends again what it does not know that we have: until that is here, a producer cursor may be
    /// behind. What came over another link, and is looked at late, does not end that.
    replay: Option<usize>,
}

impl Failover {
    /// The peer says that we have got this message, which is not here.
    fn expect(&mut self, seqno: CdcSeq) {
        match self.expected {
            None => self.expected = Some(seqno),
            // It is held, or one that came behind it over the same link.
            Some(_)
                if self
                    .held
                    .is_some_and(|held| !held.msg.seqno.is_before(seqno)) => {}
            Some(first) if first.is_before(seqno) => self.then = Some(seqno),
            Some(_) => {}
        }
    }
}

/// What moving to another link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// To be sent first (RFC 7609, section 4.6.1), then push: what goes again comes next, before any other
    /// message.
    pub validation: CdcMessage,
    /// Bytes of the send buffer that are free now.
    pub freed: u32,
}

/// The data path of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The sending half.
    pub tx: Sender,
    /// The receiving half.
    pub rx: Receiver,
    peer_token: AlertToken,
    last_sent: CdcSeq,
    /// The last one that has completed.
    last_done: CdcSeq,
    /// The last one that was made when the ring of the send buffer was exchanged.
    grown_at: CdcSeq,
    last_received: CdcSeq,
    /// The link over which the last message came, see [`Self::hear`].
    heard_on: usize,
    failover: Failover,
    state: ConnState,
    /// `state` has changed since the last message.
    state_due: bool,
    peer_state: ConnState,
    /// Producer flags of the last message, each way; for [`Self::view`] only.
    said: ProducerFlags,
    heard: ProducerFlags,
    shorthand: Option<Shorthand>,
    traffic: Traffic,
}

impl Connection {
    /// A connection with empty buffers; `None` if a length is impossible.
    pub const fn new(params: &ConnParams) -> Option<Self> {
        let (Some(sndbuf), Some(peer_rmb), Some(rmb)) = (
            Ring::new(params.sndbuf_len),
            Ring::new(params.peer_rmb_len),
            Ring::new(params.rmb_len),
        ) else {
            return None;
        };
        Some(Self {
            tx: Sender::new(sndbuf, peer_rmb),
            rx: Receiver::new(rmb),
            peer_token: params.peer_token,
            // RFC 7609, appendix A.4: the number of the first message is 1.
            last_sent: CdcSeq(0),
            last_done: CdcSeq(0),
            grown_at: CdcSeq(0),
            failover: Failover {
                expected: None,
                then: None,
                held: None,
                replay: None,
            },
            last_received: CdcSeq(0),
            heard_on: 0,
            state: ConnState(0),
            state_due: false,
            peer_state: ConnState(0),
            said: ProducerFlags(0),
            heard: ProducerFlags(0),
            shorthand: if params.immediates {
                Some(Shorthand::new())
            } else {
                None
            },
            traffic: Traffic {
                bytes_sent: 0,
                bytes_acked: 0,
                bytes_received: 0,
                messages_sent: 0,
                data_messages_sent: 0,
                messages_received: 0,
                data_messages_received: 0,
            },
        })
    }

    /// All cursors and flags.
    pub const fn view(&self) -> View {
        View {
            tx: self.tx.view(),
            rx: self.rx.view(),
            flags: FlagsView {
                received: self.heard,
                sent: self.said,
                peer_state: self.peer_state,
                state: self.state,
            },
        }
    }

    /// What has gone either way.
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// How many bytes from its beginning may have been written in the send buffer, and in the RMBE. After an
    /// abort that is not known: what was written and not told counts.
    pub fn written(&self) -> (u32, u32) {
        let (sndbuf, rmbe) = (self.tx.sndbuf_len(), self.rx.rmb_len());
        if self.state.union(self.peer_state).contains(ConnState::ABORT) {
            return (sndbuf, rmbe);
        }
        let least = |bytes: u64, len: u32| u32::try_from(bytes).unwrap_or(len).min(len);
        let traffic = &self.traffic;
        let sent = traffic.bytes_sent.saturating_add(self.tx.unsent().into());
        (least(sent, sndbuf), least(traffic.bytes_received, rmbe))
    }

    /// What the peer has said about the connection so far.
    pub const fn peer_state(&self) -> ConnState {
        self.peer_state
    }

    /// What we have said, or are about to say, about the connection.
    pub const fn state(&self) -> ConnState {
        self.state
    }

    /// Says something about the connection: from now on every message does (the flags stay
    /// on). A message is due. For D and C the send buffer must be drained first
    /// ([`Sender::is_drained`]).
    pub fn announce(&mut self, flags: ConnState) {
        if !self.state.contains(flags) {
            self.state = self.state.union(flags);
            self.state_due = true;
        }
        if flags.contains(ConnState::ABORT) {
            // RFC 7609, section 4.8.2: purge what waits to be sent.
            self.tx.discard_unsent();
        }
    }

    /// What a failover holds back may be the peer's last word: after an abort nobody reads what it waits for.
    pub fn take_held_state(&mut self) -> Effects {
        let held = self.failover.held.take();
        held.map_or(Effects::default(), |held| {
            self.apply_peer_state(held.msg.conn_state)
        })
    }

    /// Whether the peer is still to be told of a state that was announced.
    #[must_use]
    pub fn owes_state(&self) -> bool {
        self.state_due
    }

    /// Whether data may still be written into the peer's RMBE.
    fn may_write(&self) -> bool {
        // A peer that has closed may use its RMBE for another connection (RFC 7609, section
        // 4.8.1, 3C): no write may follow.
        !self.state.says_goodbye() && !self.peer_state.says_goodbye()
    }

    /// The next writes, `max` bytes at most; `None` if no data can be sent.
    pub fn plan(&self, max: u32) -> Option<TxPlan> {
        if self.may_write() {
            self.tx.plan(max)
        } else {
            None
        }
    }

    /// The writes of `plan` are going to be posted now: the CDC message to post behind them.
    /// The plan must be the latest one.
    #[must_use]
    pub fn commit_tx(&mut self, plan: &TxPlan) -> CdcMessage {
        self.tx.mark_posted(plan);
        let traffic = &mut self.traffic;
        traffic.bytes_sent = traffic.bytes_sent.wrapping_add(u64::from(plan.len));
        traffic.data_messages_sent = traffic.data_messages_sent.wrapping_add(1);
        self.make_cdc()
    }

    /// Whether a message without data is due: ask when [`Self::plan`] has nothing.
    pub fn cdc_due(&self) -> bool {
        self.state_due || self.rx.needs_update() || self.tx.urgent_notice_due()
    }

    /// The next CDC message, with everything that is to be said. It is going to be posted now;
    /// keep [`Sender::sent`] with it, for its completion.
    #[must_use]
    pub fn make_cdc(&mut self) -> CdcMessage {
        self.last_sent = self.last_sent.next();
        self.traffic.messages_sent = self.traffic.messages_sent.wrapping_add(1);
        self.state_due = false;
        let (prod, prod_flags) = self.tx.fill_cdc();
        self.said = prod_flags;
        CdcMessage {
            seqno: self.last_sent,
            token: self.peer_token,
            prod,
            cons: self.rx.fill_cdc(),
            prod_flags,
            conn_state: self.state,
        }
    }

    /// The same message as an immediate, if there is one for it and the peer can read it; `wrote` is the plan that it was made
    /// for. To be called for each message that [`Self::commit_tx`] or [`Self::make_cdc`] has made, in their order.
    pub fn shorten(&mut self, msg: &CdcMessage, plan: Option<&TxPlan>) -> Option<Immediate> {
        let wrote = plan.map_or(Wrote::NOTHING, |plan| Wrote {
            len: plan.len,
            wraps: !plan.writes[1].is_empty(),
        });
        let (own, peer) = (self.rx.ring(), self.tx.peer_ring());
        self.shorthand.as_mut()?.shorten(msg, wrote, own, peer)
    }

    /// A CDC message has come over the link at place `link`, to be given to [`Self::handle_cdc`] next.
    pub fn hear(&mut self, link: usize, msg: &CdcMessage) {
        self.heard_on = link;
        if let Some(shorthand) = self.shorthand.as_mut() {
            shorthand.hear(link, msg);
        }
    }

    /// The same for what has come early: immediates follow the last message over each link.
    pub fn recall(&mut self, early: &Early) {
        for (link, msg) in early.last() {
            self.hear(link, msg);
        }
    }

    /// An immediate has come over the link at place `link`, with the last `len` bytes of data: the message that it stands for,
    /// to be given to [`Self::hear`] and [`Self::handle_cdc`]. [`None`] if nothing has come there that it could follow: it was
    /// meant for an earlier connection, or is nonsense.
    pub fn expand(
        &self,
        link: usize,
        immediate: Immediate,
        len: u32,
    ) -> Result<Option<CdcMessage>, Violation> {
        let Some(last) = self.shorthand.as_ref().and_then(|short| short.last(link)) else {
            return Ok(None);
        };
        let (own, peer) = (self.rx.ring(), self.tx.peer_ring());
        immediate.expand(last, len, own, peer).map(Some)
    }

    /// The send buffer goes on in `ring`: see [`Sender::growth`] and [`Sender::needs_former`]. False if it does not.
    /// `pending`: messages are under way, be it that of a failover.
    #[must_use]
    pub fn grow(&mut self, ring: Ring, growth: &Growth, pending: bool) -> bool {
        let grown = self.tx.grow(ring, growth, pending);
        if grown {
            self.grown_at = self.last_sent;
        }
        grown
    }

    /// The number of the last message that was made, to be kept for its completion.
    pub const fn last_sent(&self) -> CdcSeq {
        self.last_sent
    }

    /// The link is gone, and no completion of it comes any more; there is another one.
    ///
    /// RFC 7609, section 4.6.2, second option: what was pending is combined, and gets new numbers.
    #[must_use]
    pub fn fail_over(&mut self) -> Moved {
        let validation = CdcMessage {
            seqno: self.last_done,
            token: self.peer_token,
            prod_flags: ProducerFlags::FAILOVER_VALIDATION,
            ..CdcMessage::default()
        };
        if let Some(shorthand) = self.shorthand.as_mut() {
            shorthand.fail_over();
        }
        let mut freed = 0;
        self.tx.forget_former();
        if self.last_done != self.last_sent {
            if self.may_write() {
                let (done, again) = self.tx.rewind();
                freed = done;
                let traffic = &mut self.traffic;
                traffic.bytes_acked = traffic.bytes_acked.wrapping_add(u64::from(done));
                traffic.bytes_sent = traffic.bytes_sent.wrapping_sub(u64::from(again));
            }
            // Where the peer reads and what was said about the connection may not be known there.
            self.rx.tell_again();
            self.state_due |= self.state != ConnState(0);
        }
        Moved { validation, freed }
    }

    /// Whether a message is missing of which the peer says that we have got it, see
    /// [`Self::fail_over`]. If it does not come soon, data was lost: reset.
    pub const fn lacks_message(&self) -> bool {
        self.failover.expected.is_some() && !self.state.contains(ConnState::ABORT)
    }

    /// The message with number `seqno` has completed, that was made when [`Sender::sent`] was `sent`.
    pub fn on_send_complete(&mut self, seqno: CdcSeq, sent: Cursor) -> Completed {
        if self.last_done.is_before(seqno) {
            self.last_done = seqno;
        }
        let mut sent = sent;
        if !self.grown_at.is_before(seqno) {
            sent = self.tx.translate(sent);
        }
        // Messages complete in their order.
        if !seqno.is_before(self.grown_at) {
            self.tx.forget_former();
        }
        let completed = self.tx.on_send_complete(sent);
        let acked = &mut self.traffic.bytes_acked;
        *acked = acked.wrapping_add(u64::from(completed.freed));
        completed
    }

    /// Whether a message of the peer brings data that was not here. One of a failover names no place, or one that
    /// was reached before.
    #[must_use]
    pub fn brings_data(&self, msg: &CdcMessage) -> bool {
        !msg.is_validation() && self.rx.check_peer_prod(msg.prod).is_ok_and(|n| n > 0)
    }

    /// Applies a message of the peer. Its token has led here and is not looked at again.
    pub fn handle_cdc(&mut self, msg: &CdcMessage) -> Result<Effects, Violation> {
        if msg.is_validation() {
            // RFC 7609, section 4.6.1: only the number is significant; if ours is less, data has been
            // lost. But completions of two links come in any order.
            if self.last_received.is_before(msg.seqno) {
                self.failover.expect(msg.seqno);
            }
            self.failover.replay = Some(self.heard_on);
            return Ok(Effects::default());
        }
        // RFC 7609, appendix A.4: discard what is older than the last one received.
        if msg.seqno.is_before(self.last_received) {
            return Ok(Effects::default());
        }
        // RFC 7609, section 4.8.2, 1A: who has aborted waits for the peer's abort, and ignores
        // any other activity; but that the peer has closed ends the wait as well.
        let over = self.state.union(self.peer_state).union(msg.conn_state);
        if over.contains(ConnState::ABORT) {
            self.last_received = msg.seqno;
            let held = self.take_held_state();
            return Ok(self.apply_peer_state(msg.conn_state).and(held));
        }
        let heard = Heard {
            link: self.heard_on,
            msg: *msg,
        };
        if let Some(expected) = self.failover.expected {
            if expected.is_before(msg.seqno) {
                if self.failover.then == Some(msg.seqno) {
                    self.failover.then = None;
                }
                let held = self.failover.held.get_or_insert(heard);
                if held.msg.seqno.is_before(msg.seqno) {
                    *held = Heard {
                        msg: early::behind(&held.msg, msg),
                        ..heard
                    };
                }
                return Ok(Effects::default());
            }
            if msg.seqno == expected {
                let then = self.failover.then.take();
                self.failover.expected = then;
                let mut effects = self.apply(&heard)?;
                let behind =
                    |held: &mut Heard| then.is_some_and(|seqno| seqno.is_before(held.msg.seqno));
                if let Some(held) = self.failover.held.take_if(|held| !behind(held)) {
                    effects = effects.and(self.apply(&held)?);
                }
                return Ok(effects);
            }
        }
        self.apply(&heard)
    }

    /// Applies a message that is not to be held back.
    fn apply(&mut self, heard: &Heard) -> Result<Effects, Violation> {
        let msg = &heard.msg;
        // Validate everything, then apply.
        let confirmed = self.tx.check_peer_cons(msg.cons)?;
        let replay = &mut self.failover.replay;
        let received = match self.rx.check_peer_prod(msg.prod) {
            // We have what it sends again.
            Err(_) if replay.is_some() => 0,
            checked => {
                let received = checked?;
                if received > 0 {
                    let _ = replay.take_if(|link| *link == heard.link);
                }
                received
            }
        };
        self.last_received = msg.seqno;
        self.heard = msg.prod_flags;
        let mut effects = self.apply_peer_state(msg.conn_state);
        effects.confirmed = confirmed;
        effects.received = received;
        self.apply_cons(msg, &mut effects);
        self.apply_prod(msg, &mut effects);
        let traffic = &mut self.traffic;
        traffic.messages_received = traffic.messages_received.wrapping_add(1);
        if effects.received > 0 {
            traffic.bytes_received = traffic
                .bytes_received
                .wrapping_add(u64::from(effects.received));
            traffic.data_messages_received = traffic.data_messages_received.wrapping_add(1);
        }
        effects.send_update = self.rx.needs_update();
        Ok(effects)
    }

    /// The peer has consumed data.
    fn apply_cons(&mut self, msg: &CdcMessage, effects: &mut Effects) {
        let urgent_busy = self.tx.urgent_busy();
        // What was to go again had arrived.
        let arrived = self.tx.take_peer_cons(msg.cons, effects.confirmed);
        effects.freed = arrived > 0;
        let traffic = &mut self.traffic;
        traffic.bytes_sent = traffic.bytes_sent.wrapping_add(u64::from(arrived));
        traffic.bytes_acked = traffic.bytes_acked.wrapping_add(u64::from(arrived));
        effects.urgent_confirmed = urgent_busy && !self.tx.urgent_busy();
        effects.push_tx = effects.confirmed > 0 && self.may_write() && self.tx.sendable() > 0;
    }

    /// The peer has written data.
    fn apply_prod(&mut self, msg: &CdcMessage, effects: &mut Effects) {
        let flags = msg.prod_flags;
        let blocked = flags.contains(ProducerFlags::WRITE_BLOCKED);
        if effects.received > 0 {
            self.rx.take_peer_prod(msg.prod);
        }
        self.rx.on_peer_flags(
            blocked,
            flags.contains(ProducerFlags::UPDATE_REQUESTED), //
        );
        // A reader that waits for more than is there has to think again when the peer blocks.
        effects.readable |= effects.received > 0 || blocked;
        if effects.received > 0 && flags.contains(ProducerFlags::URGENT_PRESENT) {
            effects.urgent_offset = Some(self.rx.on_urgent_present());
            effects.sigurg = true;
        } else if flags.contains(ProducerFlags::URGENT_PENDING)
            // Said again, after a failover.
            && !flags.contains(ProducerFlags::URGENT_PRESENT)
        {
            effects.sigurg = self.rx.on_urgent_pending();
        }
    }

    /// The flags of the peer about the connection. They stay on once said.
    fn apply_peer_state(&mut self, said: ConnState) -> Effects {
        let old = self.peer_state;
        let news = |flag| said.contains(flag) && !old.contains(flag);
        let effects = Effects {
            peer_done: news(ConnState::DONE_WRITING),
            peer_closed: news(ConnState::CLOSED),
            peer_abort: news(ConnState::ABORT),
            ..Effects::default()
        };
        self.peer_state = old.union(said);
        effects
    }
}

/// For tests: one of small rings, with immediates.
#[cfg(any(test, CONFIG_KUNIT = "y"))]
pub(super) fn test_conn() -> Connection {
    Connection::new(&ConnParams {
        sndbuf_len: 100,
        rmb_len: 50,
        peer_rmb_len: 50,
        peer_token: AlertToken(7),
        immediates: true,
    })
    .unwrap()
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_conn))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        test_conn as conn,
        *, //
    };

    /// What is posted next.
    fn post(from: &mut Connection) -> CdcMessage {
        match from.plan(u32::MAX) {
            Some(plan) => from.commit_tx(&plan),
            None => from.make_cdc(),
        }
    }

    fn transmit(from: &mut Connection, to: &mut Connection) -> Effects {
        to.handle_cdc(&post(from)).unwrap()
    }

    /// The message with so many bytes, of which the device says that it has arrived.
    fn complete(from: &mut Connection, n: u32) -> CdcMessage {
        from.tx.commit(n);
        let plan = from.plan(u32::MAX).unwrap();
        let message = from.commit_tx(&plan);
        from.on_send_complete(message.seqno, from.tx.sent());
        message
    }

    #[test]
    fn data_and_window_travel() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(80);
        let effects = transmit(&mut a, &mut b);
        assert_eq!((effects.received, effects.readable), (50, true));
        assert!(!b.cdc_due());
        b.rx.consume(50);
        assert!(b.cdc_due());
        let effects = transmit(&mut b, &mut a);
        assert!(effects.push_tx && effects.confirmed == 50);
        assert_eq!(transmit(&mut a, &mut b).received, 30);
    }

    #[test]
    fn the_last_completion_stands_for_those_before_it() {
        let (mut each, mut last, mut peer) = (conn(), conn(), conn());
        let mut done = [(CdcSeq(0), Cursor::ZERO); 3];
        for (n, done) in [10, 20, 15].into_iter().zip(&mut done) {
            for conn in [&mut each, &mut last] {
                conn.tx.commit(n);
            }
            transmit(&mut each, &mut peer);
            let plan = last.plan(u32::MAX).unwrap();
            let _ = last.commit_tx(&plan);
            *done = (last.last_sent(), last.tx.sent());
        }
        for (seqno, sent) in done {
            each.on_send_complete(seqno, sent);
        }
        let (seqno, sent) = done[2];
        assert_eq!(last.on_send_complete(seqno, sent).freed, 45);
        assert_eq!(each.view().tx, last.view().tx);
        assert_eq!(each.fail_over(), last.fail_over());
        assert!(last.tx.is_drained() && !last.cdc_due());
        assert_eq!(last.traffic().bytes_acked, each.traffic().bytes_acked);
    }

    #[test]
    fn what_may_have_been_written() {
        let (mut a, mut b) = (conn(), conn());
        assert_eq!(a.written(), (0, 0));
        a.tx.commit(80);
        transmit(&mut a, &mut b);
        // What waits in the send buffer counts.
        assert_eq!((a.written(), b.written()), ((80, 0), (0, 50)));
        b.rx.consume(50);
        transmit(&mut b, &mut a);
        transmit(&mut a, &mut b);
        a.on_send_complete(a.last_sent(), a.tx.sent());
        a.tx.commit(40);
        // Around the rings.
        assert_eq!((a.written(), b.written()), ((100, 0), (0, 50)));
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(10);
        transmit(&mut a, &mut b);
        a.announce(ConnState::ABORT);
        assert_eq!((a.written(), b.written()), ((100, 50), (0, 10)));
        transmit(&mut a, &mut b);
        assert_eq!(b.written(), (100, 50));
    }

    #[test]
    fn both_sides_see_the_same() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(80);
        transmit(&mut a, &mut b);
        b.rx.consume(20);
        b.announce(ConnState::DONE_WRITING);
        transmit(&mut b, &mut a);
        let (a, b) = (a.view(), b.view());
        assert_eq!((a.tx.prep.count, a.tx.sent.count), (80, 50));
        assert_eq!((a.tx.fin, a.tx.peer_rmb_len), (Cursor::ZERO, 50));
        // All of the window was used.
        assert_eq!((a.tx.prod, a.flags.sent), (b.rx.prod, b.flags.received));
        assert_eq!(a.flags.sent, ProducerFlags::WRITE_BLOCKED);
        assert_eq!((a.tx.peer_cons, b.rx.cons.count), (b.rx.cons, 20));
        assert_eq!(a.flags.peer_state, ConnState::DONE_WRITING);
        assert_eq!(b.flags.state, ConnState::DONE_WRITING);
        assert_eq!((a.flags.state, b.flags.peer_state), Default::default());
    }

    #[test]
    fn numbers_start_at_one_and_old_ones_are_ignored() {
        let (mut a, mut b) = (conn(), conn());
        let first = a.make_cdc();
        assert_eq!((first.seqno, first.token), (CdcSeq(1), AlertToken(7)));
        a.tx.commit(10);
        transmit(&mut a, &mut b);
        assert_eq!(b.handle_cdc(&first), Ok(Effects::default()));
        assert_eq!(b.rx.readable(), 10);
    }

    #[test]
    fn an_illegal_message_changes_nothing() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(10);
        let plan = a.plan(u32::MAX).unwrap();
        let good = a.commit_tx(&plan);
        let cons = Cursor { wrap: 0, count: 1 };
        let bad = CdcMessage { cons, ..good };
        assert_eq!(b.handle_cdc(&bad), Err(Violation::ConsumerCursor));
        assert_eq!(b.rx.readable(), 0);
        assert_eq!(b.handle_cdc(&good).map(|e| e.received), Ok(10));
    }

    #[test]
    fn a_request_is_answered_even_without_news() {
        let (mut a, mut b) = (conn(), conn());
        let mut msg = a.make_cdc();
        msg.prod_flags = ProducerFlags::UPDATE_REQUESTED;
        assert!(b.handle_cdc(&msg).unwrap().send_update);
        assert!(b.cdc_due());
        let _ = b.make_cdc();
        assert!(!b.cdc_due());
    }

    #[test]
    fn closing_is_said_once_and_stays_said() {
        let (mut a, mut b) = (conn(), conn());
        a.announce(ConnState::DONE_WRITING);
        assert!(a.cdc_due());
        assert!(transmit(&mut a, &mut b).peer_done);
        assert!(!a.cdc_due());
        assert!(!transmit(&mut a, &mut b).peer_done);
        a.announce(ConnState::CLOSED);
        assert!(a.owes_state());
        let effects = transmit(&mut a, &mut b);
        assert!(!a.owes_state());
        assert!(effects.peer_closed && !effects.peer_done);
        // The peer's RMBE may not be touched any more.
        b.tx.commit(1);
        assert_eq!(b.plan(u32::MAX), None);
    }

    #[test]
    fn abort_needs_no_valid_cursors_and_ends_everything() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(10);
        a.announce(ConnState::ABORT);
        assert_eq!(a.tx.unsent(), 0);
        let mut msg = a.make_cdc();
        msg.prod.count = u32::MAX;
        assert!(b.handle_cdc(&msg).unwrap().peer_abort);
        b.tx.commit(1);
        assert_eq!(b.plan(u32::MAX), None);
        // And the one that has aborted ignores the rest.
        assert_eq!(a.handle_cdc(&b.make_cdc()), Ok(Effects::default()));
    }

    /// What is posted next, which does not arrive.
    fn lose(from: &mut Connection) {
        let _ = post(from);
    }

    #[test]
    fn failover_validation_waits_for_what_is_missing() {
        let (mut a, mut b) = (conn(), conn());
        transmit(&mut a, &mut b);
        a.on_send_complete(a.last_sent(), a.tx.sent());
        let moved = a.fail_over();
        assert_eq!(moved.validation.seqno, CdcSeq(1));
        assert_eq!(b.handle_cdc(&moved.validation), Ok(Effects::default()));
        assert!(!b.lacks_message());
        // One that has completed here, and is not looked at there yet.
        let late = complete(&mut a, 5);
        b.handle_cdc(&a.fail_over().validation).unwrap();
        assert!(b.lacks_message());
        a.tx.commit(3);
        assert_eq!(transmit(&mut a, &mut b).received, 0);
        assert!(b.lacks_message());
        assert_eq!(b.handle_cdc(&late).map(|effects| effects.received), Ok(8));
        assert!(!b.lacks_message());
    }

    /// Who has aborted waits for the end of the peer, and for nothing that a failover says is missing.
    #[test]
    fn an_abort_waits_for_no_missing_message() {
        let (mut a, mut b) = (conn(), conn());
        complete(&mut a, 10);
        // It brings data for nobody, so that it is answered, and not applied.
        b.announce(ConnState::ABORT);
        b.handle_cdc(&a.fail_over().validation).unwrap();
        assert!(!b.lacks_message());
        a.announce(ConnState::CLOSED);
        assert!(b.handle_cdc(&a.make_cdc()).unwrap().peer_closed);
    }

    /// The peer's last word is held back for a message that comes late, and which nobody reads.
    #[test]
    fn an_abort_hears_what_was_held_back() {
        for more_comes in [true, false] {
            let (mut a, mut b) = (conn(), conn());
            let late = complete(&mut a, 10);
            b.handle_cdc(&a.fail_over().validation).unwrap();
            a.announce(ConnState::CLOSED);
            assert_eq!(transmit(&mut a, &mut b), Effects::default());
            assert!(b.brings_data(&late));
            b.announce(ConnState::ABORT);
            if more_comes {
                assert!(b.handle_cdc(&late).unwrap().peer_closed);
            } else {
                assert!(b.take_held_state().peer_closed);
                assert!(!b.take_held_state().peer_closed);
            }
            assert!(!b.handle_cdc(&a.make_cdc()).unwrap().peer_closed);
        }
    }

    #[test]
    fn failover_loses_and_doubles_nothing() {
        // Every message but the first is lost on the way, or only its acknowledgement is.
        for arrives in [false, true] {
            let (mut a, mut b) = (conn(), conn());
            a.tx.commit(20);
            transmit(&mut a, &mut b);
            a.on_send_complete(a.last_sent(), a.tx.sent());
            a.tx.commit(25);
            a.announce(ConnState::DONE_WRITING);
            if arrives {
                assert_eq!(transmit(&mut a, &mut b).received, 25);
            } else {
                lose(&mut a);
            }
            let moved = a.fail_over();
            assert_eq!((moved.validation.seqno, moved.freed), (CdcSeq(1), 0));
            assert_eq!(b.handle_cdc(&moved.validation), Ok(Effects::default()));
            a.tx.commit(10);
            let effects = transmit(&mut a, &mut b);
            // The window has room for five more.
            assert_eq!(effects.received, if arrives { 5 } else { 30 });
            assert_eq!(effects.peer_done, !arrives);
            assert_eq!((b.rx.readable(), a.tx.unsent()), (50, 5));
            assert_eq!(a.traffic().bytes_sent, b.traffic().bytes_received);
        }
    }

    #[test]
    fn an_urgent_byte_that_is_held_back_stays_urgent() {
        let (mut a, mut b) = (conn(), conn());
        let late = complete(&mut a, 5);
        b.handle_cdc(&a.fail_over().validation).unwrap();
        a.tx.commit_urgent(1);
        assert_eq!(transmit(&mut a, &mut b), Effects::default());
        // Behind it comes another message, which says nothing of it.
        assert_eq!(transmit(&mut a, &mut b), Effects::default());
        let effects = b.handle_cdc(&late).unwrap();
        assert_eq!((effects.received, effects.urgent_offset), (6, Some(5)));
        assert_eq!(b.rx.readable(), 5);
    }

    #[test]
    fn a_failover_brings_no_data() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(20);
        transmit(&mut a, &mut b);
        a.tx.commit(5);
        lose(&mut a);
        let moved = a.fail_over();
        assert!(!b.brings_data(&moved.validation));
        b.handle_cdc(&moved.validation).unwrap();
        // What goes again, and is here.
        let again = CdcMessage {
            prod: Cursor { wrap: 0, count: 10 },
            ..a.make_cdc()
        };
        assert!(!b.brings_data(&again));
        let plan = a.plan(u32::MAX).unwrap();
        let more = a.commit_tx(&plan);
        assert!(b.brings_data(&more));
        b.handle_cdc(&more).unwrap();
        assert!(!b.brings_data(&more) && !b.brings_data(&a.make_cdc()));
    }

    #[test]
    fn failover_of_the_other_side_repeats_its_window() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(50);
        transmit(&mut a, &mut b);
        b.rx.consume(50);
        lose(&mut b);
        assert!(!b.cdc_due());
        a.handle_cdc(&b.fail_over().validation).unwrap();
        assert!(b.cdc_due());
        assert_eq!(transmit(&mut b, &mut a).confirmed, 50);
        // Nothing was under way: nothing to repeat.
        b.on_send_complete(b.last_sent(), b.tx.sent());
        let _ = b.fail_over();
        assert!(!b.cdc_due());
    }

    #[test]
    fn a_cursor_may_be_behind_after_failover_only() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit(20);
        transmit(&mut a, &mut b);
        let mut behind = a.make_cdc();
        behind.prod = Cursor::ZERO;
        assert_eq!(b.handle_cdc(&behind), Err(Violation::ProducerCursor));
        b.handle_cdc(&a.fail_over().validation).unwrap();
        assert_eq!(b.handle_cdc(&behind).map(|effects| effects.received), Ok(0));
        assert_eq!(b.rx.readable(), 20);
        a.tx.commit(1);
        assert_eq!(transmit(&mut a, &mut b).received, 1);
        behind.seqno = CdcSeq(90);
        assert_eq!(b.handle_cdc(&behind), Err(Violation::ProducerCursor));
    }

    #[test]
    fn a_second_failover_while_a_message_of_the_first_is_missing() {
        let (mut a, mut b) = (conn(), conn());
        let late = complete(&mut a, 5);
        b.handle_cdc(&a.fail_over().validation).unwrap();
        a.tx.commit(3);
        assert_eq!(transmit(&mut a, &mut b).received, 0);
        a.on_send_complete(a.last_sent(), a.tx.sent());
        // That link goes, too.
        b.handle_cdc(&a.fail_over().validation).unwrap();
        assert_eq!(b.handle_cdc(&late).map(|e| e.received), Ok(8));
        assert!(!b.lacks_message());
    }
    #[test]
    fn a_second_failover_may_lack_a_message_of_its_own() {
        for last_first in [false, true] {
            let (mut a, mut b) = (conn(), conn());
            let mut late = [0, 1].map(|_| {
                let late = complete(&mut a, 5);
                b.handle_cdc(&a.fail_over().validation).unwrap();
                late
            });
            // One of each link, then the one that goes on.
            a.tx.commit(3);
            assert_eq!(transmit(&mut a, &mut b).received, 0);
            if last_first {
                late.reverse();
            }
            assert!(b.lacks_message());
            let first = b.handle_cdc(&late[0]).unwrap().received;
            assert_eq!(
                (first, b.lacks_message()),
                (if last_first { 0 } else { 5 }, true)
            );
            let both = b.handle_cdc(&late[1]).unwrap().received;
            assert_eq!((first + both, b.lacks_message()), (13, false));
        }
    }

    #[test]
    fn what_comes_late_over_the_old_link_does_not_end_the_replay() {
        for over in [0, 1] {
            let (mut a, mut b) = (conn(), conn());
            let mut give = |link, msg: &CdcMessage| {
                b.hear(link, msg);
                b.handle_cdc(msg).map(|effects| effects.received)
            };
            let send = |a: &mut Connection, bytes| {
                a.tx.commit(bytes);
                let plan = a.plan(u32::MAX).unwrap();
                a.commit_tx(&plan)
            };
            assert_eq!(give(0, &send(&mut a, 10)), Ok(10));
            a.on_send_complete(a.last_sent(), a.tx.sent());
            // Arrives, is acknowledged late for a, looked at late by b.
            let late = send(&mut a, 5);
            let moved = a.fail_over();
            assert_eq!(give(1, &moved.validation), Ok(0));
            assert_eq!(give(0, &late), Ok(5));
            // As C: a consumer update before the replay, with the producer cursor of before.
            let behind = a.make_cdc();
            assert_eq!(behind.prod.count, 10);
            assert_eq!(give(1, &behind), Ok(0));
            // The replay, and more: from then on nothing may be behind.
            assert_eq!(give(over, &send(&mut a, 7)), Ok(7));
            let behind = CdcMessage {
                prod: behind.prod,
                ..a.make_cdc()
            };
            let ended = Err(Violation::ProducerCursor);
            assert_eq!(give(1, &behind), if over == 1 { ended } else { Ok(0) });
        }
    }

    #[test]
    fn urgent_data_travels_out_of_line() {
        let (mut a, mut b) = (conn(), conn());
        a.tx.commit_urgent(3);
        a.tx.commit(4);
        let effects = transmit(&mut a, &mut b);
        assert!(effects.sigurg);
        assert_eq!(effects.urgent_offset, Some(2));
        assert_eq!(b.rx.readable(), 2);
        assert!(a.plan(u32::MAX).is_none());
        b.rx.consume(2);
        let effects = transmit(&mut b, &mut a);
        assert!(effects.urgent_confirmed && effects.push_tx);
        assert_eq!(transmit(&mut a, &mut b).received, 4);
    }
}
