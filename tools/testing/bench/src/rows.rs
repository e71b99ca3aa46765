//! What is measured. Each function gives the instructions of one call, as the mean of a few.

use crate::clock::count;
use crate::pair::{socket, Listener, Pair, Way};
use smc_selftest::kind::Kind;
use smc_selftest::{check_eq, Context, Outcome};
use std::time::Duration;

/// Calls that one sample is the mean of.
const CALLS: u64 = 16;
const LARGE: usize = 16384;
const ADAPTIVE: &str = "/proc/sys/net/smc/adaptive";

/// A system call on a connection.
pub struct Row {
    pub name: &'static str,
    pub sample: fn(&Pair) -> Outcome<f64>,
}

pub const ROWS: [Row; 8] = [
    Row {
        name: "send, 1 byte",
        sample: |pair| send(pair, 1),
    },
    Row {
        name: "send, 16 KiB",
        sample: |pair| send(pair, LARGE),
    },
    Row {
        name: "receive, 1 byte",
        sample: |pair| receive(pair, 1),
    },
    Row {
        name: "receive, 16 KiB",
        sample: |pair| receive(pair, LARGE),
    },
    Row {
        name: "epoll round trip",
        sample: epoll_round_trip,
    },
    Row {
        name: "send and receive, blocking",
        sample: blocking_round_trip,
    },
    Row {
        name: "poll",
        sample: poll,
    },
    Row {
        name: "getsockopt",
        sample: getsockopt,
    },
];

/// The mean of `CALLS` calls; what is between them does not count.
fn mean(mut call: impl FnMut() -> Outcome<u64>) -> Outcome<f64> {
    let mut all = 0;
    for _ in 0..CALLS {
        all += call()?;
    }
    Ok(all as f64 / CALLS as f64)
}

fn send(pair: &Pair, size: usize) -> Outcome<f64> {
    let mut room = vec![7; size];
    mean(|| {
        let (sent, took) = count(|| pair.near.send(&room, 0));
        check_eq!(sent?, size, "bytes sent");
        pair.far.recv_all(&mut room)?;
        Ok(took)
    })
}

fn receive(pair: &Pair, size: usize) -> Outcome<f64> {
    let mut room = vec![7; size];
    let result = mean(|| {
        pair.far.send_all(&room)?;
        let (got, took) = count(|| pair.near.recv(&mut room, 0));
        check_eq!(got?, size, "bytes received");
        Ok(took)
    });
    pair.forget_events()?;
    result
}

/// A byte that comes back: sent, waited for by the set, received. The other end sleeps in `recv`.
fn epoll_round_trip(pair: &Pair) -> Outcome<f64> {
    round_trip(pair, || {
        let events = pair.epoll.wait(Duration::from_secs(10))?;
        check_eq!(events, vec![(1, libc::EPOLLIN)], "events");
        Ok(())
    })
}

/// The same without the set.
fn blocking_round_trip(pair: &Pair) -> Outcome<f64> {
    let result = round_trip(pair, || Ok(()));
    pair.forget_events()?;
    result
}

fn round_trip(pair: &Pair, wait: impl Fn() -> Outcome) -> Outcome<f64> {
    // A round before those that count, in which the other end goes to sleep.
    let rounds = CALLS + 1;
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Outcome {
            let mut byte = [0];
            for _ in 0..rounds {
                pair.far.recv_all(&mut byte)?;
                pair.far.send_all(&byte)?;
            }
            Ok(())
        });
        let round = || -> Outcome {
            pair.near.send_all(b"x")?;
            wait()?;
            pair.near.recv_all(&mut [0])?;
            Ok(())
        };
        round()?;
        let result = mean(|| {
            let (done, took) = count(round);
            done.map(|()| took)
        });
        echo.join().expect("the echo does not panic")?;
        result
    })
}

fn poll(pair: &Pair) -> Outcome<f64> {
    mean(|| {
        let (events, took) = count(|| pair.near.poll(libc::POLLIN | libc::POLLOUT, Duration::ZERO));
        check_eq!(events?, libc::POLLOUT, "events");
        Ok(took)
    })
}

fn getsockopt(pair: &Pair) -> Outcome<f64> {
    mean(|| {
        let (value, took) = count(|| pair.near.get(libc::IPPROTO_TCP, libc::TCP_NODELAY));
        check_eq!(value?, 1, "TCP_NODELAY");
        Ok(took)
    })
}

/// `socket` and `close`.
pub fn unused_socket(kind: Kind) -> Outcome<f64> {
    mean(|| {
        let (made, took) = count(|| socket(kind).map(drop));
        made?;
        Ok(took)
    })
}

/// Connections after which a place is known for short ones (`net.smc.adaptive`).
const KNOWN_AFTER: usize = 16;

/// The same at a server that is known for short connections.
pub fn short_connection(way: Way) -> Outcome<f64> {
    std::fs::write(ADAPTIVE, "1").during(ADAPTIVE)?;
    let listener = Listener::new(way)?;
    for _ in 0..KNOWN_AFTER {
        drop(listener.connect()?);
    }
    let took = connections(&listener);
    std::fs::write(ADAPTIVE, "0").during(ADAPTIVE)?;
    took
}

/// `socket`, `connect`, `accept` and both `close`.
pub fn connection(way: Way) -> Outcome<f64> {
    connections(&Listener::new(way)?)
}

fn connections(listener: &Listener) -> Outcome<f64> {
    mean(|| {
        let (made, took) = count(|| listener.connect().map(drop));
        made?;
        Ok(took)
    })
}
