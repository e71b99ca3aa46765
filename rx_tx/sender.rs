// SPDX-License-Identifier: GPL-2.0

//! The sending half of a connection: send buffer, the peer's window, urgent data.
//!
//! Four cursors walk the send buffer, each at most one ring ahead of the next:
//!
//! ```text
//!   fin ........ sent ........ prep ........ fin + len
//!     posted, not   written by the   free for the
//!     completed     application      application
//! ```
//!
//! and two the peer's RMBE: `prod`, up to which we have written, and `peer_cons`, up to which
//! the peer has read. `sent` and `prod` move together.
//!
//! The ring may be smaller than what the application may write, and is then exchanged for a larger one once that is
//! needed: [`Sender::growth`] says what to copy, [`Sender::grow`] goes on in the new ring. Until the messages that
//! were made before have completed, the device reads from the old one, and their positions are translated.

#![forbid(unsafe_code)]

use super::cdc::ProducerFlags;
use super::conn::Violation;
use super::cursor::{
    Cursor,
    Ring,
    Spans, //
};
use super::plan::{
    plan_writes,
    RdmaWrite, //
};

/// A batch of RDMA writes, and where it takes the cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPlan {
    /// The writes; skip empty ones.
    pub writes: [RdmaWrite; 2],
    /// Bytes in all writes, never 0.
    pub len: u32,
    /// Producer cursor after the writes.
    pub prod: Cursor,
    /// Position in the send buffer after the writes: remember it with the CDC message that
    /// follows, for [`Sender::on_send_complete`].
    pub sent: Cursor,
    /// The last byte is urgent.
    pub urgent: bool,
}

const _: () = assert!(size_of::<TxPlan>() <= 64);

/// What a send completion brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Completed {
    /// Bytes of the send buffer that are free again.
    pub freed: u32,
    /// The socket has become writable: wake writers.
    pub writable: bool,
}

/// The cursors of the sending half, for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxView {
    /// Length of the peer's RMBE.
    pub peer_rmb_len: u32,
    /// In the send buffer: behind what the application has written.
    pub prep: Cursor,
    /// Behind what was posted.
    pub sent: Cursor,
    /// Behind what has completed.
    pub fin: Cursor,
    /// In the peer's RMBE: where we write next.
    pub prod: Cursor,
    /// Where the peer reads next.
    pub peer_cons: Cursor,
}

/// What is to be copied to the beginning of a larger ring, see [`Sender::grow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    from: Cursor,
    /// Where it is in the ring that there is.
    pub source: Spans,
}

/// The ring that there was, while something that was posted from it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Former {
    ring: Ring,
    /// The position that the new ring begins with.
    from: Cursor,
}

/// Urgent data on the sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgent {
    /// None on its way.
    Idle,
    /// In the send buffer; `end` is the position after the urgent byte.
    Queued { end: Cursor, told: bool },
    /// Written to the peer, which has not consumed it yet. `flag_due`: the message that says
    /// so is still to be made.
    Posted { flag_due: bool },
}

/// The sending half of a connection.
///
/// # Invariants
///
/// - `fin <= sent <= prep <= fin + ring.len()` in the send buffer.
/// - `ring.len() <= limit`.
/// - `peer_cons <= prod <= peer_cons + peer_ring.len()` in the peer's RMBE.
#[derive(Debug)]
pub struct Sender {
    ring: Ring,
    /// Bytes that the application may have in the send buffer: those of the ring, or more if it is to grow.
    limit: u32,
    former: Option<Former>,
    peer_ring: Ring,
    prep: Cursor,
    sent: Cursor,
    fin: Cursor,
    prod: Cursor,
    peer_cons: Cursor,
    /// Bytes behind `sent` that were posted on a link that is gone, and may have arrived all the same.
    again: u32,
    urgent: Urgent,
}

impl Sender {
    /// An empty send buffer in front of an empty RMBE.
    pub const fn new(ring: Ring, peer_ring: Ring) -> Self {
        Self {
            ring,
            limit: ring.len(),
            former: None,
            peer_ring,
            prep: Cursor::ZERO,
            sent: Cursor::ZERO,
            fin: Cursor::ZERO,
            prod: Cursor::ZERO,
            peer_cons: Cursor::ZERO,
            again: 0,
            urgent: Urgent::Idle,
        }
    }

