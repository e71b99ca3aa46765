// SPDX-License-Identifier: GPL-2.0

//! The receiving half of a connection: the RMBE that the peer writes into, and urgent data.
//!
//! ```text
//!   told ........ cons ........ prod ........ told + len
//!     consumed, the   readable      the peer may
//!     peer does not                 write here
//!     know
//! ```
//!
//! # Urgent data
//!
//! The *mark* is the position after the urgent byte. Reading stops before the urgent byte, as
//! with TCP. If urgent data is not inline, the byte is then skipped at once, so that the peer,
//! which must not send before it is confirmed, goes on; the byte itself was put aside when it
//! came (RFC 7609, section 4.7.5, step 3: "processed/remembered at the SMC-R layer").

#![forbid(unsafe_code)]

use super::conn::Violation;
use super::cursor::{
    Cursor,
    Ring,
    Spans, //
};
use super::window::WindowView;

/// The urgent byte, for `recv(MSG_OOB)` and for poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UrgentByte {
    /// There is none, or it was read: `EINVAL`.
    #[default]
    None,
    /// Announced and not here yet: `EAGAIN`.
    Announced,
    /// Here.
    Valid(u8),
}

/// The cursors of the receiving half, for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxView {
    /// Where the peer writes next.
    pub prod: Cursor,
    /// Where the application reads next.
    pub cons: Cursor,
}

/// The receiving half of a connection.
///
/// # Invariants
///
/// `told <= cons <= prod <= told + ring.len()`; `cons < mark <= prod` if there is a mark.
#[derive(Debug)]
pub struct Receiver {
    ring: Ring,
    prod: Cursor,
    cons: Cursor,
    told: Cursor,
    peer_blocked: bool,
    /// Tell the peer, whatever the window rule says.
    update_forced: bool,
    /// A reader sleeps until there is more than what is readable.
    starved: bool,
    mark: Option<Cursor>,
    /// The last read ended at the urgent byte that was skipped.
    skipped_mark: bool,
    urgent: UrgentByte,
    oob_inline: bool,
}

impl Receiver {
    /// An empty RMBE.
    pub const fn new(ring: Ring) -> Self {
        Self {
            ring,
            prod: Cursor::ZERO,
            cons: Cursor::ZERO,
            told: Cursor::ZERO,
            peer_blocked: false,
            update_forced: false,
            starved: false,
            mark: None,
            skipped_mark: false,
            urgent: UrgentByte::None,
            oob_inline: false,
        }
    }

    /// Length of the RMBE.
    pub const fn rmb_len(&self) -> u32 {
        self.ring.len()
    }

    /// The RMBE.
    pub(super) const fn ring(&self) -> Ring {
        self.ring
    }

    /// All cursors.
    pub(super) const fn view(&self) -> RxView {
        RxView {
            prod: self.prod,
            cons: self.cons,
        }
    }

    /// Bytes that are there and not consumed, an urgent byte out of line included.
    fn unread(&self) -> u32 {
        self.ring.diff(self.cons, self.prod).unwrap_or(0)
    }

    /// Bytes consumed that the peer does not know of.
    pub fn untold(&self) -> u32 {
        self.ring.diff(self.told, self.cons).unwrap_or(0)
    }

    /// Bytes before the urgent byte; `None` if no urgent byte is ahead.
    fn before_urgent(&self) -> Option<u32> {
        let mark = self.mark?;
        self.ring.diff(self.cons, mark)?.checked_sub(1)
    }

    /// Bytes that the application can read in all.
    pub fn readable(&self) -> u32 {
        let out_of_line = u32::from(self.mark.is_some() && !self.oob_inline);
        self.unread().saturating_sub(out_of_line)
    }

    /// What `SIOCINQ` says: with TCP it ends at urgent data out of line, as a read does.
    pub fn readable_before_mark(&self) -> u32 {
        match self.before_urgent() {
            _ if self.oob_inline => self.readable(),
            Some(n) => n,
            None if self.skipped_mark => 0,
            None => self.readable(),
        }
    }

