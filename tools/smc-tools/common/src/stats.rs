// SPDX-License-Identifier: GPL-2.0

//! Statistics of a network namespace (`SMC_NETLINK_GET_STATS`, `SMC_NETLINK_GET_FBACK_STATS`).

use crate::netlink::Fields;
use crate::smc::Smc;
use crate::Error;

/// `SMC_NETLINK_GET_STATS`, `SMC_NETLINK_GET_FBACK_STATS`.
const GET_STATS: u8 = 7;
const GET_FALLBACKS: u8 = 8;
/// Outermost attributes.
const STATS: u16 = 7;
const FALLBACKS: u16 = 8;
/// Attributes of `STATS`.
const SMCD: u16 = 1;
const SMCR: u16 = 2;
const CLIENT_FAILED: u16 = 3;
const SERVER_FAILED: u16 = 4;

/// Sizes that are told apart: up to 8, 16, 32, 64, 128, 256, 512, 1024 KiB, and above.
pub const SIZES: usize = 9;

/// What became of buffers of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Calls with more than the peer's buffer takes.
    pub small_for_peer: u64,
    /// Calls with more than the buffer takes.
    pub small: u64,
    /// Times that the peer's buffer was full.
    pub peer_full: u64,
    /// Times that the buffer was full.
    pub full: u64,
    /// Buffers that had been another connection's.
    pub reused: u64,
    /// Buffers that were made.
    pub allocated: u64,
    /// Buffers smaller than wanted, for want of memory.
    pub downgraded: u64,
}

/// Counters of SMC-R, or of SMC-D.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Technology {
    /// Send buffers by size.
    pub tx_sizes: [u64; SIZES],
    /// Receive buffers by size.
    pub rx_sizes: [u64; SIZES],
    /// Calls that send, by bytes.
    pub tx_calls: [u64; SIZES],
    /// Calls that receive, by bytes.
    pub rx_calls: [u64; SIZES],
    /// Send buffers.
    pub tx_buffers: Buffers,
    /// Receive buffers.
    pub rx_buffers: Buffers,
    /// Connections as a client by version 1.
    pub client_v1: u64,
    /// And by version 2.
    pub client_v2: u64,
    /// Connections as a server by version 1.
    pub server_v1: u64,
    /// And by version 2.
    pub server_v2: u64,
    /// Calls of `sendpage`.
    pub sendpage: u64,
    /// Calls with urgent data.
    pub urgent: u64,
    /// Calls of `splice`.
    pub splice: u64,
    /// Calls that take the cork out.
    pub cork: u64,
    /// Calls that switch `TCP_NODELAY` on.
    pub nodelay: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Calls that receive.
    pub rx_count: u64,
    /// Calls that send.
    pub tx_count: u64,
    /// Bytes of receive buffers in use now.
    pub rx_usage: u64,
    /// Bytes of send buffers in use now.
    pub tx_usage: u64,
}

