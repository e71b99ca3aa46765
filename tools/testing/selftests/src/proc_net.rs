//! What `/proc/net` tells of a namespace: its sockets (`tcp`, `tcp6`, `udp`), and counters of protocols (`snmp`).

use crate::kind::Host;
use crate::sys;
use crate::{Fail, Outcome};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// States of TCP.
pub const ESTABLISHED: u8 = 1;
pub const SYN_RECV: u8 = 3;
pub const FIN_WAIT1: u8 = 4;
pub const TIME_WAIT: u8 = 6;
pub const LISTEN: u8 = 10;

#[derive(Debug)]
pub struct Socket {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: u8,
    /// Of TCP: sequence numbers that were not acknowledged, or not sent: one of them would be that of the FIN.
    pub unacknowledged: u32,
}

impl Socket {
    pub fn listens_on(&self, port: u16) -> bool {
        self.state == LISTEN && self.local.port() == port
    }
}

/// The sockets of a protocol in the calling thread's namespace.
pub fn sockets(protocol: &str) -> io::Result<Vec<Socket>> {
    let path = format!("/proc/thread-self/net/{protocol}");
    let text = sys::read_file(&path)?;
    let read = |line| socket(line).ok_or_else(|| io::Error::other(format!("{path}: {line}")));
    text.lines().skip(1).map(read).collect()
}

/// Those of a host. The calling thread is in the machine's first namespace afterwards.
pub fn sockets_of(host: Host, protocol: &str) -> io::Result<Vec<Socket>> {
    sys::enter(host)?;
    let sockets = sockets(protocol);
    sys::leave()?;
    sockets
}

/// A counter out of what `/proc/net/snmp` says: a line of names for each protocol, and then one of numbers.
pub fn counter(snmp: &str, protocol: &str, name: &str) -> Outcome<u64> {
    let mut lines = snmp.lines().filter_map(|line| {
        let (of, words) = line.split_once(": ")?;
        (of == protocol).then(|| words.split(' '))
    });
    let names = lines.next().into_iter().flatten();
    let numbers = lines.next().into_iter().flatten();
    names
        .zip(numbers)
        .find(|(of, _)| *of == name)
        .and_then(|(_, number)| number.parse().ok())
        .ok_or_else(|| Fail(format!("no number of {protocol} {name} in /proc/net/snmp")))
}

fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let mut next = || words.next();
    Some(Socket {
        local: address(next()?)?,
        remote: address(next()?)?,
        state: u8::from_str_radix(next()?, 16).ok()?,
        unacknowledged: u32::from_str_radix(next()?.split(':').next()?, 16).ok()?,
    })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    // Each word in the machine's order.
    let word = |at| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let words: Option<Vec<[u8; 4]>> = (0..ip.len())
        .step_by(8)
        .map(|at| word(at).map(u32::to_ne_bytes))
        .collect();
    let ip = match words?.as_slice() {
        [v4] => IpAddr::from(*v4),
        v6 => IpAddr::from(<[u8; 16]>::try_from(v6.as_flattened()).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}
