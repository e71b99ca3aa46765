// SPDX-License-Identifier: GPL-2.0

//! How long connections to a server, or to a listener's port, live and how much they carry: whether SMC pays
//! for the next one.
//!
//! A connection by RDMA costs more to make than one by TCP, and less to use. One that is over after a few bytes
//! never gets that back. So each place has a credit: a connection that was worth it adds to it, one that was not
//! takes from it, and where there is none left the next ones are TCP's. What they do there counts as well, so
//! that nothing needs to be tried to find out that they are longer now; besides, everything is forgotten
//! after a while, and learnt again.
//!
//! Connections that stay open are worth it before they end: who is older than the least lifetime adds credit from
//! time to time.
//!
//! The memory is bounded. Where it is short, what was not looked at for longest is forgotten.

#![forbid(unsafe_code)]

use super::time::Millis;
use crate::clc::plain_servers::Server;

/// What is remembered on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Connections that are made to this server.
    Server(Server),
    /// Connections that are accepted at this port.
    Port([u8; 2]),
}

/// What makes a connection worth it, and how long that holds.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes in both directions.
    pub bytes: u64,
    /// Milliseconds of its life.
    pub lifetime_ms: u32,
    /// Milliseconds until all is learnt again.
    pub forget_ms: u32,
}

/// What to do with the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Ask for SMC.
    Smc,
    /// It is too short for that: TCP.
    Tcp,
}

/// A connection that is there, as its place knows it.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    place: Place,
    began: Millis,
    round: u32,
}

/// So many connections in turn are not worth it before they are TCP's.
pub const PATIENCE: u8 = 8;
/// What one connection that is worth it makes up for.
pub const WORTH: u8 = 8;
/// As much credit as there can be.
pub const MOST: u8 = 64;

/// Places that one part of the memory has room for: those with the same hash.
const WAYS: usize = 4;

/// Room for one place.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    place: Place,
    credit: u8,
    /// Since when this was learnt.
    since: Millis,
    /// When it was last looked at.
    seen: Millis,
    /// The ages of open connections are told apart by rounds of the least lifetime, or longer.
    round: u32,
    round_began: Millis,
    /// Open connections of this round.
    young: u32,
    /// Open connections of earlier ones.
    old: u32,
}

impl Entry {
    fn new(place: Place, now: Millis) -> Self {
        Self {
            place,
            credit: PATIENCE,
            since: now,
            seen: now,
            round: 0,
            round_began: now,
            young: 0,
            old: 0,
        }
    }

    /// What time alone changes.
    fn go_on(&mut self, now: Millis, policy: &Policy) {
        self.seen = now;
        if self.since.after(policy.forget_ms).reached(now) {
            self.since = now;
            self.credit = PATIENCE;
        }
        if self.round_began.after(policy.lifetime_ms).reached(now) {
            // They were there when this round began, and still are.
            let old = u8::try_from(self.old).unwrap_or(MOST);
            self.gain(old.saturating_mul(WORTH));
            self.old = self.old.saturating_add(self.young);
            self.young = 0;
            self.round = self.round.wrapping_add(1);
            self.round_began = now;
        }
    }

    fn gain(&mut self, credit: u8) {
        self.credit = self.credit.saturating_add(credit).min(MOST);
    }

    /// A connection that was open is not any more.
    fn leave(&mut self, round: u32) {
        let cohort = if round == self.round {
            &mut self.young
        } else {
            &mut self.old
        };
        *cohort = cohort.saturating_sub(1);
    }
}

/// What is remembered, in memory of the caller's.
pub struct Habits<'a>(pub &'a mut [Option<Entry>]);

