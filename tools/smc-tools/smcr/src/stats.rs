// SPDX-License-Identifier: GPL-2.0

//! `smcr stats` and `smcd stats`.

use crate::args::{Options, StatsAction, Watch};
use crate::reset;
use serde_json::{json, Map, Value};
use smc_tools_common::reason;
use smc_tools_common::smc::Smc;
use smc_tools_common::stats::{Fallbacks, Stats, Technology, SIZES};
use smc_tools_common::Error;
use std::time::{Duration, Instant};

/// Reasons that are shown of each side.
const REASONS: usize = 3;

/// SMC-R or SMC-D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    R,
    D,
}

impl Side {
    fn of(self, stats: &Stats) -> Technology {
        match self {
            Side::R => stats.smcr,
            Side::D => stats.smcd,
        }
    }
}

/// Four digits and a unit of powers of 1000, if there are more than three.
fn short(value: u64) -> String {
    let mut rest = value as f64;
    if value < 1000 {
        return value.to_string();
    }
    for unit in ["K", "M", "G", "T", "P", "E"] {
        rest /= 1000.0;
        // What would be rounded to the next unit is given with it.
        let digits = match rest {
            rest if rest < 9.9995 => 3,
            rest if rest < 99.995 => 2,
            rest if rest < 999.95 => 1,
            _ => continue,
        };
        return format!("{rest:.digits$}{unit}");
    }
    value.to_string()
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    part as f64 / all as f64 * 100.0
}