    /// Bytes that one read can return: it stops before urgent data, as with TCP.
    pub fn readable_now(&self) -> u32 {
        self.peekable(0)
    }

    /// Where the next `n` bytes to read are; less if there are less, or urgent data is among
    /// them.
    pub fn chunks_for_read(&self, n: u32) -> Spans {
        self.chunks_for_peek(0, n)
    }

    /// As [`Self::chunks_for_read`], but behind the first `skip` bytes: for `MSG_PEEK` with an
    /// offset, and for splice.
    pub fn chunks_for_peek(&self, skip: u32, n: u32) -> Spans {
        let (at, len) = self.ahead(skip);
        self.ring.spans(self.ring.add(self.cons, at), n.min(len))
    }

    /// Bytes that a look can return which leaves out the first `skip`.
    pub fn peekable(&self, skip: u32) -> u32 {
        self.ahead(skip).1
    }

    /// Would the next byte behind the first `skip` be the urgent one, or the one after it?
    pub fn is_mark_at(&self, skip: u32) -> bool {
        self.before_urgent() == Some(skip)
    }

    /// Where the bytes behind the first `skip` are, from the consumer cursor on, and how many up to
    /// the mark or the end. An urgent byte out of line does not count.
    fn ahead(&self, skip: u32) -> (u32, u32) {
        let unread = self.unread();
        let (at, end) = match self.before_urgent() {
            Some(before) if skip < before => (skip, before),
            Some(_) => (skip.saturating_add(u32::from(!self.oob_inline)), unread),
            None => (skip, unread),
        };
        (at.min(unread), end.saturating_sub(at))
    }

    /// The application has read `n` bytes. Returns how many that can have been. Ask
    /// [`Self::needs_update`] afterwards.
    pub fn consume(&mut self, n: u32) -> u32 {
        let n = n.min(self.readable_now());
        if n == 0 {
            return 0;
        }
        if self.mark.is_none() {
            self.pass_mark();
            self.cons = self.ring.add(self.cons, n);
            return n;
        }
        if self.before_urgent().is_some_and(|before| n > before) {
            // Inline: the urgent byte is read.
            self.mark = None;
            self.urgent = UrgentByte::None;
            self.update_forced = true;
        }
        self.pass_mark();
        self.cons = self.ring.add(self.cons, n);
        self.skip_urgent();
        n
    }

    /// A read goes on behind the mark, even if there is nothing: as with TCP the urgent byte cannot be
    /// had any more.
    pub fn pass_mark(&mut self) {
        if core::mem::take(&mut self.skipped_mark) {
            self.urgent = UrgentByte::None;
        }
    }

    /// Steps over an urgent byte out of line, once everything before it is read.
    fn skip_urgent(&mut self) {
        if !self.oob_inline && self.before_urgent() == Some(0) {
            self.cons = self.ring.add(self.cons, 1);
            self.mark = None;
            self.skipped_mark = true;
            // RFC 7609, section 4.7.5, step 3: this update "must occur, regardless of the
            // current local window size".
            self.update_forced = true;
        }
    }

    /// Whether a consumer cursor update is to be sent now. See [`super::window`].
    pub fn needs_update(&self) -> bool {
        // Most often nothing was read since the last message.
        if self.update_forced || self.told == self.cons {
            return self.update_forced;
        }
        let untold = self.untold();
        // Then most often little was.
        if !self.peer_blocked && WindowView::is_little(self.ring.len(), untold) {
            return false;
        }
        let view = WindowView {
            len: self.ring.len(),
            unread: self.unread(),
            untold,
            peer_blocked: self.peer_blocked,
            reader_starved: self.starved,
        };
        view.update_worthwhile()
    }

    /// A reader goes to sleep for more than what is readable (or has woken up): call it with
    /// true before sleeping and ask [`Self::needs_update`] then.
    pub fn set_starved(&mut self, starved: bool) {
        self.starved = starved;
    }

    /// Sets `SO_OOBINLINE`.
    pub fn set_oob_inline(&mut self, inline: bool) {
        self.oob_inline = inline;
        self.skip_urgent();
    }

