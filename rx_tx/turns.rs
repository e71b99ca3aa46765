// SPDX-License-Identifier: GPL-2.0

//! Whose turn it is among connections that wait for a slot of their link.

#![forbid(unsafe_code)]

/// Connections of a link group, by the low byte of their token, of which each has its turn: the next one is the first
/// behind the last one that waits.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: [u64; Self::WORDS],
    next: u8,
}

impl Turns {
    const WORDS: usize = 4;

    /// Of nobody.
    pub const fn new() -> Self {
        Self {
            waiting: [0; Self::WORDS],
            next: 0,
        }
    }

    /// One waits, if it did not already.
    pub fn wait(&mut self, index: u8) {
        if let Some(word) = self.waiting.get_mut(usize::from(index >> 6)) {
            *word |= 1 << (index & 63);
        }
    }

    /// Whose turn it is; it waits no more.
    pub fn take(&mut self) -> Option<u8> {
        let (first, from) = (usize::from(self.next >> 6), self.next & 63);
        // The first word twice: its upper part, and last what is before that.
        let found = (0..=Self::WORDS).find_map(|n| {
            let at = first.wrapping_add(n) % Self::WORDS;
            let part = if n == 0 { u64::MAX << from } else { u64::MAX };
            let word = self.waiting.get(at)? & part;
            (word != 0).then(|| ((at as u8) << 6) | word.trailing_zeros() as u8)
        })?;
        if let Some(word) = self.waiting.get_mut(usize::from(found >> 6)) {
            *word &= !(1 << (found & 63));
        }
        self.next = found.wrapping_add(1);
        Some(found)
    }

    /// It was not enough for the one whose turn it was: if it waits on, it is the next one again.
    pub fn again(&mut self, index: u8) {
        self.next = index;
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_turns))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn all(turns: &mut Turns) -> [Option<u8>; 8] {
        core::array::from_fn(|_| turns.take())
    }

    #[test]
    fn each_has_its_turn() {
        let mut turns = Turns::new();
        assert_eq!(turns.take(), None);
        for index in [255, 0, 63, 64, 130, 64] {
            turns.wait(index);
        }
        let [a, b, rest @ ..] = all(&mut turns);
        assert_eq!((a, b), (Some(0), Some(63)));
        let [c, d, e, none @ ..] = rest;
        assert_eq!((c, d, e), (Some(64), Some(130), Some(255)));
        assert_eq!(none, [None; 3]);
    }

    #[test]
    fn who_was_served_comes_last() {
        let mut turns = Turns::new();
        turns.wait(70);
        assert_eq!(turns.take(), Some(70));
        for index in [70, 71, 5, 69] {
            turns.wait(index);
        }
        let [a, b, c, d, none @ ..] = all(&mut turns);
        assert_eq!((a, b, c, d), (Some(71), Some(5), Some(69), Some(70)));
        assert_eq!(none, [None; 4]);
    }

    #[test]
    fn who_was_left_without_comes_first() {
        let mut turns = Turns::new();
        turns.wait(9);
        turns.wait(10);
        assert_eq!(turns.take(), Some(9));
        turns.wait(9);
        turns.again(9);
        assert_eq!((turns.take(), turns.take()), (Some(9), Some(10)));
        // Nobody waits for a turn that was not used.
        turns.again(3);
        turns.wait(2);
        assert_eq!(turns.take(), Some(2));
    }
}
