// SPDX-License-Identifier: GPL-2.0

//! Time as the pure layer sees it: an argument.

#![forbid(unsafe_code)]

/// Milliseconds on a clock that only runs forward. Its zero means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The time `millis` after this one.
    #[must_use]
    pub const fn after(self, millis: u32) -> Self {
        Self(self.0.saturating_add(millis as u64))
    }

    /// Whether `now` is at or after this time.
    pub const fn reached(self, now: Self) -> bool {
        now.0 >= self.0
    }
}