    /// Whether the next byte is the urgent one, or follows the one that was skipped
    /// (`SIOCATMARK`).
    pub fn at_mark(&self) -> bool {
        self.skipped_mark || self.before_urgent() == Some(0)
    }

    /// The urgent byte out of line.
    pub const fn urgent(&self) -> UrgentByte {
        self.urgent
    }

    /// The urgent byte was read by the application.
    pub fn take_urgent(&mut self) {
        self.urgent = UrgentByte::None;
    }

    /// The urgent byte, read from where the effects of the CDC message said.
    pub fn set_urgent_byte(&mut self, byte: u8) {
        self.urgent = UrgentByte::Valid(byte);
    }

    /// Checks the peer's producer cursor: the peer cannot write beyond the consumer cursor that
    /// it was told (RFC 7609, appendix A.4), and cannot go back. Returns the number of new bytes.
    pub(super) fn check_peer_prod(&self, prod: Cursor) -> Result<u32, Violation> {
        // From `told`, not from `prod`: more than one ring ahead of it has no difference.
        let old = self.ring.diff(self.told, self.prod);
        let new = self.ring.diff(self.told, prod);
        match (old, new) {
            (Some(old), Some(new)) => new.checked_sub(old).ok_or(Violation::ProducerCursor),
            _ => Err(Violation::ProducerCursor),
        }
    }

    /// The last message may not have got through.
    pub(super) fn tell_again(&mut self) {
        self.update_forced = true;
    }

    /// The peer has written data, up to a cursor that [`Self::check_peer_prod`] has just found possible.
    pub(super) fn take_peer_prod(&mut self, prod: Cursor) {
        self.prod = prod;
    }

    /// The last of the new bytes is urgent (U bit). Returns its offset in the RMBE; it is to be
    /// read before the lock is dropped, see [`Self::set_urgent_byte`].
    pub(super) fn on_urgent_present(&mut self) -> u32 {
        // A mark that is still ahead becomes ordinary data, as with TCP.
        self.mark = Some(self.prod);
        self.urgent = UrgentByte::Announced;
        // Nor is the next read one behind the mark before.
        self.skipped_mark = false;
        self.skip_urgent();
        self.ring.offset_before(self.prod)
    }

    /// Urgent data is on its way (P bit). Returns whether that is news.
    pub(super) fn on_urgent_pending(&mut self) -> bool {
        let news = self.urgent != UrgentByte::Announced;
        self.urgent = UrgentByte::Announced;
        if news {
            self.skipped_mark = false;
        }
        news
    }

    /// The flags of the peer that ask for updates.
    pub(super) fn on_peer_flags(&mut self, blocked: bool, requested: bool) {
        self.peer_blocked = blocked;
        // RFC 7609, appendix A.4, R-bit: an immediate update, whether warranted or not.
        self.update_forced |= requested;
    }

