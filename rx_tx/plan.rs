// SPDX-License-Identifier: GPL-2.0

//! From a stretch of the send buffer to RDMA writes.
//!
//! The stretch may wrap in the peer's ring, which makes it two writes, and in the send buffer,
//! which gives one of them a second source segment. So a plan has at most two writes and at most
//! three segments in all; each write has at most two.

#![forbid(unsafe_code)]

use super::cursor::{
    Cursor,
    Ring,
    Span,
    Spans, //
};

/// One RDMA write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RdmaWrite {
    /// Offset in the peer's RMBE.
    pub remote_offset: u32,
    /// Where the bytes are in the send buffer.
    pub source: Spans,
}

impl RdmaWrite {
    /// Bytes it moves.
    pub const fn len(&self) -> u32 {
        self.source.len()
    }

    /// Whether it moves nothing, that is, is not to be posted.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The writes that move `n` bytes from `from` in the ring `source` to `to` in the ring `target`.
/// Unused entries are empty. Nothing is written outside of either ring, whatever the arguments.
pub fn plan_writes(source: Ring, from: Cursor, target: Ring, to: Cursor, n: u32) -> [RdmaWrite; 2] {
    let n = n.min(source.len());
    // Most often neither wraps.
    let room = |ring: Ring, at: Cursor| ring.len().saturating_sub(at.count);
    if n <= room(source, from) && n <= room(target, to) {
        let offset = from.count;
        let source = Spans {
            first: Span { offset, len: n },
            second: Span::EMPTY,
        };
        let remote_offset = to.count;
        return [
            RdmaWrite {
                remote_offset,
                source,
            },
            RdmaWrite::default(),
        ];
    }
    let Spans { first, second } = target.spans(to, n);
    let middle = source.add(from, first.len);
    let write = |span: Span, start: Cursor| RdmaWrite {
        remote_offset: span.offset,
        source: source.spans(start, span.len),
    };
    [write(first, from), write(second, middle)]
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_plan))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn at(count: u32) -> Cursor {
        Cursor { wrap: 0, count }
    }

    #[test]
    fn straight() {
        let ring = Ring::new(100).unwrap();
        let [a, b] = plan_writes(ring, at(10), ring, at(20), 30);
        assert_eq!((a.remote_offset, a.len()), (20, 30));
        assert_eq!(
            a.source.first,
            Span {
                offset: 10,
                len: 30
            }
        );
        assert!(b.is_empty());
    }

    /// What is written where, byte by byte, is the same whether or not something wraps.
    #[test]
    fn every_place_in_small_rings() {
        let (source, target) = (Ring::new(5).unwrap(), Ring::new(7).unwrap());
        for (from, to, n) in
            (0..5).flat_map(|from| (0..7).flat_map(move |to| (0..6).map(move |n| (from, to, n))))
        {
            let mut moved = [None; 5];
            let mut count = 0;
            for write in plan_writes(source, at(from), target, at(to), n) {
                let bytes = write
                    .source
                    .iter()
                    .flat_map(|span| span.offset..span.offset + span.len);
                for (place, byte) in (write.remote_offset..).zip(bytes) {
                    assert!(place < 7 && byte < 5);
                    moved[count] = Some((byte, place));
                    count += 1;
                }
            }
            let expected = |i: u32| (i < n).then_some(((from + i) % 5, (to + i) % 7));
            assert_eq!(moved, [0, 1, 2, 3, 4].map(expected), "{from} {to} {n}");
        }
    }

    #[test]
    fn both_rings_wrap() {
        let source = Ring::new(50).unwrap();
        let target = Ring::new(100).unwrap();
        let [a, b] = plan_writes(source, at(40), target, at(80), 45);
        assert_eq!(a.remote_offset, 80);
        assert_eq!(
            a.source.first,
            Span {
                offset: 40,
                len: 10
            }
        );
        assert_eq!(a.source.second, Span { offset: 0, len: 10 });
        assert_eq!(b.remote_offset, 0);
        assert_eq!(
            b.source.first,
            Span {
                offset: 10,
                len: 25
            }
        );
        assert!(b.source.second.len == 0);
    }
}
