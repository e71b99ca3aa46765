// SPDX-License-Identifier: GPL-2.0

//! The peer's RMBs: where we may write (RFC 7609, section 2.2 and appendix A.3.5).
//!
//! A link group knows at most 255 of them, each by a key and an address on every link. They come in CLC
//! messages for the link of the connection, and for the others in CONFIRM RKEY, or all at once when a
//! link is added; and they go with DELETE RKEY.
//!
//! Connections keep the token that they were set up with. The table is for moving them: what is known on
//! one link by a key is looked up for another.

#![forbid(unsafe_code)]

use core::ops::DerefMut;

use super::llc::message::RToken;
use super::types::RKey;

/// RMBs of a peer in one link group (RFC 7609, section 2.2).
pub const MAX_RTOKENS: usize = 255;

/// Most links of a group at once.
pub const PLACES: usize = 3;

/// One RMB: its token on each link, as far as it is known.
pub type Row = [Option<RToken>; PLACES];

/// No RMB.
pub const EMPTY: Row = [None; PLACES];

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The tokens of a peer, in rows that the owner allocates.
///
/// # Invariants
///
/// No two rows have the same key for a link.
#[derive(Debug)]
pub struct RTokenTable<R> {
    rows: R,
}

impl<R: DerefMut<Target = [Row]>> RTokenTable<R> {
    /// A table in these rows, which are empty.
    pub const fn new(rows: R) -> Self {
        Self { rows }
    }

    /// Number of RMBs.
    pub fn len(&self) -> usize {
        self.rows.iter().filter(|row| **row != EMPTY).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn row(&mut self, place: usize, rkey: RKey) -> Option<&mut Row> {
        let has =
            |row: &&mut Row| matches!(row.get(place), Some(Some(token)) if token.rkey == rkey);
        self.rows.iter_mut().find(has)
    }

    /// Enters a token for the link at `place`. One that is there already stays, with what belongs to it. A
    /// known key with another address is another RMB, whose predecessor is gone.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn add(&mut self, place: usize, token: RToken) -> Result<(), Full> {
        let row = match self.row(place, token.rkey) {
            Some(row) if row.get(place) == Some(&Some(token)) => return Ok(()),
            Some(row) => {
                *row = EMPTY;
                row
            }
            None => self
                .rows
                .iter_mut()
                .find(|row| **row == EMPTY)
                .ok_or(Full)?,
        };
        *row.get_mut(place).ok_or(Full)? = Some(token);
        Ok(())
    }

    /// Enters for the link at `other` a token of the RMB that has the key `rkey` on the link at `place`.
    /// Whether there is one.
    pub fn add_other(&mut self, place: usize, rkey: RKey, other: usize, token: RToken) -> bool {
        // A key names one RMB on a link, and the last word counts.
        if let Some(entry) = self
            .row(other, token.rkey)
            .and_then(|row| row.get_mut(other))
        {
            *entry = None;
        }
        let entry = self.row(place, rkey).and_then(|row| row.get_mut(other));
        entry.is_some_and(|entry| {
            *entry = Some(token);
            true
        })
    }

    /// The token for the link at `other` of the RMB that has the key `rkey` on the link at `place`.
    pub fn other(&mut self, place: usize, rkey: RKey, other: usize) -> Option<RToken> {
        self.row(place, rkey)?.get(other).copied().flatten()
    }

    /// Removes the RMB with this key (RFC 7609, appendix A.3.7): its tokens, if it was there.
    pub fn remove(&mut self, place: usize, rkey: RKey) -> Option<Row> {
        self.row(place, rkey)
            .map(|row| core::mem::replace(row, EMPTY))
    }

    /// The link at `place` is gone.
    pub fn forget_link(&mut self, place: usize) {
        for row in self.rows.iter_mut() {
            if let Some(entry) = row.get_mut(place) {
                *entry = None;
            }
        }
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
        let mut rows = [EMPTY; 2];
        let mut table = RTokenTable::new(&mut rows[..]);
        assert_eq!(table.add(0, rtoken(7)), Ok(()));
        assert_eq!(table.add(0, rtoken(7)), Ok(()));
        assert_eq!(table.len(), 1);
        assert_eq!(table.add(0, rtoken(8)), Ok(()));
        assert_eq!(table.add(0, rtoken(9)), Err(Full));
        assert!(table.add_other(0, RKey(7), 2, rtoken(70)));
        let row = [Some(rtoken(7)), None, Some(rtoken(70))];
        assert_eq!(table.remove(0, RKey(7)), Some(row));
        assert_eq!(table.remove(2, RKey(70)), None);
        assert_eq!(table.remove(1, RKey(8)), None);
        assert!(table.remove(0, RKey(8)).is_some() && table.is_empty());
    }

    #[test]
    fn an_rmb_is_found_on_other_links() {
        let mut rows = [EMPTY; 4];
        let mut table = RTokenTable::new(&mut rows[..]);
        table.add(0, rtoken(7)).unwrap();
        assert!(table.add_other(0, RKey(7), 2, rtoken(70)));
        assert!(!table.add_other(0, RKey(8), 2, rtoken(80)));
        assert_eq!(table.other(0, RKey(7), 2), Some(rtoken(70)));
        assert_eq!(table.other(2, RKey(70), 0), Some(rtoken(7)));
        assert_eq!(table.other(0, RKey(7), 1), None);
        // The same key on another link is another RMB's.
        table.add(1, rtoken(7)).unwrap();
        assert_eq!((table.len(), table.other(1, RKey(7), 2)), (2, None));
        // Again by another connection: nothing is lost.
        table.add(0, rtoken(7)).unwrap();
        assert_eq!(table.other(0, RKey(7), 2), Some(rtoken(70)));
        // But not for other memory.
        let moved = RToken {
            vaddr: 1,
            ..rtoken(7)
        };
        table.add(0, moved).unwrap();
        assert_eq!(table.other(0, RKey(7), 2), None);
        table.forget_link(0);
        assert_eq!(table.len(), 1);
        table.forget_link(1);
        assert!(table.is_empty());
    }
}