    /// Consumer cursor for a CDC message, which tells the peer everything.
    pub(super) fn fill_cdc(&mut self) -> Cursor {
        self.told = self.cons;
        self.update_forced = false;
        self.cons
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_receiver))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    impl Receiver {
        fn on_peer_prod(&mut self, prod: Cursor) -> Result<u32, Violation> {
            let n = self.check_peer_prod(prod)?;
            self.take_peer_prod(prod);
            Ok(n)
        }
    }

    fn receiver(len: u32) -> Receiver {
        Receiver::new(Ring::new(len).unwrap())
    }

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    #[test]
    fn the_peer_cannot_write_more_than_its_window() {
        let mut r = receiver(100);
        assert_eq!(r.on_peer_prod(at(0, 60)), Ok(60));
        for bad in [at(0, 59), at(0, 100), at(1, 1), at(2, 0), at(0, u32::MAX)] {
            assert_eq!(r.on_peer_prod(bad), Err(Violation::ProducerCursor));
        }
        assert_eq!(r.on_peer_prod(at(1, 0)), Ok(40));
        // Consumed, but the peer was not told: it cannot know.
        r.consume(50);
        assert!(r.on_peer_prod(at(1, 10)).is_err());
        r.fill_cdc();
        assert_eq!(r.on_peer_prod(at(1, 50)), Ok(50));
        assert_eq!(r.chunks_for_read(u32::MAX).len(), 100);
    }

    #[test]
    fn an_urgent_byte_out_of_line_is_skipped() {
        let mut r = receiver(100);
        r.on_peer_prod(at(0, 10)).unwrap();
        assert_eq!(r.on_urgent_present(), 9);
        assert_eq!(r.urgent(), UrgentByte::Announced);
        r.set_urgent_byte(b'!');
        assert_eq!((r.readable(), r.at_mark()), (9, false));
        r.on_peer_prod(at(0, 20)).unwrap();
        assert_eq!((r.readable(), r.readable_now()), (19, 9));
        assert!(!r.needs_update());
        assert_eq!(r.consume(50), 9);
        assert!(r.at_mark() && r.needs_update());
        assert_eq!(r.fill_cdc(), at(0, 10));
        assert_eq!(r.chunks_for_read(50).first.offset, 10);
        assert_eq!(
            (r.readable_before_mark(), r.urgent()),
            (0, UrgentByte::Valid(b'!'))
        );
        // Who reads on has passed it.
        assert_eq!(r.consume(50), 10);
        assert!(!r.at_mark());
        assert_eq!(r.urgent(), UrgentByte::None);
    }

    #[test]
    fn looks_go_up_to_the_mark_and_on_behind_it() {
        for inline in [false, true] {
            let mut r = receiver(100);
            r.set_oob_inline(inline);
            r.on_peer_prod(at(0, 6)).unwrap();
            r.on_urgent_present();
            r.on_peer_prod(at(0, 16)).unwrap();
            // Five bytes, the urgent one, ten more.
            assert_eq!((r.peekable(0), r.peekable(2)), (5, 3));
            assert!(!r.is_mark_at(2) && r.is_mark_at(5));
            let (rest, first) = if inline { (11, 5) } else { (10, 6) };
            assert_eq!(r.peekable(5), rest);
            assert_eq!(r.chunks_for_peek(5, 99).first.offset, first);
            assert_eq!(r.peekable(5 + rest), 0);
            assert_eq!(r.peekable(u32::MAX), 0);
        }
    }

    #[test]
    fn a_read_before_the_next_mark_leaves_its_byte() {
        let mut r = receiver(100);
        r.on_peer_prod(at(0, 1)).unwrap();
        r.on_urgent_present();
        r.set_urgent_byte(b'!');
        r.take_urgent();
        assert!(r.at_mark());
        r.on_peer_prod(at(0, 5)).unwrap();
        r.on_urgent_present();
        r.set_urgent_byte(b'?');
        assert!(!r.at_mark());
        assert_eq!(r.consume(50), 3);
        assert!(r.at_mark());
        assert_eq!(r.urgent(), UrgentByte::Valid(b'?'));
    }

    #[test]
    fn an_urgent_byte_inline_stays_in_the_stream() {
        let mut r = receiver(100);
        r.set_oob_inline(true);
        r.on_peer_prod(at(0, 10)).unwrap();
        r.on_urgent_present();
        assert_eq!((r.readable(), r.readable_now()), (10, 9));
        r.consume(9);
        assert!(r.at_mark() && !r.needs_update());
        assert_eq!(r.readable_now(), 1);
        r.consume(1);
        assert!(!r.at_mark() && r.needs_update());
    }

    #[test]
    fn a_lone_urgent_byte_is_confirmed_without_a_reader() {
        let mut r = receiver(100);
        r.on_peer_prod(at(0, 1)).unwrap();
        assert_eq!(r.on_urgent_present(), 0);
        assert_eq!(r.readable(), 0);
        assert!(r.at_mark() && r.needs_update());
    }

    #[test]
    fn peeking_does_not_consume() {
        let mut r = receiver(10);
        r.on_peer_prod(at(0, 8)).unwrap();
        let spans = r.chunks_for_peek(6, 10);
        assert_eq!((spans.first.offset, spans.len()), (6, 2));
        assert!(r.chunks_for_peek(9, 1).is_empty());
        assert_eq!(r.readable(), 8);
    }
}