    /// Length of the send buffer: what the application may have in it, whatever the ring has room for now.
    pub const fn sndbuf_len(&self) -> u32 {
        self.limit
    }

    /// The application may have so many bytes in the send buffer; not less than before.
    pub fn raise_limit(&mut self, limit: u32) {
        self.limit = self.limit.max(limit.min(Ring::MAX_LEN));
    }

    /// There is no memory for a larger ring.
    pub fn stay(&mut self) {
        self.limit = self.ring.len();
    }

    /// Whether it is for want of room, and of nothing else, that nothing more is sent: a larger send buffer would help.
    pub fn is_short_of_room(&self) -> bool {
        self.limit == self.ring.len()
            && self.former.is_none()
            && self.sent == self.prep
            && self.window() > 0
    }

    /// The ring is too small for `n` more bytes, which the application may write: what to copy into one of
    /// [`Self::sndbuf_len`] bytes.
    ///
    /// The bytes stay as they are until more is written, whatever is sent, completes or is discarded meanwhile.
    pub fn growth(&self, n: u32) -> Option<Growth> {
        // Most often there is room.
        if n <= self.room() || self.former.is_some() || n.min(self.free()) <= self.room() {
            return None;
        }
        Some(Growth {
            from: self.fin,
            source: self.ring.spans(self.fin, self.used()),
        })
    }

    /// Goes on in `ring`, to whose beginning the bytes of `growth` were copied. `pending`: messages are under way.
    /// False, and nothing has changed, if that is not a larger ring, or `growth` is none of this one.
    pub(super) fn grow(&mut self, ring: Ring, growth: &Growth, pending: bool) -> bool {
        let former = Former {
            ring: self.ring,
            from: growth.from,
        };
        let moved = |at| former.translate(ring, at);
        let (Some(fin), Some(sent), Some(prep), true, None) = (
            moved(self.fin),
            moved(self.sent),
            moved(self.prep),
            ring.len() > self.ring.len(),
            self.former,
        ) else {
            return false;
        };
        if let Urgent::Queued { end, .. } = &mut self.urgent {
            let Some(moved) = moved(*end) else {
                return false;
            };
            *end = moved;
        }
        (self.fin, self.sent, self.prep) = (fin, sent, prep);
        self.former = pending.then_some(former);
        self.ring = ring;
        self.limit = self.limit.max(ring.len());
        true
    }

    /// Whether something is under way that was posted from the ring that there was before.
    pub const fn needs_former(&self) -> bool {
        self.former.is_some()
    }

    /// Nothing that was posted from the ring before is under way any more.
    pub(super) fn forget_former(&mut self) {
        self.former = None;
    }

    /// A position that a message made before the ring was exchanged has remembered.
    pub(super) fn translate(&self, sent: Cursor) -> Cursor {
        let moved = |former: Former| former.translate(self.ring, sent);
        self.former
            .map_or(sent, |former| moved(former).unwrap_or(self.fin))
    }

    /// The peer's RMB element.
    pub(super) const fn peer_ring(&self) -> Ring {
        self.peer_ring
    }

    /// All cursors.
    pub(super) const fn view(&self) -> TxView {
        TxView {
            peer_rmb_len: self.peer_ring.len(),
            prep: self.prep,
            sent: self.sent,
            fin: self.fin,
            prod: self.prod,
            peer_cons: self.peer_cons,
        }
    }

    /// Bytes of the peer's RMB element.
    pub const fn peer_rmb_len(&self) -> u32 {
        self.peer_ring.len()
    }

    /// Bytes in the send buffer: not sent, or sent and not completed.
    pub fn used(&self) -> u32 {
        self.ring.diff(self.fin, self.prep).unwrap_or(0)
    }

    /// Bytes that the application may write now.
    pub fn free(&self) -> u32 {
        self.limit.saturating_sub(self.used())
    }

    /// Bytes for which there is room in the ring as it is.
    fn room(&self) -> u32 {
        self.ring.len().saturating_sub(self.used())
    }

