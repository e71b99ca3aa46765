//! Trace events, by tracefs: what perf and trace-cmd read.

use super::link::{echo, fresh, prove_by_queue_pairs};
use super::once;
use crate::kind::{Host, Kind};
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys;
use crate::{check, check_eq, Context, Outcome};

pub const TESTS: [Test; 2] = [
    once("trace.events", 120, events),
    once("trace.trace_cmd", 120, trace_cmd),
];

pub(super) const TRACEFS: &str = "/sys/kernel/tracing";

/// The fields of C's events, in their order, behind those that every event has.
const FIELDS: [(&str, &[&str]); 4] = [
    (
        "smc_switch_to_fallback",
        &["sk", "clcsk", "net_cookie", "fallback_rsn"],
    ),
    ("smc_tx_sendmsg", &["smc", "net_cookie", "len", "name"]),
    ("smc_rx_recvmsg", &["smc", "net_cookie", "len", "name"]),
    (
        "smcr_link_down",
        &["lnk", "lgr", "net_cookie", "state", "name", "location"],
    ),
];

/// All events of the system are on while this is there.
pub(super) struct Tracing;

impl Tracing {
    pub(super) fn start() -> Outcome<Tracing> {
        sys::leave()?;
        if !std::path::Path::new(&format!("{TRACEFS}/events/smc")).exists() {
            rig::run(&format!("mount -t tracefs nodev {TRACEFS}"))?;
        }
        sys::write_file(&format!("{TRACEFS}/trace"), "")?;
        sys::write_file(&format!("{TRACEFS}/events/smc/enable"), "1")?;
        Ok(Tracing)
    }

    /// (event, what it tells) so far.
    pub(super) fn lines(&self) -> Outcome<Vec<(String, String)>> {
        let text = sys::read_file(&format!("{TRACEFS}/trace"))?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (head, told) = line
                    .match_indices(": smc")
                    .next()
                    .map(|(at, _)| line.split_at(at + 2))?;
                let _ = head;
                let (event, told) = told.split_once(": ")?;
                Some((event.to_string(), told.to_string()))
            })
            .collect())
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Err(error) = sys::write_file(&format!("{TRACEFS}/events/smc/enable"), "0") {
            eprintln!("# cannot switch the trace off: {error}");
        }
    }
}

/// The value of a field in what an event tells.
fn field<'a>(told: &'a str, name: &str) -> Option<&'a str> {
    told.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// What trace-cmd makes of them, which reads the raw records by their format.
fn trace_cmd(ctx: &Ctx) -> Outcome {
    sys::leave()?;
    rig::run("trace-cmd start -e smc")?;
    let traced = || -> Outcome<String> {
        let smc = ctx.with_kind(Kind::Smc4);
        let pair = smc.pair()?;
        echo(&pair, b"trace")?;
        sys::leave()?;
        rig::run("trace-cmd stop")?;
        rig::run("trace-cmd extract -o /tmp/smc.dat")?;
        rig::run("trace-cmd report -i /tmp/smc.dat")
    };
    let report = traced();
    rig::run("trace-cmd reset")?;
    let report = report?;
    for event in ["smc_tx_sendmsg", "smc_rx_recvmsg"] {
        let lines = || {
            report
                .lines()
                .filter(|line| line.contains(&format!("{event}:")))
        };
        check_eq!(lines().count(), 2, "lines of {event}:\n{report}");
        for host in Host::BOTH {
            let device = host.rdma_device();
            let found = lines()
                .any(|line| field(line, "len") == Some("5") && field(line, "dev") == Some(device));
            check!(found, "{event} of {device} is missing:\n{report}");
        }
    }
    Ok(())
}

fn events(ctx: &Ctx) -> Outcome {
    let smc = ctx.with_kind(Kind::Smc4);
    fresh(&smc)?;
    let tracing = Tracing::start()?;
    for (event, fields) in FIELDS {
        let format = sys::read_file(&format!("{TRACEFS}/events/smc/{event}/format"))?;
        let found: Vec<&str> = format
            .lines()
            .filter_map(|line| line.trim().strip_prefix("field:"))
            .filter_map(|line| line.split(';').next()?.split_whitespace().last())
            .map(|name| name.trim_end_matches("[]").trim_start_matches('*'))
            .filter(|name| !name.starts_with("common_"))
            .collect();
        check_eq!(found, fields, "fields of {event}");
    }
    // A connection, its data and its end; then a fallback; then the link.
    let pair = smc.pair()?;
    echo(&pair, b"trace")?;
    prove_by_queue_pairs(&smc)?;
    let (plain, address) = smc.plain_listener()?;
    let fallen = smc.unasked().connect(address)?;
    drop((pair, fallen, plain));
    let seen = |event: &str| -> Outcome<Vec<String>> {
        let lines = tracing.lines()?;
        Ok(lines
            .into_iter()
            .filter(|(name, _)| name == event)
            .map(|(_, told)| told)
            .collect())
    };
    for (event, count) in [
        ("smc_rs_lgr_begin", 2),
        ("smc_rs_link_up", 2),
        ("smc_rs_conn_made", 2),
    ] {
        let told = seen(event)?;
        check_eq!(told.len(), count, "{event}: {told:?}");
        let mut sides: Vec<_> = told.iter().map(|told| field(told, "server")).collect();
        sides.sort();
        check_eq!(sides, [Some("0"), Some("1")], "sides of {event}: {told:?}");
    }
    let fallbacks = seen("smc_switch_to_fallback")?;
    check_eq!(fallbacks.len(), 1, "fallbacks: {fallbacks:?}");
    let reason = 0x0301_0000.to_string();
    check_eq!(
        field(&fallbacks[0], "fallback_rsn"),
        Some(&reason[..]),
        "reason: {fallbacks:?}"
    );
    for event in ["smc_tx_sendmsg", "smc_rx_recvmsg"] {
        let told = seen(event)?;
        check_eq!(told.len(), 2, "{event}: {told:?}");
        let mut devices = Vec::new();
        for told in &told {
            check_eq!(field(told, "len"), Some("5"), "length: {told}");
            devices.push(field(told, "dev").unwrap_or("").to_string());
        }
        devices.sort();
        check_eq!(
            devices,
            Host::BOTH.map(|host| host.rdma_device()),
            "devices of {event}"
        );
    }
    sys::eventually("both ends are over", || {
        let told = seen("smc_rs_conn_over")?;
        Ok(told.len() == 2)
    })?;
    // A port that fails takes its link with it.
    let pair = smc.pair()?;
    let vnet = Host::A.netdev();
    rig::run(&format!("ip -n A link set {vnet} down"))?;
    let down = sys::eventually("the link is down", || {
        let told = seen("smcr_link_down")?;
        Ok(told
            .iter()
            .any(|told| field(told, "dev") == Some(Host::A.rdma_device())))
    });
    rig::run(&format!("ip -n A link set {vnet} up"))?;
    // IPv6 addresses go with the link.
    let v6 = Host::A.ipv6();
    rig::run(&format!("ip -n A addr replace {v6}/64 dev {vnet} nodad"))?;
    down.during("smcr_link_down")?;
    let told = seen("smcr_link_down")?.concat();
    check_eq!(field(&told, "state"), Some("1"), "state: {told}");
    check!(
        field(&told, "location").is_some_and(|place| place.contains("smc_rs")),
        "location: {told}"
    );
    let ended = seen("smc_rs_lgr_end")?;
    check!(!ended.is_empty(), "no group has ended");
    drop(pair);
    drop(tracing);
    super::link::works_again(&smc)?;
    // The other host has not heard of the end of its group: not to be left to rmmod.
    fresh(&smc)
}
