//! What is measured: names, units, and what is to be reached.

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// What is to be reached, of smc_rs.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// So many times as good as C, at least.
    TimesC(f64),
    /// No more than this part worse than TCP.
    NearTcp(f64),
}

/// A row of the table.
pub struct Figure {
    /// As the machine reports it, and as the table shows it.
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub goal: Option<Goal>,
}

impl Figure {
    /// How much worse than the baseline is too much. What depends on the order in which many tasks come to run
    /// repeats less well than a sum of instructions.
    pub fn limit(&self) -> f64 {
        match self.name {
            name if name.ends_with("p99") => 0.25,
            name if name.starts_with("closing") => 0.25,
            // By what the kernel says is available, which slabs and processors hold back differently, as what ran before left them.
            name if name.starts_with("memory of") => 0.06,
            // How much is gathered into a message, or sent together, is a matter of when the other side comes to run.
            name if name.ends_with("for a MiB in messages of 64 KiB") => 0.40,
            name if name.starts_with("messages of 64 B") => 0.10,
            // TCP's own, whose windows grow in steps.
            "fallback, messages of 64 KiB" => 0.10,
            // How far many handshakes are when the first group is there.
            name if name.contains("at once, new group") => 0.10,
            name if name.contains("in flight") || name.contains("a connection each") => 0.06,
            name if name.contains("256 clients") || name.starts_with("first byte") => 0.06,
            _ => 0.03,
        }
    }
}

const fn more(name: &'static str, unit: &'static str, goal: Option<Goal>) -> Figure {
    Figure {
        name,
        unit,
        better: Better::More,
        goal,
    }
}

const fn less(name: &'static str, unit: &'static str, goal: Option<Goal>) -> Figure {
    Figure {
        name,
        unit,
        better: Better::Less,
        goal,
    }
}

pub const FIGURES: &[Figure] = &[
    less("redis SET, 1 client, mean", "us", Some(Goal::AtMost(82.0))),
    more("redis SET, 1 client", "/s", None),
    more("redis SET, 16 clients", "/s", Some(Goal::TimesC(1.6))),
    more("redis SET, 64 clients", "/s", Some(Goal::TimesC(1.6))),
    more("redis SET, 256 clients", "/s", Some(Goal::TimesC(1.6))),
    more("redis GET, 1 client", "/s", None),
    more("redis GET, 16 clients", "/s", None),
    more("redis GET, 64 clients", "/s", None),
    less("redis GET, 64 clients, p99", "ms", Some(Goal::AtMost(4.0))),
    more("redis GET, 256 clients", "/s", None),
    more("redis SET, 16 clients, pipeline 16", "/s", None),
    more("redis GET, 16 clients, pipeline 16", "/s", None),
    more(
        "redis, a connection each, 8 clients",
        "/s",
        Some(Goal::TimesC(3.5)),
    ),
    more("iperf3", "Gbit/s", Some(Goal::TimesC(1.4))),
    more(
        "iperf3, buffers of 128 KiB",
        "Gbit/s",
        Some(Goal::TimesC(1.4)),
    ),
    more("messages of 64 KiB, buffers of 128 KiB", "MiB/s", None),
    more("nginx, 4 KiB", "/s", None),
    more("nginx, 1 MiB by sendfile", "/s", None),
    less("request 1 B, response 1 B", "us", None),
    less("request 200 B, response 1000 B", "us", None),
    less("request 16 KiB, response 16 KiB", "us", None),
    more("messages of 64 B", "MiB/s", None),
    more("messages of 64 B, TCP_NODELAY", "MiB/s", None),
    more("messages of 1 KiB", "MiB/s", None),
    more("messages of 1 KiB, TCP_NODELAY", "MiB/s", None),
    more("messages of 16 KiB", "MiB/s", None),
    more("messages of 64 KiB", "MiB/s", None),
    more("messages of 1 MiB", "MiB/s", None),
    more("window cliff", "above/below", Some(Goal::AtLeast(0.95))),
    less(
        "fallback, request 1 B, response 1 B",
        "us",
        Some(Goal::NearTcp(0.03)),
    ),
    more(
        "fallback, messages of 64 KiB",
        "MiB/s",
        Some(Goal::NearTcp(0.03)),
    ),
    more("a connection each, 1 in flight", "/s", None),
    less("a connection each, 1 in flight: failed", "%", None),
    less("a connection each, 1 in flight: fell back", "%", None),
    more(
        "a connection each, 8 in flight",
        "/s",
        Some(Goal::TimesC(3.5)),
    ),
    less(
        "a connection each, 8 in flight: failed",
        "%",
        Some(Goal::AtMost(0.0)),
    ),
    less(
        "a connection each, 8 in flight: fell back",
        "%",
        Some(Goal::AtMost(0.0)),
    ),
    more("a connection each, 64 in flight", "/s", None),
    less("a connection each, 64 in flight: failed", "%", None),
    less("a connection each, 64 in flight: fell back", "%", None),
    more("a connection each, 1 at once, new group", "/s", None),
    more("a connection each, 8 at once, new group", "/s", None),
    more("a connection each, 64 at once, new group", "/s", None),
    more(
        "known to be short, 1 in flight",
        "/s",
        Some(Goal::NearTcp(0.05)),
    ),
    more(
        "known to be short, 8 in flight",
        "/s",
        Some(Goal::NearTcp(0.05)),
    ),
    more("SMC-R among long connections after short ones", "%", None),
    more("SMC-R among long connections after those", "%", None),
    less("first byte, new group", "us", None),
    less("first byte, group is there", "us", None),
    less("round trips to first byte, new group", "of 20 ms", None),
    less(
        "round trips to first byte, group is there",
        "of 20 ms",
        Some(Goal::TimesC(1.0)),
    ),
    less(
        "memory of an idle connection, both ends",
        "KiB",
        Some(Goal::TimesC(2.0)),
    ),
    less(
        "memory of an idle connection, buffers of 64 KiB",
        "KiB",
        Some(Goal::TimesC(2.0)),
    ),
    less("closing 1,000 connections and unloading", "ms", None),
    less("RDMA WRITE for a request and its response", "", None),
    less("SEND for a request and its response", "", None),
    less("ACK for a request and its response", "", None),
    less("packets for a request and its response", "", None),
    less("RDMA WRITE for a MiB in messages of 64 KiB", "", None),
    less("SEND for a MiB in messages of 64 KiB", "", None),
    less("ACK for a MiB in messages of 64 KiB", "", None),
    less("packets for a MiB in messages of 64 KiB", "", None),
    less("packets of TCP for a connection", "", None),
    less("packets by RDMA for a connection", "", None),
];

/// A figure by its name.
pub fn find(name: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name)
}