/// Names of the counters, as `smcr stats json` of IBM's has them.
const NAMES: [&str; 63] = [
    "SMC_INT_TX_BUF_8K",
    "SMC_INT_TX_BUF_16K",
    "SMC_INT_TX_BUF_32K",
    "SMC_INT_TX_BUF_64K",
    "SMC_INT_TX_BUF_128K",
    "SMC_INT_TX_BUF_256K",
    "SMC_INT_TX_BUF_512K",
    "SMC_INT_TX_BUF_1024K",
    "SMC_INT_TX_BUF_G_1024K",
    "SMC_INT_RX_BUF_8K",
    "SMC_INT_RX_BUF_16K",
    "SMC_INT_RX_BUF_32K",
    "SMC_INT_RX_BUF_64K",
    "SMC_INT_RX_BUF_128K",
    "SMC_INT_RX_BUF_256K",
    "SMC_INT_RX_BUF_512K",
    "SMC_INT_RX_BUF_1024K",
    "SMC_INT_RX_BUF_G_1024K",
    "SMC_USR_TX_BUF_8K",
    "SMC_USR_TX_BUF_16K",
    "SMC_USR_TX_BUF_32K",
    "SMC_USR_TX_BUF_64K",
    "SMC_USR_TX_BUF_128K",
    "SMC_USR_TX_BUF_256K",
    "SMC_USR_TX_BUF_512K",
    "SMC_USR_TX_BUF_1024K",
    "SMC_USR_TX_BUF_G_1024K",
    "SMC_USR_RX_BUF_8K",
    "SMC_USR_RX_BUF_16K",
    "SMC_USR_RX_BUF_32K",
    "SMC_USR_RX_BUF_64K",
    "SMC_USR_RX_BUF_128K",
    "SMC_USR_RX_BUF_256K",
    "SMC_USR_RX_BUF_512K",
    "SMC_USR_RX_BUF_1024K",
    "SMC_USR_RX_BUF_G_1024K",
    "SMC_INT_TX_BUF_SIZE_SM_PEER_CNT",
    "SMC_INT_TX_BUF_SIZE_SM_CNT",
    "SMC_INT_TX_BUF_FULL_PEER_CNT",
    "SMC_INT_TX_BUF_FULL_CNT",
    "SMC_INT_TX_BUF_REUSE_CNT",
    "SMC_INT_TX_BUF_ALLOC_CNT",
    "SMC_INT_TX_BUF_DGRADE_CNT",
    "SMC_INT_RX_BUF_SIZE_SM_PEER_CNT",
    "SMC_INT_RX_BUF_SIZE_SM_CNT",
    "SMC_INT_RX_BUF_FULL_PEER_CNT",
    "SMC_INT_RX_BUF_FULL_CNT",
    "SMC_INT_RX_BUF_REUSE_CNT",
    "SMC_INT_RX_BUF_ALLOC_CNT",
    "SMC_INT_RX_BUF_DGRADE_CNT",
    "SMC_CLNT_V1_SUCC_CNT",
    "SMC_CLNT_V2_SUCC_CNT",
    "SMC_SRV_V1_SUCC_CNT",
    "SMC_SRV_V2_SUCC_CNT",
    "SMC_SENDPAGE_CNT",
    "SMC_URG_DATA_CNT",
    "SMC_SPLICE_CNT",
    "SMC_CORK_CNT",
    "SMC_NDLY_CNT",
    "SMC_RX_BYTES",
    "SMC_TX_BYTES",
    "SMC_RX_CNT",
    "SMC_TX_CNT",
];

impl Buffers {
    fn fields(&mut self) -> [&mut u64; 7] {
        [
            &mut self.small_for_peer,
            &mut self.small,
            &mut self.peer_full,
            &mut self.full,
            &mut self.reused,
            &mut self.allocated,
            &mut self.downgraded,
        ]
    }

    fn parse(fields: Option<Fields<'_>>) -> Result<Self, Error> {
        let mut buffers = Self::default();
        if let Some(fields) = fields {
            for (kind, field) in (1..).zip(buffers.fields()) {
                *field = fields.u64(kind)?;
            }
        }
        Ok(buffers)
    }
}

impl Technology {
    /// All counters, but not what is a state of now (`rx_usage`, `tx_usage`), in the order of
    /// [`NAMES`].
    fn fields(&mut self) -> Vec<&mut u64> {
        let mut all: Vec<&mut u64> = Vec::with_capacity(NAMES.len());
        all.extend(&mut self.tx_sizes);
        all.extend(&mut self.rx_sizes);
        all.extend(&mut self.tx_calls);
        all.extend(&mut self.rx_calls);
        all.extend(self.tx_buffers.fields());
        all.extend(self.rx_buffers.fields());
        all.extend([
            &mut self.client_v1,
            &mut self.client_v2,
            &mut self.server_v1,
            &mut self.server_v2,
            &mut self.sendpage,
            &mut self.urgent,
            &mut self.splice,
            &mut self.cork,
            &mut self.nodelay,
            &mut self.rx_bytes,
            &mut self.tx_bytes,
            &mut self.rx_count,
            &mut self.tx_count,
        ]);
        all
    }

    /// All counters with their names.
    pub fn counters(mut self) -> Vec<(&'static str, u64)> {
        let values: Vec<u64> = self.fields().into_iter().map(|value| *value).collect();
        NAMES.into_iter().zip(values).collect()
    }

    fn parse(fields: Option<Fields<'_>>) -> Result<Self, Error> {
        let mut this = Self::default();
        let Some(fields) = fields else {
            return Ok(this);
        };
        for (kind, sizes) in [
            (1, &mut this.tx_sizes),
            (2, &mut this.rx_sizes),
            (3, &mut this.tx_calls),
            (4, &mut this.rx_calls),
        ] {
            if let Some(fields) = fields.nest(kind)? {
                for (kind, size) in (1..).zip(sizes) {
                    *size = fields.u64(kind)?;
                }
            }
        }
        this.tx_buffers = Buffers::parse(fields.nest(5)?)?;
        this.rx_buffers = Buffers::parse(fields.nest(6)?)?;
        for (kind, field) in [
            (7, &mut this.client_v1),
            (8, &mut this.client_v2),
            (9, &mut this.server_v1),
            (10, &mut this.server_v2),
            (11, &mut this.sendpage),
            (12, &mut this.splice),
            (13, &mut this.cork),
            (14, &mut this.nodelay),
            (15, &mut this.urgent),
            (16, &mut this.rx_bytes),
            (17, &mut this.tx_bytes),
            (18, &mut this.rx_count),
            (19, &mut this.tx_count),
            (20, &mut this.rx_usage),
            (21, &mut this.tx_usage),
        ] {
            *field = fields.u64(kind)?;
        }
        Ok(this)
    }
}

