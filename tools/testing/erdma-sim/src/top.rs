//! `erdma-sim top`: the queues, live.

use serde_json::Value;
use std::fmt::Write as _;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// 12345678 as 12.3M.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1}G", v / 1e9),
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// One picture; rates are since the picture before.
pub fn render(now: &Value, before: Option<&Value>) -> String {
    let mut text = String::new();
    let seconds = |v: &Value| v["seconds"].as_f64().unwrap_or(0.0);
    let span = before.map_or(0.0, |b| seconds(now) - seconds(b));
    let none = Vec::new();
    for (n, device) in now["devices"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .enumerate()
    {
        let rate = |name: &str| {
            let old = before.map_or(0, |b| number(&b["devices"][n]["counters"][name]));
            if span > 0.0 {
                short(number(&device["counters"][name]).saturating_sub(old) as f64 / span)
            } else {
                "-".into()
            }
        };
        let health = match (
            device["dead"].as_bool(),
            device["port_up"].as_bool(),
            device["initialised"].as_bool(),
        ) {
            (Some(true), ..) => "dead",
            (_, Some(false), _) => "port down",
            (.., Some(false)) => "no driver",
            _ => "up",
        };
        let _ = writeln!(
            text,
            "{n} {} {} {health}  requests/s {}  bytes/s out {} in {}  completions/s {}  interrupts {}  errors {}  not ready {}  complaints {}",
            device["name"].as_str().unwrap_or("?"),
            device["protocol"].as_str().unwrap_or("?"),
            rate("requests"),
            rate("bytes_out"),
            rate("bytes_in"),
            rate("completions"),
            number(&device["interrupts"]),
            number(&device["counters"]["error_completions"]),
            number(&device["counters"]["not_ready"]),
            number(&device["counters"]["complaints"]),
        );
        let _ = writeln!(
            text,
            "  {:>6} {:<6} {:>6} {:>12} {:>12} {:>9} {:>9}  WAITS FOR",
            "QP", "STATE", "PEER", "SEND pi/ci", "RECV pi/ci", "SENT", "RECEIVED"
        );
        for qp in device["qps"].as_array().unwrap_or(&none) {
            let _ = writeln!(
                text,
                "  {:>6} {:<6} {:>6} {:>12} {:>12} {:>9} {:>9}  {}",
                number(&qp["qpn"]),
                qp["state"].as_str().unwrap_or("?"),
                number(&qp["peer"]),
                format!("{}/{}", number(&qp["sq_pi"]), number(&qp["sq_ci"])),
                format!("{}/{}", number(&qp["rq_pi"]), number(&qp["rq_ci"])),
                short(number(&qp["sent"]) as f64),
                short(number(&qp["received"]) as f64),
                qp["wait"].as_str().unwrap_or(""),
            );
        }
        let _ = writeln!(
            text,
            "  {:>6} {:>3} {:>7} {:>15} {:<9} {:>8}",
            "CQ", "EQ", "DEPTH", "pi/ci", "ARMED", "EVENTS"
        );
        for cq in device["cqs"].as_array().unwrap_or(&none) {
            let _ = writeln!(
                text,
                "  {:>6} {:>3} {:>7} {:>15} {:<9} {:>8}",
                number(&cq["cqn"]),
                number(&cq["eqn"]),
                number(&cq["depth"]),
                format!("{}/{}", number(&cq["pi"]), number(&cq["ci"])),
                cq["armed"].as_str().unwrap_or("?"),
                number(&cq["events"]),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_differences_by_time() {
        let picture = |seconds: f64, bytes: u64| {
            json!({"seconds": seconds, "devices": [{"name": "d0", "protocol": "Roce", "initialised": true, "port_up": true,
                "counters": {"bytes_out": bytes}, "qps": [{"qpn": 7, "state": "RTS", "sq_pi": 5, "sq_ci": 3}], "cqs": []}]})
        };
        let text = render(&picture(3.0, 3_000_000), Some(&picture(1.0, 1_000_000)));
        assert!(text.contains("bytes/s out 1.0M"), "{text}");
        assert!(text.contains(" 7 RTS ") && text.contains("5/3"), "{text}");
    }
}
