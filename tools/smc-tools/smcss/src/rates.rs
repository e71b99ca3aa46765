// SPDX-License-Identifier: GPL-2.0

//! How fast connections are, from the cursors of one listing and the next.

use smc_tools_common::diag::{Conn, Entry};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// That were sent by RDMA.
    pub(crate) sent: u64,
    /// That the peer wrote.
    pub(crate) received: u64,
}

/// The listing before, by cookie.
#[derive(Default)]
pub(crate) struct Rates {
    before: HashMap<u64, Conn>,
    taken: Option<Instant>,
}

impl Rates {
    /// Takes a listing of the moment `now`; the rates since the one before, by cookie.
    pub(crate) fn next(&mut self, entries: &[Entry], now: Instant) -> HashMap<u64, Rate> {
        let passed = self.taken.map(|taken| now.saturating_duration_since(taken));
        let connections: HashMap<u64, Conn> = entries
            .iter()
            .filter_map(|entry| Some((entry.cookie, entry.conn.clone()?)))
            .collect();
        let rates = connections
            .iter()
            .filter_map(|(cookie, conn)| {
                let rate = rate(self.before.get(cookie)?, conn, passed?)?;
                Some((*cookie, rate))
            })
            .collect();
        self.before = connections;
        self.taken = Some(now);
        rates
    }
}

/// `None` if no time has passed or the cursors make no sense.
fn rate(before: &Conn, now: &Conn, passed: Duration) -> Option<Rate> {
    let per_second = |bytes: u64| {
        let nanoseconds = passed.as_nanos();
        let rate = (u128::from(bytes) * 1_000_000_000).checked_div(nanoseconds)?;
        u64::try_from(rate).ok()
    };
    Some(Rate {
        sent: per_second(before.tx_sent.moved(now.tx_sent, now.sndbuf_size)?)?,
        received: per_second(before.rx_prod.moved(now.rx_prod, now.rmbe_size)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::tests::{conn, entry};
    use smc_tools_common::diag::Cursor;

    fn at(sent: (u16, u32), received: (u16, u32), cookie: u64) -> Entry {
        let cursor = |(wrap, count)| Cursor { wrap, count };
        Entry {
            cookie,
            conn: Some(Conn {
                tx_sent: cursor(sent),
                rx_prod: cursor(received),
                ..conn()
            }),
            ..entry()
        }
    }

    #[test]
    fn a_rate_is_what_the_cursors_moved_in_the_time() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        assert!(rates.next(&[at((0, 0x3fff), (0, 0), 1)], begin).is_empty());
        let later = begin + Duration::from_millis(500);
        let got = rates.next(
            &[at((1, 0x0fff), (0, 100), 1), at((0, 5), (0, 5), 2)],
            later,
        );
        // The second one is new.
        assert_eq!(got.len(), 1);
        assert_eq!(
            got[&1],
            Rate {
                sent: 0x1000 * 2,
                received: 200
            }
        );
        let got = rates.next(
            &[at((1, 0x0fff), (0, 100), 1), at((0, 5), (0, 6), 2)],
            later + Duration::from_secs(1),
        );
        assert_eq!((got[&1].sent, got[&2].received), (0, 1));
    }

    #[test]
    fn no_time_and_no_sense_make_no_rate() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        rates.next(&[at((0, 0), (0, 0), 1)], begin);
        assert!(rates.next(&[at((0, 1), (0, 0), 1)], begin).is_empty());
        let outside = at((0, u32::MAX), (0, 0), 1);
        assert!(rates
            .next(&[outside], begin + Duration::from_secs(1))
            .is_empty());
    }
}