/// How often connections of one side fell back, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// All of them.
    pub total: u64,
    /// By reason ([`crate::reason`]), the most frequent first. The kernel counts to 65,535 here.
    pub reasons: Vec<(u32, u16)>,
}

impl Fallbacks {
    fn sort(&mut self) {
        self.reasons
            .sort_by_key(|&(code, count)| (u16::MAX - count, code));
    }

    fn since(&self, before: &Self) -> Option<Self> {
        let count_before = |code| {
            let found = before.reasons.iter().find(|(other, _)| *other == code);
            found.map_or(0, |(_, count)| *count)
        };
        let mut reasons = Vec::new();
        for &(code, count) in &self.reasons {
            match count.checked_sub(count_before(code))? {
                0 => {}
                count => reasons.push((code, count)),
            }
        }
        let mut since = Self {
            total: self.total.checked_sub(before.total)?,
            reasons,
        };
        since.sort();
        Some(since)
    }
}

/// Everything that is counted in a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// SMC-R.
    pub smcr: Technology,
    /// SMC-D.
    pub smcd: Technology,
    /// Handshakes that failed, and the connections with them, as the client.
    pub client_failed: u64,
    /// And as the server.
    pub server_failed: u64,
    /// Fallbacks as the client.
    pub client_fallbacks: Fallbacks,
    /// And as the server.
    pub server_fallbacks: Fallbacks,
}

impl Stats {
    fn parse(&mut self, attributes: &[u8]) -> Result<(), Error> {
        let fields = Fields::parse(attributes)?;
        if let Some(stats) = fields.nest(STATS)? {
            self.smcr = Technology::parse(stats.nest(SMCR)?)?;
            self.smcd = Technology::parse(stats.nest(SMCD)?)?;
            self.client_failed = stats.u64(CLIENT_FAILED)?;
            self.server_failed = stats.u64(SERVER_FAILED)?;
        }
        Ok(())
    }

    fn parse_fallback(&mut self, attributes: &[u8]) -> Result<(), Error> {
        const TYPE: u16 = 1;
        const SERVER_TOTAL: u16 = 2;
        const CLIENT_TOTAL: u16 = 3;
        const REASON: u16 = 4;
        const COUNT: u16 = 5;
        let fields = Fields::parse(attributes)?;
        let Some(fallback) = fields.nest(FALLBACKS)? else {
            return Ok(());
        };
        // In the first message only.
        self.server_fallbacks.total += fallback.u64(SERVER_TOTAL)?;
        self.client_fallbacks.total += fallback.u64(CLIENT_TOTAL)?;
        let side = match fallback.u8(TYPE)? {
            0 => &mut self.client_fallbacks,
            _ => &mut self.server_fallbacks,
        };
        match (fallback.u32(REASON)?, fallback.u16(COUNT)?) {
            (0, _) | (_, 0) => {}
            reason => side.reasons.push(reason),
        }
        side.sort();
        Ok(())
    }

