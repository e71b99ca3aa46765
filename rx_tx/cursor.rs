// SPDX-License-Identifier: GPL-2.0

//! Ring positions: the only place where wrap-aware arithmetic exists.
//!
//! A [`Cursor`] is a position in a ring of bytes together with the number of times the ring has
//! wrapped, which tells a full ring from an empty one (RFC 7609, appendix A.4, "Producer cursor
//! wrap seqno"). [`Ring`] knows the length and does every calculation. Linux peers do without
//! the eye catcher at the head of an RMBE (CONFIRM LINK says so), so a ring starts at offset 0,
//! not at 4.
//!
//! Nothing here panics or wraps silently, whatever the arguments: cursors come from the peer.

#![forbid(unsafe_code)]

use core::fmt;

use zerocopy::network_endian::{
    U16,
    U32, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// A position in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// How often the ring has wrapped, modulo 2^16.
    pub wrap: u16,
    /// Offset in the ring, `0..len`.
    pub count: u32,
}

impl Cursor {
    /// The start of every ring.
    pub const ZERO: Self = Self { wrap: 0, count: 0 };

    /// Packs the cursor into one word, for atomics and for the `wr_id` tables.
    pub const fn to_u64(self) -> u64 {
        ((self.wrap as u64) << 32) | self.count as u64
    }

    /// Unpacks what [`Cursor::to_u64`] made.
    pub const fn from_u64(raw: u64) -> Self {
        Self {
            wrap: (raw >> 32) as u16,
            count: raw as u32,
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.wrap, self.count)
    }
}

/// A cursor as it travels (RFC 7609, appendix A.4): reserved, wrap, count.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireCursor {
    reserved: U16,
    wrap: U16,
    count: U32,
}

impl From<Cursor> for WireCursor {
    fn from(cursor: Cursor) -> Self {
        Self {
            reserved: U16::ZERO,
            wrap: U16::new(cursor.wrap),
            count: U32::new(cursor.count),
        }
    }
}

impl From<WireCursor> for Cursor {
    /// Not validated: [`Ring::diff`] does that.
    fn from(wire: WireCursor) -> Self {
        Self {
            wrap: wire.wrap.get(),
            count: wire.count.get(),
        }
    }
}

/// A run of bytes in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset in the ring.
    pub offset: u32,
    /// Number of bytes; 0 = no span.
    pub len: u32,
}

impl Span {
    /// The empty span.
    pub const EMPTY: Self = Self { offset: 0, len: 0 };
}

/// At most two runs of bytes: a stretch of a ring, cut where the ring wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spans {
    /// From the cursor towards the end of the ring.
    pub first: Span,
    /// From the start of the ring; empty unless the stretch wraps.
    pub second: Span,
}

impl Spans {
    /// Bytes in both spans.
    pub const fn len(&self) -> u32 {
        self.first.len.saturating_add(self.second.len)
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The spans that are not empty, in stream order.
    pub fn iter(&self) -> impl Iterator<Item = Span> {
        [self.first, self.second].into_iter().filter(|s| s.len != 0)
    }
}

/// The geometry of one ring.
///
/// # Invariants
///
/// `0 < len <= Ring::MAX_LEN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    len: u32,
}

impl Ring {
    /// The largest ring: far above the 512 MiB an SMC-R buffer can have (RFC 7609, appendix
    /// A.2.3), small enough for sums of two offsets to fit `u32`.
    pub const MAX_LEN: u32 = 1 << 31;

    /// A ring of `len` bytes, or `None` for a length that no buffer has.
    pub const fn new(len: u32) -> Option<Self> {
        if len == 0 || len > Self::MAX_LEN {
            return None;
        }
        // INVARIANT: Checked above.
        Some(Self { len })
    }

    /// Length in bytes, never 0.
    #[expect(clippy::len_without_is_empty)] // A ring has a length, and is never empty.
    pub const fn len(self) -> u32 {
        self.len
    }

    /// Whether `cursor` can be a position in this ring.
    pub const fn contains(self, cursor: Cursor) -> bool {
        cursor.count < self.len
    }