/// The last column has all above 512 KiB.
fn size_line(name: &str, sizes: &[u64; SIZES]) -> String {
    let [a, b, c, d, e, f, g, h, above] = sizes;
    let mut line = format!("  {name}  ");
    for value in [*a, *b, *c, *d, *e, *f, *g, h.saturating_add(*above)] {
        line.push_str(&format!(" {:>6} ", short(value)));
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

fn reasons(title: &str, fallbacks: &Fallbacks) -> String {
    if fallbacks.reasons.is_empty() {
        return String::new();
    }
    let mut text = format!("    {title}\n");
    for (code, count) in fallbacks.reasons.iter().take(REASONS) {
        let name = reason::name(*code).map_or(format!("{code:#010x}"), str::to_owned);
        text.push_str(&format!("     {name:<12}            {count:12}\n"));
    }
    text
}

fn text(stats: &Stats, side: Side, details: bool) -> String {
    let tech = side.of(stats);
    let client = tech.client_v1 + tech.client_v2;
    let server = tech.server_v1 + tech.server_v2;
    let connections = client + server;
    let failed = stats.client_failed + stats.server_failed;
    let (by_client, by_server) = (&stats.client_fallbacks, &stats.server_fallbacks);
    let fallbacks = by_client.total + by_server.total;
    let requests = tech.rx_count + tech.tx_count;
    let average = percent(requests, connections) / 100.0;
    let sides = |client: u64, server: u64| match details {
        true => format!(" (client {client}, server {server})"),
        false => String::new(),
    };
    let mut out = format!(
        "SMC-{side:?} Connections Summary\n  Total connections handled  {:12}\n  SMC connections            {connections:12}{}\n",
        connections + failed + fallbacks,
        sides(client, server)
    );
    if details {
        out += &format!(
            "    v1                       {:12}\n",
            tech.client_v1 + tech.server_v1
        );
        out += &format!(
            "    v2                       {:12}\n",
            tech.client_v2 + tech.server_v2
        );
    }
    out += &format!(
        "  Handshake errors           {failed:12}{}\n  Avg requests per SMC conn  {average:14.1}\n  TCP fallback               {fallbacks:12}{}\n",
        sides(stats.client_failed, stats.server_failed),
        sides(by_client.total, by_server.total)
    );
    if details {
        out += &reasons("Server", by_server);
        out += &reasons("Client", by_client);
    }
    let sizes = "            8KB    16KB    32KB    64KB   128KB   256KB   512KB  >512KB\n";
    for (title, bytes, calls, usage, buffers, by_size, calls_by_size) in [
        (
            "RX",
            tech.rx_bytes,
            tech.rx_count,
            tech.rx_usage,
            tech.rx_buffers,
            &tech.rx_sizes,
            &tech.rx_calls,
        ),
        (
            "TX",
            tech.tx_bytes,
            tech.tx_count,
            tech.tx_usage,
            tech.tx_buffers,
            &tech.tx_sizes,
            &tech.tx_calls,
        ),
    ] {
        let share = |count: u64| format!("{count:12} ({:.2}%)", percent(count, calls));
        out += &format!(
            "\n{title} Stats\n  Data transmitted (Bytes) {bytes:14} ({})\n  Total requests             {calls:12}\n  Buffer usage  (Bytes)    {usage:14} ({})\n  Buffer full                {}\n",
            short(bytes),
            short(usage),
            share(buffers.full)
        );
        if title == "TX" {
            out += &format!(
                "  Buffer full (remote)       {}\n  Buffer too small           {}\n  Buffer too small (remote)  {}\n",
                share(buffers.peer_full),
                share(buffers.small),
                share(buffers.small_for_peer)
            );
        }
        if details {
            out += &format!(
                "  Buffer downgrades          {:12}\n  Buffer reuses              {:12}\n",
                buffers.downgraded, buffers.reused
            );
        }
        out += sizes;
        out += &size_line("Bufs", by_size);
        out += &size_line("Reqs", calls_by_size);
    }
    let special = [
        ("cork", tech.cork),
        ("nodelay", tech.nodelay),
        ("sendpage", tech.sendpage),
        ("splice", tech.splice),
        ("urgent data", tech.urgent),
    ];
    let sum: u64 = special.iter().map(|(_, count)| count).sum();
    out += &format!("\nExtras\n  Special socket calls       {sum:12}\n");
    if details {
        for (name, count) in special {
            out += &format!("    {name:<24} {count:12}\n");
        }
    }
    out
}

/// The object of IBM's, and beside it what that leaves out.
fn object(stats: &Stats, side: Side) -> Map<String, Value> {
    let tech = side.of(stats);
    let mut counters: Map<String, Value> = tech
        .counters()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    counters.insert("SMC_RX_RMB_USAGE".into(), tech.rx_usage.into());
    counters.insert("SMC_TX_RMB_USAGE".into(), tech.tx_usage.into());
    let fallbacks = |fallbacks: &Fallbacks| {
        let reasons: Vec<Value> = fallbacks
            .reasons
            .iter()
            .map(|(code, count)| {
                json!({ "reason": code, "name": reason::name(*code), "text": reason::text(*code), "count": count })
            })
            .collect();
        json!({ "total": fallbacks.total, "reasons": reasons })
    };
    let mut object = Map::new();
    object.insert(format!("SMC{side:?}"), counters.into());
    object.insert(
        "handshake_errors".into(),
        json!({ "client": stats.client_failed, "server": stats.server_failed }),
    );
    object.insert(
        "fallbacks".into(),
        json!({
            "client": fallbacks(&stats.client_fallbacks), "server": fallbacks(&stats.server_fallbacks),
        }),
    );
    object
}

/// What went on per second: connections, fallbacks, handshakes that failed, calls and bytes.
#[derive(Debug, PartialEq, Eq)]
struct Rates {
    connections: u64,
    fallbacks: u64,
    errors: u64,
    rx_calls: u64,
    rx_bytes: u64,
    tx_calls: u64,
    tx_bytes: u64,
}

impl Rates {
    /// From what was counted in a time.
    fn of(since: &Stats, side: Side, passed: Duration) -> Self {
        let per_second = |count: u64| {
            let rate = u128::from(count) * 1_000_000_000 / passed.as_nanos().max(1);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let tech = side.of(since);
        let connections = tech.client_v1 + tech.client_v2 + tech.server_v1 + tech.server_v2;
        Self {
            connections: per_second(connections),
            fallbacks: per_second(since.client_fallbacks.total + since.server_fallbacks.total),
            errors: per_second(since.client_failed + since.server_failed),
            rx_calls: per_second(tech.rx_count),
            rx_bytes: per_second(tech.rx_bytes),
            tx_calls: per_second(tech.tx_count),
            tx_bytes: per_second(tech.tx_bytes),
        }
    }

    const HEADER: &'static str =
        "  Conns/s  Fallbacks/s  Errors/s    RX-Reqs/s   RX-Bytes/s    TX-Reqs/s   TX-Bytes/s\n";

    fn line(&self) -> String {
        format!(
            "{:>9}  {:>11}  {:>8}  {:>11}  {:>11}  {:>11}  {:>11}\n",
            short(self.connections),
            short(self.fallbacks),
            short(self.errors),
            short(self.rx_calls),
            short(self.rx_bytes),
            short(self.tx_calls),
            short(self.tx_bytes)
        )
    }

    fn object(&self) -> Value {
        json!({
            "connections": self.connections, "fallbacks": self.fallbacks, "handshake_errors": self.errors,
            "rx_requests": self.rx_calls, "rx_bytes": self.rx_bytes, "tx_requests": self.tx_calls,
            "tx_bytes": self.tx_bytes,
        })
    }
}

fn watch(
    smc: &mut Smc,
    side: Side,
    interval: Duration,
    count: Option<u64>,
    json: bool,
) -> Result<(), Error> {
    let mut before = (smc.stats()?, Instant::now());
    if !json {
        crate::print(Rates::HEADER)?;
    }
    let mut left = count;
    while left != Some(0) {
        std::thread::sleep(interval);
        let now = (smc.stats()?, Instant::now());
        // The module was loaded anew: from nothing.
        let since = now.0.since(&before.0).unwrap_or_else(|| now.0.clone());
        let rates = Rates::of(&since, side, now.1.saturating_duration_since(before.1));
        if json {
            let mut object = object(&now.0, side);
            object.insert("per_second".into(), rates.object());
            crate::print_json(&object.into())?;
        } else {
            crate::print(&rates.line())?;
        }
        before = now;
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(())
}

/// Does it.
pub(crate) fn run(
    smc: &mut Smc,
    side: Side,
    action: Option<StatsAction>,
    again: &Watch,
    options: &Options,
) -> Result<(), Error> {
    let json = options.json || action == Some(StatsAction::Json);
    if let Some(interval) = again.watch {
        if action == Some(StatsAction::Reset) {
            return Err(Error::Refused("'reset' does not go with --watch".into()));
        }
        return watch(smc, side, interval, again.count, json);
    }
    let counted = smc.stats()?;
    let before = if options.absolute {
        None
    } else {
        reset::last()?
    };
    // Less than at the reset: the module was loaded anew, and there was no reset since.
    let shown = before
        .and_then(|before| counted.since(&before))
        .unwrap_or_else(|| counted.clone());
    // First, as nobody may be there to read what is printed.
    if action == Some(StatsAction::Reset) {
        reset::keep(&counted)?;
    }
    if json {
        crate::print_json(&object(&shown, side).into())
    } else {
        crate::print(&text(&shown, side, options.details > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        let mut stats = Stats::default();
        let tech = &mut stats.smcr;
        tech.client_v2 = 3;
        tech.server_v1 = 1;
        tech.rx_count = 10;
        tech.tx_count = 30;
        tech.rx_bytes = 74036;
        tech.tx_bytes = 999;
        tech.tx_usage = 131072;
        tech.tx_buffers.full = 3;
        tech.rx_sizes = [0, 0, 0, 4, 0, 0, 0, 1, 2];
        tech.cork = 2;
        tech.urgent = 1;
        stats.client_failed = 1;
        stats.server_fallbacks = Fallbacks {
            total: 7,
            reasons: vec![(0x0301_0000, 5), (0x7777_0000, 2)],
        };
        stats
    }

    #[test]
    fn numbers_are_cut_to_four_digits() {
        for (value, wanted) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.000K"),
            (9999, "9.999K"),
            (74036, "74.04K"),
            (999_949, "999.9K"),
            (999_950, "1.000M"),
            (9_326_283_680, "9.326G"),
            (u64::MAX, "18.45E"),
        ] {
            assert_eq!(short(value), wanted);
        }
    }

    #[test]
    fn the_summary_is_that_of_ibms_tool() {
        assert_eq!(
            text(&stats(), Side::R, false),
            "\
SMC-R Connections Summary
  Total connections handled            12
  SMC connections                       4
  Handshake errors                      1
  Avg requests per SMC conn            10.0
  TCP fallback                          7

RX Stats
  Data transmitted (Bytes)          74036 (74.04K)
  Total requests                       10
  Buffer usage  (Bytes)                 0 (0)
  Buffer full                           0 (0.00%)
            8KB    16KB    32KB    64KB   128KB   256KB   512KB  >512KB
  Bufs        0       0       0       4       0       0       0       3
  Reqs        0       0       0       0       0       0       0       0

TX Stats
  Data transmitted (Bytes)            999 (999)
  Total requests                       30
  Buffer usage  (Bytes)            131072 (131.1K)
  Buffer full                           3 (10.00%)
  Buffer full (remote)                  0 (0.00%)
  Buffer too small                      0 (0.00%)
  Buffer too small (remote)             0 (0.00%)
            8KB    16KB    32KB    64KB   128KB   256KB   512KB  >512KB
  Bufs        0       0       0       0       0       0       0       0
  Reqs        0       0       0       0       0       0       0       0

Extras
  Special socket calls                  3
"
        );
    }

    #[test]
    fn details_have_sides_and_reasons() {
        let text = text(&stats(), Side::R, true);
        for line in [
            "  SMC connections                       4 (client 3, server 1)\n",
            "    v2                                  3\n",
            "  TCP fallback                          7 (client 0, server 7)\n    Server\n     PEERNOSMC                          5\n     0x77770000                         2\n\n",
            "    urgent data                         1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn the_other_side_has_its_own() {
        assert!(text(&stats(), Side::D, false).starts_with("SMC-D"));
        let object: Value = object(&stats(), Side::D).into();
        assert_eq!(object["SMCD"]["SMC_RX_BYTES"], 0);
    }

    #[test]
    fn json_has_ibms_names_and_the_reasons() {
        let object: Value = object(&stats(), Side::R).into();
        assert_eq!(object["SMCR"]["SMC_RX_BYTES"], 74036);
        assert_eq!(object["SMCR"]["SMC_TX_RMB_USAGE"], 131_072);
        assert_eq!(object["handshake_errors"]["client"], 1);
        assert_eq!(object["fallbacks"]["server"]["total"], 7);
        assert_eq!(
            object["fallbacks"]["server"]["reasons"][0],
            json!({"reason": 0x0301_0000, "name": "PEERNOSMC", "text": "peer did not indicate SMC", "count": 5})
        );
    }

    #[test]
    fn rates_are_what_was_counted_by_the_time() {
        let rates = Rates::of(&stats(), Side::R, Duration::from_millis(500));
        assert_eq!(
            rates,
            Rates {
                connections: 8,
                fallbacks: 14,
                errors: 2,
                rx_calls: 20,
                rx_bytes: 148_072,
                tx_calls: 60,
                tx_bytes: 1998
            }
        );
        let ends = |line: &str| -> Vec<usize> {
            let bytes = line.as_bytes();
            let end = |&at: &usize| {
                bytes[at] != b' ' && bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace)
            };
            (0..line.trim_end().len()).filter(end).collect()
        };
        assert_eq!(ends(Rates::HEADER), ends(&rates.line()));
        // No time at all is no reason to divide by it.
        Rates::of(&stats(), Side::R, Duration::ZERO);
    }
}