    /// What was counted since; `None` if these are not the later ones of the same counters.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let mut since = self.clone();
        for (now, mut before) in [
            (&mut since.smcr, before.smcr),
            (&mut since.smcd, before.smcd),
        ] {
            for (now, before) in now.fields().into_iter().zip(before.fields()) {
                *now = now.checked_sub(*before)?;
            }
        }
        since.client_failed = self.client_failed.checked_sub(before.client_failed)?;
        since.server_failed = self.server_failed.checked_sub(before.server_failed)?;
        since.client_fallbacks = self.client_fallbacks.since(&before.client_fallbacks)?;
        since.server_fallbacks = self.server_fallbacks.since(&before.server_fallbacks)?;
        Some(since)
    }

    /// As lines of text, from which [`Stats::from_lines`] makes them again.
    pub fn to_lines(&self) -> String {
        let mut text = String::new();
        for (side, technology) in [("R", self.smcr), ("D", self.smcd)] {
            for (name, value) in technology.counters() {
                text.push_str(&format!("{side} {name} {value}\n"));
            }
        }
        for (side, failed, fallbacks) in [
            ("client", self.client_failed, &self.client_fallbacks),
            ("server", self.server_failed, &self.server_fallbacks),
        ] {
            text.push_str(&format!("{side} failed {failed}\n"));
            text.push_str(&format!("{side} fallbacks {}\n", fallbacks.total));
            for (code, count) in &fallbacks.reasons {
                text.push_str(&format!("{side} {code:#010x} {count}\n"));
            }
        }
        text
    }

    /// `None` if the text is none of [`Stats::to_lines`].
    pub fn from_lines(text: &str) -> Option<Self> {
        let mut stats = Self::default();
        let mut lines = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [side, name, value] = words.as_slice() else {
                return None;
            };
            let number: u64 = value.parse().ok()?;
            if let Some(technology) = match *side {
                "R" => Some(&mut stats.smcr),
                "D" => Some(&mut stats.smcd),
                _ => None,
            } {
                let at = NAMES.iter().position(|known| known == name)?;
                *technology.fields().into_iter().nth(at)? = number;
                lines += 1;
                continue;
            }
            let (failed, fallbacks) = match *side {
                "client" => (&mut stats.client_failed, &mut stats.client_fallbacks),
                "server" => (&mut stats.server_failed, &mut stats.server_fallbacks),
                _ => return None,
            };
            match *name {
                "failed" => *failed = number,
                "fallbacks" => fallbacks.total = number,
                code => {
                    let code = u32::from_str_radix(code.strip_prefix("0x")?, 16).ok()?;
                    fallbacks.reasons.push((code, value.parse().ok()?));
                }
            }
        }
        stats.client_fallbacks.sort();
        stats.server_fallbacks.sort();
        (lines == 2 * NAMES.len()).then_some(stats)
    }
}