    /// Whether poll reports the socket writable: a third of the buffer is free, as with TCP, so
    /// that a writer is not woken for every byte.
    pub fn is_writable(&self) -> bool {
        self.free() >= self.used() / 2
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> u32 {
        self.ring.diff(self.sent, self.prep).unwrap_or(0)
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        self.sent != self.prep
    }

    /// Whether everything written has arrived at the peer's adapter: the condition for the
    /// message that closes (RFC 7609, section 4.8.1, 3A).
    pub fn is_drained(&self) -> bool {
        self.fin == self.prep
    }

    /// The peer's window: bytes that may be written into its RMBE.
    pub fn window(&self) -> u32 {
        self.peer_ring.len().saturating_sub(self.unconfirmed())
    }

    /// Bytes that were sent and the peer has not consumed yet (or not told us).
    pub fn unconfirmed(&self) -> u32 {
        self.peer_ring
            .diff(self.peer_cons, self.prod)
            .unwrap_or(self.peer_ring.len())
    }

    /// Where in the send buffer the next `n` bytes of the application go; less if there is less
    /// space.
    pub fn chunks_for_write(&self, n: u32) -> Spans {
        self.ring.spans(self.prep, n.min(self.room()))
    }

    /// Takes over `n` bytes that were copied to where [`Self::chunks_for_write`] said. Returns
    /// how many there were: never more than the space.
    pub fn commit(&mut self, n: u32) -> u32 {
        let n = n.min(self.room());
        self.prep = self.ring.add(self.prep, n);
        n
    }

    /// As [`Self::commit`], and the last of the bytes is urgent. Wait until
    /// [`Self::urgent_busy`] is false before: the protocol has one urgent mark at a time
    /// (RFC 7609, section 4.7.5, step 3).
    pub fn commit_urgent(&mut self, n: u32) -> u32 {
        let n = self.commit(n);
        if n > 0 && !self.urgent_busy() {
            self.urgent = Urgent::Queued {
                end: self.prep,
                told: false,
            };
        }
        n
    }

    /// Whether urgent data is on its way that the peer has not consumed.
    pub fn urgent_busy(&self) -> bool {
        self.urgent != Urgent::Idle
    }

    /// Whether the peer should hear of urgent data that cannot be sent, as the window is closed
    /// (RFC 7609, section 4.7.6, step 1).
    pub(super) fn urgent_notice_due(&self) -> bool {
        matches!(self.urgent, Urgent::Queued { told: false, .. }) && self.window() == 0
    }

    /// Bytes that can be sent now.
    pub fn sendable(&self) -> u32 {
        if self.sent == self.prep {
            return 0;
        }
        let n = self.unsent().min(self.window());
        match self.urgent {
            Urgent::Idle => n,
            // Stop behind the urgent byte: the producer cursor has to point there.
            Urgent::Queued { end, .. } => n.min(self.ring.diff(self.sent, end).unwrap_or(0)),
            // RFC 7609, section 4.7.5, step 3: no further writes before the peer has
            // confirmed the urgent byte.
            Urgent::Posted { .. } => 0,
        }
    }

    /// The next writes, `max` bytes at most; `None` if nothing can be sent. Nothing changes
    /// before [`Self::mark_posted`].
    pub fn plan(&self, max: u32) -> Option<TxPlan> {
        let len = self.sendable().min(max);
        if len == 0 {
            return None;
        }
        let sent = self.ring.add(self.sent, len);
        Some(TxPlan {
            writes: plan_writes(self.ring, self.sent, self.peer_ring, self.prod, len),
            len,
            prod: self.peer_ring.add(self.prod, len),
            sent,
            urgent: matches!(self.urgent, Urgent::Queued { end, .. } if end == sent),
        })
    }

    /// The writes of `plan` are going to be posted. The plan must be the latest one, and
    /// nothing posted since.
    pub(super) fn mark_posted(&mut self, plan: &TxPlan) {
        self.sent = plan.sent;
        self.prod = plan.prod;
        self.again = self.again.saturating_sub(plan.len);
        if plan.urgent {
            self.urgent = Urgent::Posted { flag_due: true };
        }
    }

    /// The CDC message that was made when `sent` was the end of what was posted has completed,
    /// and with it, on a reliable connection, every write before it: that part of the send
    /// buffer is free. Old and impossible positions change nothing.
    pub fn on_send_complete(&mut self, sent: Cursor) -> Completed {
        let in_flight = self.ring.diff(self.fin, self.sent).unwrap_or(0);
        let freed = match self.ring.diff(self.fin, sent) {
            Some(n) if n <= in_flight => n,
            _ => 0,
        };
        let was_writable = self.is_writable();
        self.fin = self.ring.add(self.fin, freed);
        Completed {
            freed,
            writable: !was_writable && self.is_writable(),
        }
    }

    /// The link is gone, and nothing that was posted on it completes any more: what has not completed
    /// is to be sent again (RFC 7609, section 4.6.2), but for what the peer has read, and so has got.
    /// Returns how many bytes of the send buffer are free now, and how many go again.
    ///
    /// The next [`Self::plan`] has at least everything that goes again: it was within the window.
    pub(super) fn rewind(&mut self) -> (u32, u32) {
        let in_flight = self.ring.diff(self.fin, self.sent).unwrap_or(0);
        let unread = self.unconfirmed();
        let again = in_flight.min(unread);
        let freed = in_flight.saturating_sub(again);
        let end = self.sent;
        self.again = self.again.saturating_add(again);
        self.fin = self.ring.add(self.fin, freed);
        self.sent = self.fin;
        self.prod = self
            .peer_ring
            .add(self.peer_cons, unread.saturating_sub(again));
        match &mut self.urgent {
            // Nothing follows an urgent byte that is posted, so it is the last that goes again.
            Urgent::Posted { .. } if again > 0 => {
                self.urgent = Urgent::Queued { end, told: false };
            }
            Urgent::Queued { told, .. } => *told = false,
            Urgent::Posted { .. } | Urgent::Idle => {}
        }
        (freed, again)
    }

    /// The position that a message made now has to remember, see [`Self::on_send_complete`].
    pub const fn sent(&self) -> Cursor {
        self.sent
    }

    /// Behind what has completed.
    pub const fn fin(&self) -> Cursor {
        self.fin
    }

    /// Checks the peer's consumer cursor: it cannot have consumed what was not sent, and cannot
    /// go back. Returns how far it has moved.
    pub(super) fn check_peer_cons(&self, cons: Cursor) -> Result<u32, Violation> {
        match self.peer_ring.diff(self.peer_cons, cons) {
            Some(n) if n <= self.unconfirmed().saturating_add(self.again) => Ok(n),
            _ => Err(Violation::ConsumerCursor),
        }
    }

    /// The peer has consumed data, `n` bytes by [`Self::check_peer_cons`]. Returns how many bytes that were to go again had arrived:
    /// they are free.
    pub(super) fn take_peer_cons(&mut self, cons: Cursor, n: u32) -> u32 {
        if n == 0 && self.urgent == Urgent::Idle {
            return 0;
        }
        let arrived = n.saturating_sub(self.unconfirmed());
        if arrived > 0 {
            // It was about to go again.
            self.again = self.again.saturating_sub(arrived);
            self.prod = cons;
            self.sent = self.ring.add(self.sent, arrived);
            self.fin = self.sent;
        }
        self.peer_cons = cons;
        // The urgent byte is the last that was sent.
        let passed = match self.urgent {
            Urgent::Posted { .. } => true,
            Urgent::Queued { end, .. } => arrived > 0 && end == self.sent,
            Urgent::Idle => false,
        };
        if passed && self.unconfirmed() == 0 {
            self.urgent = Urgent::Idle;
        }
        arrived
    }

    /// Producer cursor and flags for a CDC message.
    pub(super) fn fill_cdc(&mut self) -> (Cursor, ProducerFlags) {
        // B is said whenever the window is used up, data waiting or not: data that is written
        // later then needs no message of its own to say it (RFC 7609, appendix A.4, B-bit).
        let mut flags = ProducerFlags::default().with(
            ProducerFlags::WRITE_BLOCKED,
            self.window() == 0, //
        );
        match &mut self.urgent {
            Urgent::Idle => {}
            Urgent::Queued { told, .. } => {
                *told = true;
                flags = flags.with(ProducerFlags::URGENT_PENDING, true);
            }
            // Said in one message only, as Linux does: a receiver takes a repetition for more
            // urgent data.
            Urgent::Posted { flag_due } => {
                let due = core::mem::replace(flag_due, false);
                flags = flags
                    .with(ProducerFlags::URGENT_PENDING, due)
                    .with(ProducerFlags::URGENT_PRESENT, due);
            }
        }
        (self.prod, flags)
    }

    /// Throws away what is not sent, and tells how many bytes that was. For a connection that
    /// is aborted (RFC 7609, section 4.8.2, 2A).
    pub fn discard_unsent(&mut self) -> u32 {
        let n = self.unsent();
        self.prep = self.sent;
        if matches!(self.urgent, Urgent::Queued { .. }) {
            self.urgent = Urgent::Idle;
        }
        n
    }
}

impl Former {
    /// The same place in `ring`, if it was in this one, from the beginning of what was copied on.
    fn translate(&self, ring: Ring, at: Cursor) -> Option<Cursor> {
        Some(ring.add(Cursor::ZERO, self.ring.diff(self.from, at)?))
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_sender))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    impl Sender {
        fn on_peer_cons(&mut self, cons: Cursor) -> Result<u32, Violation> {
            let n = self.check_peer_cons(cons)?;
            self.take_peer_cons(cons, n);
            Ok(n)
        }
    }

