// SPDX-License-Identifier: GPL-2.0

//! Completions that never come.
//!
//! The requests of a queue complete in the order in which they were posted. So a completion that comes before its turn
//! tells that another one is lost, and that the device cannot be trusted with this queue pair any more: a
//! message that was received but not reported would be missing in the middle of a stream.

#![forbid(unsafe_code)]

use super::time::Millis;

/// How far the completions of a queue are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order(u64);

impl Order {
    /// No request has a turn with this bit.
    const LOST: u64 = 1 << 32;

    /// None has come.
    pub const START: Self = Self(0);

    /// As a number, and back.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What had these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The turn of the next completion, unless one was lost.
    pub const fn next(self) -> Option<u32> {
        if self.is_lost() {
            return None;
        }
        Some(self.0 as u32)
    }

    /// Whether a completion was lost. It stays so.
    pub const fn is_lost(self) -> bool {
        self.0 & Self::LOST != 0
    }

    /// A completion has come. Turns go from 0 to `last` and begin again.
    #[must_use]
    pub fn after(self, turn: u32, last: u32) -> Self {
        if self.next() != Some(turn) {
            return Self(Self::LOST);
        }
        if turn == last {
            return Self::START;
        }
        Self(turn.wrapping_add(1).into())
    }
}

/// Watches over requests that were posted: each completes after a while.
#[derive(Debug)]
pub struct Watch {
    /// The oldest that has not completed, since when it has been that, and since when that has been doubted.
    oldest: Option<(u32, Millis, Option<Millis>)>,
}

/// What a [`Watch`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing wrong.
    Well,
    /// A request takes long. A message that is sent now either brings the proof, by completing first, or gets no answer.
    Late,
    /// A request takes so long that it will not complete: a peer that is gone would have been noticed.
    Lost,
}

impl Watch {
    /// How long a request may take before it is doubted, in milliseconds.
    pub const DOUBT_AFTER: u32 = 5_000;

    /// How long it may take after that: longer than the peer has for its answer to the message sent in doubt. Not counted from the
    /// beginning, as the machine may have stood still until then.
    pub const LOST_AFTER: u32 = 5_000;

    /// Of nothing yet.
    pub const fn new() -> Self {
        Self { oldest: None }
    }

    /// `posted` is the turn of the next request to be posted, `next` that of the next completion.
    pub fn look(&mut self, posted: u32, next: u32, now: Millis) -> Seen {
        if posted == next {
            self.oldest = None;
            return Seen::Well;
        }
        match &mut self.oldest {
            Some((oldest, since, doubted)) if *oldest == next => match doubted {
                Some(since) if since.after(Self::LOST_AFTER).reached(now) => return Seen::Lost,
                None if since.after(Self::DOUBT_AFTER).reached(now) => {
                    *doubted = Some(now);
                    return Seen::Late;
                }
                _ => {}
            },
            _ => self.oldest = Some((next, now, None)),
        }
        Seen::Well
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_order))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn at(ms: u32) -> Millis {
        Millis(1_000_000).after(ms)
    }

    /// All of them, one after the other.
    fn all(turns: &[u32], last: u32) -> Order {
        turns
            .iter()
            .fold(Order::START, |order, turn| order.after(*turn, last))
    }

    #[test]
    fn in_order_round_and_round() {
        assert_eq!(all(&[0, 1, 2, 0, 1, 2, 0], 2).next(), Some(1));
        assert_eq!(all(&[0, 0, 0], 0).next(), Some(0));
        let end = Order::from_bits(u64::from(u32::MAX));
        assert_eq!(end.after(u32::MAX, u32::MAX), Order::START);
    }

    #[test]
    fn a_gap_is_a_loss_for_ever() {
        for turns in [&[1u32][..], &[0, 2], &[0, 1, 2, 1], &[0, 0], &[0, 1, 2, 3]] {
            let order = all(turns, 2);
            assert!(order.is_lost(), "{turns:?}");
            assert_eq!(order.next(), None);
            // Neither what would have been the next one, nor what was missing.
            for turn in 0..4 {
                assert!(order.after(turn, 2).is_lost());
            }
            assert!(Order::from_bits(order.bits()).is_lost());
        }
    }

    #[test]
    fn what_completes_in_time_is_well() {
        let mut watch = Watch::new();
        for n in 0..20 {
            // Always under way, but never the same.
            assert_eq!(watch.look(n + 1, n, at(n * 4_000)), Seen::Well);
        }
        // Nothing under way, for however long.
        assert_eq!(watch.look(20, 20, at(100_000)), Seen::Well);
        assert_eq!(watch.look(20, 20, at(200_000)), Seen::Well);
        // It begins anew.
        assert_eq!(watch.look(21, 20, at(300_000)), Seen::Well);
        assert_eq!(watch.look(21, 20, at(304_999)), Seen::Well);
    }

    #[test]
    fn what_does_not_is_doubted_once_and_given_up() {
        let mut watch = Watch::new();
        assert_eq!(watch.look(7, 3, at(0)), Seen::Well);
        assert_eq!(watch.look(7, 3, at(4_999)), Seen::Well);
        assert_eq!(watch.look(7, 3, at(5_000)), Seen::Late);
        // The message sent in doubt is under way, too.
        assert_eq!(watch.look(8, 3, at(5_250)), Seen::Well);
        assert_eq!(watch.look(8, 3, at(9_999)), Seen::Well);
        assert_eq!(watch.look(8, 3, at(10_000)), Seen::Lost);
    }

    #[test]
    fn a_machine_that_stood_still_loses_nothing() {
        let mut watch = Watch::new();
        assert_eq!(watch.look(1, 0, at(0)), Seen::Well);
        assert_eq!(watch.look(1, 0, at(60_000)), Seen::Late);
        assert_eq!(watch.look(2, 0, at(64_999)), Seen::Well);
        assert_eq!(watch.look(2, 0, at(65_000)), Seen::Lost);
    }

    #[test]
    fn a_late_one_that_comes_is_forgiven() {
        let mut watch = Watch::new();
        assert_eq!(watch.look(1, 0, at(0)), Seen::Well);
        assert_eq!(watch.look(1, 0, at(6_000)), Seen::Late);
        assert_eq!(watch.look(2, 1, at(9_000)), Seen::Well);
        assert_eq!(watch.look(2, 1, at(13_999)), Seen::Well);
        assert_eq!(watch.look(2, 1, at(14_000)), Seen::Late);
    }
}
