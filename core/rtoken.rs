// SPDX-License-Identifier: GPL-2.0

//! The peer's RMBs: where we may write (RFC 7609, section 2.2 and appendix A.3.5).
//!
//! A link group knows at most 255 of them. They come in CLC messages and in CONFIRM RKEY, and go
//! with DELETE RKEY. For a group with a single link; another link brings another table.

#![forbid(unsafe_code)]

use super::llc::message::RToken;
use super::types::RKey;

/// RMBs of a peer in one link group (RFC 7609, section 2.2).
pub const MAX_RTOKENS: usize = 255;

/// Place of a token in the table; a connection keeps it.
///
/// A token that the peer deletes while connections use it takes their place away:
/// [`RTokenTable::get`] then finds nothing, or a newer token. So connections keep the
/// [`RToken`] that they were set up with, and the index only for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RTokenIndex(u8);

impl RTokenIndex {
    /// As a number.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// Why a token was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RTokenError {
    /// There are 255 already.
    Full,
    /// The key is known with another address: a key names one RMB.
    Conflict,
}

/// The tokens of a peer.
///
/// # Invariants
///
/// No two entries have the same key.
#[derive(Debug)]
pub struct RTokenTable {
    entries: [Option<RToken>; MAX_RTOKENS],
}

impl Default for RTokenTable {
    fn default() -> Self {
        Self::new()
    }
}

impl RTokenTable {
    /// An empty table. It has 6 KiB: make it in place.
    pub const fn new() -> Self {
        Self {
            entries: [None; MAX_RTOKENS],
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further token can be entered; a server then starts another group.
    pub fn is_full(&self) -> bool {
        self.entries.iter().all(Option::is_some)
    }

    /// Enters a token. A token that is there already is found again.
    pub fn add(&mut self, rtoken: RToken) -> Result<RTokenIndex, RTokenError> {
        if let Some((index, known)) = self.find(rtoken.rkey) {
            return if known == rtoken {
                Ok(index)
            } else {
                Err(RTokenError::Conflict)
            };
        }
        for (index, entry) in (0..=u8::MAX).zip(&mut self.entries) {
            if entry.is_none() {
                *entry = Some(rtoken);
                return Ok(RTokenIndex(index));
            }
        }
        Err(RTokenError::Full)
    }

    /// The token with this key.
    pub fn find(&self, rkey: RKey) -> Option<(RTokenIndex, RToken)> {
        let mut all = (0..=u8::MAX).zip(&self.entries);
        all.find_map(|(index, entry)| match entry {
            Some(rtoken) if rtoken.rkey == rkey => Some((RTokenIndex(index), *rtoken)),
            _ => None,
        })
    }

    /// The token at a place.
    pub fn get(&self, index: RTokenIndex) -> Option<RToken> {
        self.entries.get(usize::from(index.0)).copied().flatten()
    }

    /// Removes a token (RFC 7609, appendix A.3.7). Returns whether it was there.
    pub fn remove(&mut self, rkey: RKey) -> bool {
        for entry in &mut self.entries {
            if entry.is_some_and(|rtoken| rtoken.rkey == rkey) {
                *entry = None;
                return true;
            }
        }
        false
    }

    /// Removes the tokens of a DELETE RKEY. Returns a mask of those that were not there, the
    /// first in the highest bit (RFC 7609, appendix A.3.7, "Error Mask").
    pub fn remove_all(&mut self, rkeys: impl Iterator<Item = RKey>) -> u16 {
        let mut missing = 0;
        let mut bit = 1u16 << 15;
        for rkey in rkeys {
            if !self.remove(rkey) {
                missing |= bit;
            }
            bit >>= 1;
        }
        missing
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_rtoken))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn rtoken(rkey: u32) -> RToken {
        RToken {
            rkey: RKey(rkey),
            vaddr: u64::from(rkey) << 12,
        }
    }

    #[test]
    fn tokens_come_and_go() {
        let mut table = RTokenTable::new();
        let index = table.add(rtoken(7)).unwrap();
        assert_eq!(table.add(rtoken(7)), Ok(index));
        assert_eq!(table.get(index), Some(rtoken(7)));
        assert_eq!(table.find(RKey(7)), Some((index, rtoken(7))));
        let moved = RToken {
            vaddr: 1,
            ..rtoken(7)
        };
        assert_eq!(table.add(moved), Err(RTokenError::Conflict));
        assert!(table.remove(RKey(7)) && !table.remove(RKey(7)));
        assert_eq!(table.get(index), None);
        assert!(table.is_empty());
    }

    #[test]
    fn no_more_than_255() {
        let mut table = RTokenTable::new();
        for rkey in 0..255 {
            table.add(rtoken(rkey)).unwrap();
        }
        assert!(table.is_full());
        assert_eq!(table.add(rtoken(300)), Err(RTokenError::Full));
        assert_eq!(table.add(rtoken(3)).map(RTokenIndex::value), Ok(3));
        table.remove(RKey(100));
        assert_eq!(table.add(rtoken(300)).map(RTokenIndex::value), Ok(100));
    }

    #[test]
    fn missing_keys_are_masked() {
        let mut table = RTokenTable::new();
        table.add(rtoken(1)).unwrap();
        table.add(rtoken(3)).unwrap();
        let rkeys = [1, 2, 3, 4].map(RKey);
        // RFC 7609, appendix A.3.7: the second and the fourth.
        assert_eq!(table.remove_all(rkeys.into_iter()), 0b0101_0000 << 8);
    }
}