    fn sender(len: u32, peer_len: u32) -> Sender {
        Sender::new(Ring::new(len).unwrap(), Ring::new(peer_len).unwrap())
    }

    fn send(sender: &mut Sender) -> TxPlan {
        let plan = sender.plan(u32::MAX).unwrap();
        sender.mark_posted(&plan);
        plan
    }

    #[test]
    fn bytes_pass_through() {
        let mut s = sender(100, 60);
        assert_eq!(s.chunks_for_write(1000).len(), 100);
        assert_eq!(s.commit(80), 80);
        let plan = send(&mut s);
        assert_eq!((plan.len, s.unsent(), s.window()), (60, 20, 0));
        assert!(s.fill_cdc().1.contains(ProducerFlags::WRITE_BLOCKED));
        assert_eq!(s.plan(u32::MAX), None);

        assert_eq!(s.on_send_complete(plan.sent).freed, 60);
        assert_eq!(s.free(), 80);
        assert_eq!(s.on_peer_cons(Cursor { wrap: 0, count: 10 }), Ok(10));
        assert_eq!(send(&mut s).len, 10);
    }

    #[test]
    fn the_peer_cannot_confirm_what_was_not_sent() {
        let mut s = sender(100, 60);
        s.commit(10);
        send(&mut s);
        let at = |wrap, count| Cursor { wrap, count };
        for bad in [at(0, 11), at(1, 0), at(0, 60), at(0, u32::MAX), at(7, 3)] {
            assert_eq!(s.on_peer_cons(bad), Err(Violation::ConsumerCursor));
        }
        assert_eq!(s.on_peer_cons(at(0, 10)), Ok(10));
        assert_eq!(s.on_peer_cons(at(0, 9)), Err(Violation::ConsumerCursor));
    }