    /// `cursor` moved on by `n` bytes. `n` above the ring's length is taken as the length;
    /// callers pass what [`Ring::diff`] or [`Ring::spans`] has bounded.
    #[must_use]
    pub const fn add(self, cursor: Cursor, n: u32) -> Cursor {
        let n = if n < self.len { n } else { self.len };
        let room = self.len.saturating_sub(cursor.count);
        if n < room {
            Cursor {
                wrap: cursor.wrap,
                count: cursor.count.wrapping_add(n),
            }
        } else {
            // RFC 7609, appendix A.4: the wrap number is incremented whenever a write causes
            // a wrap; reaching the end is a wrap, so that `count < len` always holds.
            Cursor {
                wrap: cursor.wrap.wrapping_add(1),
                count: n.wrapping_sub(room),
            }
        }
    }

    /// How far `new` is ahead of `old`, `0..=len`; `None` if `new` is not a position in this
    /// ring, is behind `old`, or more than one ring ahead.
    pub const fn diff(self, old: Cursor, new: Cursor) -> Option<u32> {
        if !self.contains(old) || !self.contains(new) {
            return None;
        }
        if new.wrap == old.wrap {
            new.count.checked_sub(old.count)
        } else if new.wrap == old.wrap.wrapping_add(1) && new.count <= old.count {
            // No overflow: `new.count <= old.count < len`.
            Some(self.len.wrapping_sub(old.count).wrapping_add(new.count))
        } else {
            None
        }
    }

    /// The `n` bytes from `cursor` on, cut at the end of the ring. `n` above the ring's length
    /// is taken as the length, and a cursor outside of the ring as its end.
    pub const fn spans(self, cursor: Cursor, n: u32) -> Spans {
        let n = if n < self.len { n } else { self.len };
        let room = self.len.saturating_sub(cursor.count);
        let first = if n < room { n } else { room };
        Spans {
            first: Span {
                offset: if first == 0 { 0 } else { cursor.count },
                len: first,
            },
            second: Span {
                offset: 0,
                len: n.wrapping_sub(first),
            },
        }
    }

    /// Offset of the byte before `cursor`.
    pub const fn offset_before(self, cursor: Cursor) -> u32 {
        match cursor.count {
            0 => self.len.wrapping_sub(1),
            n => n.wrapping_sub(1),
        }
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_cursor))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    #[test]
    fn reaching_the_end_wraps() {
        let ring = Ring::new(10).unwrap();
        assert_eq!(ring.add(at(0, 4), 5), at(0, 9));
        assert_eq!(ring.add(at(0, 4), 6), at(1, 0));
        assert_eq!(ring.add(at(u16::MAX, 4), 10), at(0, 4));
    }

    #[test]
    fn diff_accepts_at_most_one_ring_forward() {
        let ring = Ring::new(10).unwrap();
        assert_eq!(ring.diff(at(0, 4), at(0, 4)), Some(0));
        assert_eq!(ring.diff(at(0, 4), at(1, 4)), Some(10));
        assert_eq!(ring.diff(at(u16::MAX, 9), at(0, 0)), Some(1));
        // Backwards, too far, outside of the ring.
        assert_eq!(ring.diff(at(0, 4), at(0, 3)), None);
        assert_eq!(ring.diff(at(0, 4), at(1, 5)), None);
        assert_eq!(ring.diff(at(0, 4), at(2, 0)), None);
        assert_eq!(ring.diff(at(0, 4), at(0, 10)), None);
        assert_eq!(ring.diff(at(0, 4), at(0, u32::MAX)), None);
    }

    #[test]
    fn spans_cut_at_the_end() {
        let ring = Ring::new(10).unwrap();
        let spans = ring.spans(at(3, 7), 5);
        assert_eq!(spans.first, Span { offset: 7, len: 3 });
        assert_eq!(spans.second, Span { offset: 0, len: 2 });
        assert_eq!(spans.len(), 5);
        assert_eq!(ring.spans(at(0, 0), 99).len(), 10);
        assert!(ring.spans(at(0, 5), 0).is_empty());
    }

    #[test]
    fn no_ring_without_a_length() {
        assert!(Ring::new(0).is_none());
        assert!(Ring::new(Ring::MAX_LEN).is_some());
        assert!(Ring::new(u32::MAX).is_none());
    }

    #[test]
    fn words_and_wire() {
        let cursor = at(0x1234, 0x8765_4321);
        assert_eq!(Cursor::from_u64(cursor.to_u64()), cursor);
        assert_eq!(Cursor::from(WireCursor::from(cursor)), cursor);
    }
}