impl Smc {
    /// The statistics.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        self.dump(GET_STATS, "asking for statistics", |attributes| {
            stats.parse(attributes)
        })?;
        self.dump(GET_FALLBACKS, "asking for fallbacks", |attributes| {
            stats.parse_fallback(attributes)
        })?;
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    fn u64s(kind: u16, value: u64) -> Vec<u8> {
        attribute(kind, &value.to_ne_bytes())
    }

    fn numbers(kind: u16, first: u64, count: u16) -> Vec<u8> {
        let each = (1..=count).map(|n| u64s(n, first + u64::from(n)));
        nest(kind, &each.collect::<Vec<_>>())
    }

    /// Counters with a different value each: their hundred is their attribute.
    fn message() -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = (1..=4u16)
            .map(|n| numbers(n, u64::from(n) * 100, 9))
            .collect();
        parts.extend([numbers(5, 500, 7), numbers(6, 600, 7)]);
        parts.extend((7..=19).map(|n| u64s(n, u64::from(n) * 100)));
        parts.push(attribute(20, &2000u32.to_ne_bytes()));
        parts.push(u64s(21, 2100));
        nest(
            STATS,
            &[
                nest(SMCR, &parts),
                u64s(CLIENT_FAILED, 3),
                u64s(SERVER_FAILED, 4),
            ],
        )
    }

    fn stats() -> Stats {
        let mut stats = Stats::default();
        stats.parse(&message()).unwrap();
        stats
    }

    #[test]
    fn every_counter_is_where_the_abi_has_it() {
        let got = stats();
        let tech = got.smcr;
        let run = |first: u64| core::array::from_fn(|n| first + 1 + n as u64);
        assert_eq!((tech.tx_sizes, tech.rx_sizes), (run(100), run(200)));
        assert_eq!((tech.tx_calls, tech.rx_calls), (run(300), run(400)));
        let buffers = |first: u64| Buffers {
            small_for_peer: first + 1,
            small: first + 2,
            peer_full: first + 3,
            full: first + 4,
            reused: first + 5,
            allocated: first + 6,
            downgraded: first + 7,
        };
        assert_eq!(
            (tech.tx_buffers, tech.rx_buffers),
            (buffers(500), buffers(600))
        );
        assert_eq!(
            [
                tech.client_v1,
                tech.client_v2,
                tech.server_v1,
                tech.server_v2,
                tech.sendpage,
                tech.splice,
                tech.cork,
                tech.nodelay,
                tech.urgent,
                tech.rx_bytes,
                tech.tx_bytes,
                tech.rx_count,
                tech.tx_count,
                tech.rx_usage,
                tech.tx_usage
            ],
            core::array::from_fn(|n| (n as u64 + 7) * 100)
        );
        assert_eq!((got.client_failed, got.server_failed), (3, 4));
        assert_eq!(got.smcd, Technology::default());
    }

    #[test]
    fn counters_have_the_names_of_ibms_tool() {
        let counters = stats().smcr.counters();
        assert_eq!(counters.len(), NAMES.len());
        let value = |name| {
            let found = counters.iter().find(|(other, _)| *other == name);
            found.unwrap().1
        };
        assert_eq!(value("SMC_INT_TX_BUF_8K"), 101);
        assert_eq!(value("SMC_INT_RX_BUF_G_1024K"), 209);
        assert_eq!(value("SMC_USR_TX_BUF_16K"), 302);
        assert_eq!(value("SMC_USR_RX_BUF_1024K"), 408);
        assert_eq!(value("SMC_INT_TX_BUF_SIZE_SM_PEER_CNT"), 501);
        assert_eq!(value("SMC_INT_RX_BUF_DGRADE_CNT"), 607);
        assert_eq!(value("SMC_SRV_V2_SUCC_CNT"), 1000);
        assert_eq!(value("SMC_URG_DATA_CNT"), 1500);
        assert_eq!(value("SMC_NDLY_CNT"), 1400);
        assert_eq!(value("SMC_TX_CNT"), 1900);
    }

    fn fallback(server: u8, totals: Option<(u64, u64)>, code: u32, count: u16) -> Vec<u8> {
        let mut parts = vec![attribute(1, &[server])];
        if let Some((server, client)) = totals {
            parts.extend([u64s(2, server), u64s(3, client)]);
        }
        parts.push(attribute(4, &code.to_ne_bytes()));
        parts.push(attribute(5, &count.to_ne_bytes()));
        nest(FALLBACKS, &parts)
    }

    #[test]
    fn fallbacks_are_of_their_side_the_most_frequent_first() {
        let mut stats = Stats::default();
        for message in [
            fallback(1, Some((4, 70000)), 0x0303_0000, 4),
            fallback(0, None, 0x0301_0000, 9),
            fallback(0, None, 0x0500_0000, u16::MAX),
            // As if there was none.
            fallback(0, None, 0, 0),
        ] {
            stats.parse_fallback(&message).unwrap();
        }
        assert_eq!(stats.server_fallbacks.total, 4);
        assert_eq!(stats.server_fallbacks.reasons, [(0x0303_0000, 4)]);
        assert_eq!(stats.client_fallbacks.total, 70000);
        assert_eq!(
            stats.client_fallbacks.reasons,
            [(0x0500_0000, u16::MAX), (0x0301_0000, 9)]
        );
    }

    #[test]
    fn a_difference_is_of_counters_only_and_never_negative() {
        let before = stats();
        let mut now = before.clone();
        now.smcr.tx_bytes += 5;
        now.smcr.tx_usage = 1;
        now.server_failed += 1;
        now.client_fallbacks = Fallbacks {
            total: 3,
            reasons: vec![(1, 2), (2, 1)],
        };
        let since = now.since(&before).unwrap();
        assert_eq!((since.smcr.tx_bytes, since.smcr.rx_bytes), (5, 0));
        // That is how it is now.
        assert_eq!(since.smcr.tx_usage, 1);
        assert_eq!((since.server_failed, since.client_failed), (1, 0));
        assert_eq!(since.client_fallbacks.reasons, [(1, 2), (2, 1)]);
        // The module was loaded anew.
        assert_eq!(before.since(&now), None);
        let mut later = now.clone();
        later.client_fallbacks.reasons = vec![(1, 1), (2, 1)];
        assert_eq!(later.since(&now), None);
    }

    #[test]
    fn lines_give_the_same_again() {
        let mut wanted = stats();
        wanted.client_fallbacks = Fallbacks {
            total: 3,
            reasons: vec![(0x0301_0000, 2), (0x0500_0000, 1)],
        };
        // A state of now is not kept.
        wanted.smcr.rx_usage = 0;
        wanted.smcr.tx_usage = 0;
        let lines = wanted.to_lines();
        assert_eq!(Stats::from_lines(&lines), Some(wanted));
        for wrong in [
            "",
            "R SMC_TX_CNT 1\n",
            "x",
            "R SMC_NO_SUCH 1",
            "client failed x",
        ] {
            assert_eq!(Stats::from_lines(wrong), None, "{wrong}");
        }
    }
}