    #[test]
    fn nothing_follows_urgent_data_before_it_is_confirmed() {
        let mut s = sender(100, 60);
        s.commit(5);
        s.commit_urgent(5);
        s.commit(7);
        let plan = send(&mut s);
        assert_eq!((plan.len, plan.urgent), (10, true));
        let urgent = ProducerFlags::URGENT_PENDING.with(ProducerFlags::URGENT_PRESENT, true);
        assert!(s.fill_cdc().1.contains(urgent));
        assert_eq!(s.fill_cdc().1, ProducerFlags::default());
        assert!(s.plan(u32::MAX).is_none() && s.urgent_busy());
        s.on_peer_cons(plan.prod).unwrap();
        assert!(!s.urgent_busy());
        assert_eq!(send(&mut s).len, 7);
    }

    #[test]
    fn urgent_data_behind_a_closed_window_is_announced_once() {
        let mut s = sender(100, 60);
        s.commit(60);
        send(&mut s);
        s.commit_urgent(1);
        assert!(s.urgent_notice_due());
        assert!(s.fill_cdc().1.contains(ProducerFlags::URGENT_PENDING));
        assert!(!s.urgent_notice_due());
    }

    #[test]
    fn what_has_not_completed_goes_again() {
        let mut s = sender(100, 60);
        s.commit(80);
        let first = send(&mut s);
        assert_eq!(s.on_peer_cons(Cursor { wrap: 0, count: 20 }), Ok(20));
        send(&mut s);
        // 80 bytes are under way, of which the peer has read 20.
        assert_eq!(s.rewind(), (20, 60));
        assert_eq!((s.used(), s.unsent(), s.window()), (60, 60, 60));
        let again = send(&mut s);
        assert_eq!((again.len, again.prod), (60, Cursor { wrap: 1, count: 20 }));
        assert_eq!(again.writes[0].remote_offset, 20);
        assert_eq!(again.sent, Cursor { wrap: 0, count: 80 });
        // What has completed does not.
        assert_eq!(s.on_send_complete(first.sent).freed, 40);
        assert_eq!(s.rewind(), (0, 20));
    }