impl Habits<'_> {
    /// What to do with the next connection.
    pub fn advice(&mut self, place: Place, now: Millis, policy: &Policy) -> Advice {
        let Some(entry) = self.known(place) else {
            return Advice::Smc;
        };
        entry.go_on(now, policy);
        if entry.credit == 0 {
            Advice::Tcp
        } else {
            Advice::Smc
        }
    }

    /// A connection is there, by SMC or by TCP. [`Self::over`] is to follow.
    pub fn begin(&mut self, place: Place, now: Millis, policy: &Policy) -> Visit {
        let entry = self.entry(place, now, policy);
        let round = entry.as_deref().map_or(0, |entry| entry.round);
        if let Some(entry) = entry {
            entry.young = entry.young.saturating_add(1);
        }
        Visit {
            place,
            began: now,
            round,
        }
    }

    /// A connection has ended that has carried so many bytes.
    pub fn over(&mut self, visit: Visit, bytes: u64, now: Millis, policy: &Policy) {
        let Some(entry) = self.entry(visit.place, now, policy) else {
            return;
        };
        entry.leave(visit.round);
        if bytes >= policy.bytes || visit.began.after(policy.lifetime_ms).reached(now) {
            entry.gain(WORTH);
        } else {
            entry.credit = entry.credit.saturating_sub(1);
        }
    }

    fn known(&mut self, place: Place) -> Option<&mut Entry> {
        let mut entries = self.part(place).iter_mut().flatten();
        entries.find(|entry| entry.place == place)
    }

    /// The entry of a place, which may be a new one; [`None`] if there is no memory at all.
    fn entry(&mut self, place: Place, now: Millis, policy: &Policy) -> Option<&mut Entry> {
        // Its own, or a free one, or what was not looked at for longest.
        let slot = self.part(place).iter_mut().min_by_key(|slot| match slot {
            Some(entry) if entry.place == place => (0, Millis(0)),
            None => (1, Millis(0)),
            Some(entry) => (2, entry.seen),
        })?;
        let entry = match *slot {
            Some(entry) if entry.place == place => slot.insert(entry),
            _ => slot.insert(Entry::new(place, now)),
        };
        entry.go_on(now, policy);
        Some(entry)
    }

    /// Where a place is looked for.
    fn part(&mut self, place: Place) -> &mut [Option<Entry>] {
        let parts = self.0.len().div_ceil(WAYS).max(1);
        let hash = match place {
            Place::Server(server) => server.hash(),
            Place::Port(port) => u32::from(u16::from_be_bytes(port)),
        };
        let number = usize::try_from(hash)
            .unwrap_or(0)
            .checked_rem(parts)
            .unwrap_or(0);
        let mut chunks = self.0.chunks_mut(WAYS);
        chunks.nth(number).unwrap_or(&mut [])
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_habits))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        bytes: 1_000,
        lifetime_ms: 100,
        forget_ms: 60_000,
    };
    const HERE: Place = Place::Port([0, 80]);

    /// One connection from `now` on.
    fn one(habits: &mut Habits<'_>, place: Place, now: u64, lasts: u64, bytes: u64) {
        let visit = habits.begin(place, Millis(now), &POLICY);
        habits.over(visit, bytes, Millis(now + lasts), &POLICY);
    }

    fn short(habits: &mut Habits<'_>, place: Place, now: u64, times: u64) {
        for n in 0..times {
            one(habits, place, now + n, 1, 10);
        }
    }

    fn advice(habits: &mut Habits<'_>, place: Place, now: u64) -> Advice {
        habits.advice(place, Millis(now), &POLICY)
    }

    #[test]
    fn short_ones_in_turn_are_for_tcp() {
        let mut memory = [None; 8];
        let mut habits = Habits(&mut memory);
        assert_eq!(advice(&mut habits, HERE, 0), Advice::Smc);
        short(&mut habits, HERE, 0, u64::from(PATIENCE) - 1);
        assert_eq!(advice(&mut habits, HERE, 10), Advice::Smc);
        short(&mut habits, HERE, 10, 1);
        assert_eq!(advice(&mut habits, HERE, 12), Advice::Tcp);
        // Another place is another matter.
        assert_eq!(advice(&mut habits, Place::Port([0, 81]), 12), Advice::Smc);
    }

    #[test]
    fn one_that_carries_much_or_lives_long_makes_up_for_some() {
        for (lasts, bytes) in [(1, 1_000), (100, 0)] {
            let mut memory = [None; 8];
            let mut habits = Habits(&mut memory);
            short(&mut habits, HERE, 0, 20);
            assert_eq!(advice(&mut habits, HERE, 21), Advice::Tcp);
            one(&mut habits, HERE, 22, lasts, bytes);
            assert_eq!(advice(&mut habits, HERE, 122), Advice::Smc);
            short(&mut habits, HERE, 123, u64::from(WORTH) - 1);
            assert_eq!(advice(&mut habits, HERE, 140), Advice::Smc);
            short(&mut habits, HERE, 140, 1);
            assert_eq!(advice(&mut habits, HERE, 142), Advice::Tcp);
        }
    }

    #[test]
    fn a_place_is_learnt_anew() {
        let mut memory = [None; 8];
        let mut habits = Habits(&mut memory);
        short(&mut habits, HERE, 0, 8);
        assert_eq!(advice(&mut habits, HERE, 59_999), Advice::Tcp);
        assert_eq!(advice(&mut habits, HERE, 60_000), Advice::Smc);
        short(&mut habits, HERE, 60_000, 8);
        assert_eq!(advice(&mut habits, HERE, 60_010), Advice::Tcp);
    }

    #[test]
    fn those_that_stay_are_worth_it_while_they_do() {
        let mut memory = [None; 8];
        let mut habits = Habits(&mut memory);
        let stays = habits.begin(HERE, Millis(0), &POLICY);
        short(&mut habits, HERE, 1, 20);
        assert_eq!(advice(&mut habits, HERE, 50), Advice::Tcp);
        // It may have come at the end of that round.
        assert_eq!(advice(&mut habits, HERE, 110), Advice::Tcp);
        assert_eq!(advice(&mut habits, HERE, 220), Advice::Smc);
        habits.over(stays, 0, Millis(230), &POLICY);
        short(&mut habits, HERE, 231, 16);
        assert_eq!(advice(&mut habits, HERE, 400), Advice::Tcp);
        assert_eq!(advice(&mut habits, HERE, 600), Advice::Tcp);
    }

    #[test]
    fn what_was_not_looked_at_is_forgotten_first() {
        let mut memory = [None; WAYS];
        let mut habits = Habits(&mut memory);
        for port in 1..=4 {
            short(&mut habits, Place::Port([0, port]), u64::from(port), 8);
        }
        assert_eq!(advice(&mut habits, Place::Port([0, 1]), 50), Advice::Tcp);
        short(&mut habits, Place::Port([0, 5]), 60, 8);
        let tcp = |port| advice(&mut habits, Place::Port([0, port]), 70) == Advice::Tcp;
        assert!([1, 2, 3, 4, 5].map(tcp) == [true, false, true, true, true]);
        // The end of a connection whose place was forgotten is no trouble.
        let visit = habits.begin(Place::Port([0, 9]), Millis(80), &POLICY);
        short(&mut habits, Place::Port([0, 6]), 81, 1);
        for port in 1..=4 {
            short(&mut habits, Place::Port([1, port]), 90, 1);
        }
        habits.over(visit, 0, Millis(91), &POLICY);
        assert!(habits.0.iter().flatten().count() == WAYS);
        let mut entries = habits.0.iter().flatten();
        assert!(entries.all(|entry| entry.credit <= MOST && (entry.young, entry.old) == (0, 0)));
    }

    #[test]
    fn without_memory_all_is_smc() {
        let mut habits = Habits(&mut []);
        short(&mut habits, HERE, 0, 20);
        assert_eq!(advice(&mut habits, HERE, 30), Advice::Smc);
    }
}
