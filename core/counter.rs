// SPDX-License-Identifier: GPL-2.0

//! What is counted in each network namespace, in the terms of `linux/smc.h`.

#![forbid(unsafe_code)]

/// A counter, as its number among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(usize);

/// Sizes that are counted apart: up to 8 KiB, up to 16 KiB, and so on; the last one is for more than
/// 1 MiB.
pub const SIZES: usize = 9;

/// A counter for each of [`SIZES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes(usize);

impl Sizes {
    /// The counter for something of `len` bytes.
    pub fn of(self, len: usize) -> Counter {
        // Of C: fls64((len - 1) >> 13), at most the last one.
        let above = len.saturating_sub(1) >> 13;
        let bits = (usize::BITS as usize).saturating_sub(above.leading_zeros() as usize);
        self.at(bits)
    }

    /// All of them, the smallest size first.
    pub fn all(self) -> impl Iterator<Item = Counter> {
        (0..SIZES).map(move |size| self.at(size))
    }

    fn at(self, size: usize) -> Counter {
        let size = if size < SIZES {
            size
        } else {
            SIZES.saturating_sub(1)
        };
        Counter(self.0.saturating_add(size))
    }
}

/// The counter `distance` behind the one with number `first`.
const fn behind(first: usize, distance: usize) -> Counter {
    Counter(first.saturating_add(distance))
}

/// What is counted of the buffers of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Buffers that connections have got, by their size.
    pub sizes: Sizes,
    /// Bytes of buffers that connections have now.
    pub usage: Counter,
    /// Calls with more than the peer's RMB holds.
    pub small_for_peer: Counter,
    /// Calls with more than our own buffer holds.
    pub small: Counter,
    /// The peer's RMB was full, so that something could not be sent.
    pub peer_full: Counter,
    /// Our own buffer was full.
    pub full: Counter,
    /// A connection has got the buffer of an earlier one.
    pub reused: Counter,
    /// A connection has got a new buffer.
    pub allocated: Counter,
    /// A connection has got a smaller buffer than asked for, for want of memory.
    pub downgraded: Counter,
}

impl Buffers {
    const LEN: usize = SIZES + 8;

    const fn at(first: usize) -> Self {
        Self {
            sizes: Sizes(first),
            usage: behind(first, SIZES),
            small_for_peer: behind(first, SIZES + 1),
            small: behind(first, SIZES + 2),
            peer_full: behind(first, SIZES + 3),
            full: behind(first, SIZES + 4),
            reused: behind(first, SIZES + 5),
            allocated: behind(first, SIZES + 6),
            downgraded: behind(first, SIZES + 7),
        }
    }
}

/// What is counted of system calls of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Calls that have moved something, by its size.
    pub sizes: Sizes,
    /// All calls.
    pub calls: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl Calls {
    const LEN: usize = SIZES + 2;

    const fn at(first: usize) -> Self {
        Self {
            sizes: Sizes(first),
            calls: behind(first, SIZES),
            bytes: behind(first, SIZES + 1),
        }
    }
}

/// Send buffers.
pub const TX_BUFFERS: Buffers = Buffers::at(0);
/// RMBs.
pub const RX_BUFFERS: Buffers = Buffers::at(Buffers::LEN);
/// `send` and the like.
pub const TX_CALLS: Calls = Calls::at(2 * Buffers::LEN);
/// `recv` and the like.
pub const RX_CALLS: Calls = Calls::at(2 * Buffers::LEN + Calls::LEN);

const FIRST: usize = 2 * Buffers::LEN + 2 * Calls::LEN;
/// Connections made as a client by SMC-Rv1.
pub const CLIENT_V1: Counter = Counter(FIRST);
/// Connections made as a client by SMC-Rv2.
pub const CLIENT_V2: Counter = Counter(FIRST + 1);
/// Connections made as a server by SMC-Rv1.
pub const SERVER_V1: Counter = Counter(FIRST + 2);
/// Connections made as a server by SMC-Rv2.
pub const SERVER_V2: Counter = Counter(FIRST + 3);
/// Calls of `splice` and `sendfile` that read.
pub const SPLICES: Counter = Counter(FIRST + 4);
/// `TCP_CORK` was taken off a connection.
pub const CORKS: Counter = Counter(FIRST + 5);
/// `TCP_NODELAY` was set on a connection.
pub const NODELAYS: Counter = Counter(FIRST + 6);
/// Calls with `MSG_OOB`, of both directions.
pub const URGENT: Counter = Counter(FIRST + 7);
/// Handshakes as a client that have failed, with their connection.
pub const CLIENT_FAILED: Counter = Counter(FIRST + 8);
/// Handshakes as a server that have failed, with their connection.
pub const SERVER_FAILED: Counter = Counter(FIRST + 9);

/// How many counters there are.
pub const COUNT: usize = FIRST + 10;

impl Counter {
    /// Its number, below [`COUNT`].
    pub const fn number(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashSet,
        vec::Vec, //
    };

    #[test]
    fn sizes_are_those_of_the_abi() {
        let of = |len| TX_CALLS.sizes.of(len).0 - TX_CALLS.sizes.0;
        for (len, size) in [
            (1, 0),
            (8192, 0),
            (8193, 1),
            (16384, 1),
            (16385, 2),
            (65536, 3),
            (1 << 20, 7),
            ((1 << 20) + 1, 8),
            (usize::MAX, 8),
        ] {
            assert_eq!(of(len), size, "{len}");
        }
    }

    #[test]
    fn no_two_counters_are_one() {
        let mut all: Vec<Counter> = Vec::new();
        for buffers in [TX_BUFFERS, RX_BUFFERS] {
            all.extend(buffers.sizes.all());
            all.extend([
                buffers.usage,
                buffers.small_for_peer,
                buffers.small,
                buffers.peer_full,
                buffers.full,
                buffers.reused,
                buffers.allocated,
                buffers.downgraded,
            ]);
        }
        for calls in [TX_CALLS, RX_CALLS] {
            all.extend(calls.sizes.all());
            all.extend([calls.calls, calls.bytes]);
        }
        all.extend([CLIENT_V1, CLIENT_V2, SERVER_V1, SERVER_V2, SPLICES, CORKS]);
        all.extend([NODELAYS, URGENT, CLIENT_FAILED, SERVER_FAILED]);
        let numbers: HashSet<usize> = all.iter().map(|counter| counter.number()).collect();
        assert_eq!((all.len(), numbers.len()), (COUNT, COUNT));
        assert!(numbers.iter().all(|&number| number < COUNT));
    }
}