    #[test]
    fn an_urgent_byte_is_urgent_again() {
        let mut s = sender(100, 60);
        s.commit_urgent(10);
        s.commit(7);
        assert!(send(&mut s).urgent);
        let _ = s.fill_cdc();
        assert_eq!(s.rewind(), (0, 10));
        let again = send(&mut s);
        assert_eq!((again.len, again.urgent), (10, true));
        assert!(s.fill_cdc().1.contains(ProducerFlags::URGENT_PRESENT));
        s.on_send_complete(again.sent);
        assert_eq!(s.rewind(), (0, 0));
        assert!(s.urgent_busy() && s.plan(u32::MAX).is_none());
    }

    #[test]
    fn a_ring_grows_while_messages_are_under_way() {
        let mut s = sender(100, 600);
        s.raise_limit(400);
        s.commit(90);
        let old = send(&mut s);
        s.on_send_complete(Cursor { wrap: 0, count: 80 });
        s.commit_urgent(40);
        assert_eq!((s.used(), s.free(), s.growth(50)), (50, 350, None));
        let growth = s.growth(51).unwrap();
        assert_eq!((growth.source.first.offset, growth.source.len()), (80, 50));
        // Meanwhile a part of that completes.
        s.on_send_complete(Cursor { wrap: 0, count: 85 });
        assert!(!s.grow(Ring::new(100).unwrap(), &growth, true));
        assert!(s.grow(Ring::new(400).unwrap(), &growth, true));
        assert_eq!((s.used(), s.unsent(), s.free()), (45, 40, 355));
        assert_eq!(s.chunks_for_write(355).first.offset, 50);
        assert!(s.needs_former() && s.growth(355).is_none());
        assert_eq!(s.translate(old.sent), Cursor { wrap: 0, count: 10 });
        assert_eq!(s.on_send_complete(s.translate(old.sent)).freed, 5);
        s.forget_former();
        let new = send(&mut s);
        assert_eq!((new.len, new.writes[0].source.first.offset), (40, 10));
        assert!(new.urgent);
        assert_eq!(s.on_send_complete(new.sent).freed, 40);
        assert!(s.is_drained());
    }

    #[test]
    fn without_memory_the_ring_is_the_limit() {
        let mut s = sender(100, 600);
        s.raise_limit(400);
        s.commit(100);
        assert!(s.free() == 300 && !s.is_short_of_room());
        s.stay();
        assert!(s.free() == 0 && s.growth(1).is_none() && !s.is_short_of_room());
        send(&mut s);
        assert!(s.is_short_of_room());
    }

    #[test]
    fn foreign_completions_change_nothing() {
        let mut s = sender(100, 60);
        s.commit(10);
        let sent = send(&mut s).sent;
        let ahead = Cursor { wrap: 0, count: 20 };
        assert_eq!(s.on_send_complete(ahead), Completed::default());
        assert_eq!(s.on_send_complete(sent).freed, 10);
        assert_eq!(s.on_send_complete(sent).freed, 0);
        assert!(s.is_drained());
    }
}
