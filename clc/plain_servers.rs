// SPDX-License-Identifier: GPL-2.0

//! Servers that seem to speak SMC and do not.
//!
//! Some servers and middleboxes send back TCP options that they do not know. To a client their SYN-ACK
//! says "I speak SMC", and only the missing answer to its Proposal shows that nobody does. Who was
//! found out is remembered for a while, so that the next connections need not find it out again.
//! A connection that ends instead may be that of a server which ends, or begins anew, and does speak SMC: only when
//! one that was begun later ends in the same way it is taken for such a server.
//!
//! The memory is bounded, and what is in it ends by itself: a server may learn to speak SMC.

#![forbid(unsafe_code)]

use crate::smc_core::time::Millis;

/// How long a server is remembered.
pub const REMEMBERED_MS: u32 = 600_000;

/// How many servers are remembered; when there are more, the oldest is forgotten.
const CAPACITY: usize = 32;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Address and port of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// In the form of IPv6: the same server, whichever family the client's socket has.
    addr: [u8; 16],
    /// The interface that a link-local address is of.
    scope: [u8; 4],
    port: [u8; 2],
}

impl Server {
    /// The server that a `sockaddr_in` or `sockaddr_in6` names; [`None`] for another family, or if
    /// there is too little of it.
    pub fn from_sockaddr(family: u16, sockaddr: &[u8]) -> Option<Self> {
        let port = *sockaddr.get(2..)?.first_chunk()?;
        match family {
            AF_INET => {
                let [a, b, c, d] = *sockaddr.get(4..)?.first_chunk()?;
                Some(Self {
                    addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
                    scope: [0; 4],
                    port,
                })
            }
            // Family, port, flow label, address, scope.
            AF_INET6 => Some(Self {
                addr: *sockaddr.get(8..)?.first_chunk()?,
                scope: *sockaddr.get(24..)?.first_chunk()?,
                port,
            }),
            _ => None,
        }
    }

    /// The port, in network byte order.
    pub fn port(&self) -> [u8; 2] {
        self.port
    }

    /// A number that differs for most servers.
    pub fn hash(&self) -> u32 {
        let bytes = self.addr.iter().chain(&self.scope).chain(&self.port);
        // FNV-1a, as far as 32 bits go.
        bytes.fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
    }
}

/// What a server did that did not answer a Proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It kept the connection, and said nothing, or something else.
    Stranger,
    /// The connection ended.
    Ended,
}

#[derive(Clone, Copy)]
struct Entry {
    server: Server,
    until: Millis,
    noted: Millis,
    /// Else it is only suspected.
    sure: bool,
}

/// The servers that are remembered.
pub struct PlainServers([Option<Entry>; CAPACITY]);

impl PlainServers {
    /// None.
    pub const fn new() -> Self {
        Self([None; CAPACITY])
    }

    /// Remembers what a server did, from `now` on, to a connection that was `begun` then.
    pub fn remember(&mut self, server: Server, sign: Sign, begun: Millis, now: Millis) {
        let known = self.find(&server, now);
        // Of connections that were there at the same time, the end is one event.
        let again = |entry: &Entry| entry.sure || entry.noted.after(1).reached(begun);
        let entry = Entry {
            server,
            until: now.after(REMEMBERED_MS),
            noted: known.map_or(now, |entry| entry.noted),
            sure: sign == Sign::Stranger || known.is_some_and(again),
        };
        // Its own place, or a free one, or that of the one that is forgotten first anyway.
        let place = self.0.iter_mut().min_by_key(|place| match place {
            Some(entry) if entry.server == server => (0, Millis(0)),
            Some(entry) if !entry.until.reached(now) => (2, entry.until),
            _ => (1, Millis(0)),
        });
        if let Some(place) = place {
            *place = Some(entry);
        }
    }

    /// Whether a server is known not to speak SMC.
    pub fn contains(&self, server: &Server, now: Millis) -> bool {
        self.find(server, now).is_some_and(|entry| entry.sure)
    }

    /// A server has spoken SMC.
    pub fn clear(&mut self, server: &Server) {
        for place in &mut self.0 {
            if place.is_some_and(|entry| entry.server == *server) {
                *place = None;
            }
        }
    }

    fn find(&self, server: &Server, now: Millis) -> Option<&Entry> {
        let mut entries = self.0.iter().flatten();
        entries.find(|entry| entry.server == *server && !entry.until.reached(now))
    }
}

impl Default for PlainServers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_plain_servers))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const START: Millis = Millis(1_000);

    fn server(number: u8) -> Server {
        let sockaddr = [2, 0, 0, 80, 10, 9, 0, number];
        Server::from_sockaddr(AF_INET, &sockaddr).unwrap()
    }

    #[test]
    fn one_server_in_both_families() {
        let mut v6 = [0; 28];
        v6[2..4].copy_from_slice(&[0, 80]);
        v6[18..24].copy_from_slice(&[0xff, 0xff, 10, 9, 0, 7]);
        assert_eq!(Server::from_sockaddr(AF_INET6, &v6), Some(server(7)));
        v6[24] = 1;
        assert_ne!(Server::from_sockaddr(AF_INET6, &v6), Some(server(7)));
        v6[24] = 0;
        v6[3] = 81;
        assert_ne!(Server::from_sockaddr(AF_INET6, &v6), Some(server(7)));
        assert_eq!(Server::from_sockaddr(AF_INET6, &v6[..27]), None);
        assert_eq!(Server::from_sockaddr(AF_INET, &v6[..7]), None);
        assert_eq!(Server::from_sockaddr(1, &v6), None);
    }

    #[test]
    fn is_forgotten_in_time() {
        let mut servers = PlainServers::new();
        assert!(!servers.contains(&server(1), START));
        servers.remember(server(1), Sign::Stranger, START, START);
        assert!(servers.contains(&server(1), START));
        assert!(!servers.contains(&server(2), START));
        let last = START.after(REMEMBERED_MS - 1);
        assert!(servers.contains(&server(1), last));
        assert!(!servers.contains(&server(1), START.after(REMEMBERED_MS)));
        // Found out again: from then on.
        servers.remember(server(1), Sign::Stranger, last, last);
        assert!(servers.contains(&server(1), last.after(REMEMBERED_MS - 1)));
        assert_eq!(servers.0.iter().flatten().count(), 1);
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut servers = PlainServers::new();
        let all = CAPACITY as u8;
        for number in 0..all {
            servers.remember(
                server(number),
                Sign::Stranger,
                START.after(number.into()),
                START.after(number.into()),
            );
        }
        let now = START.after(1_000);
        // Renewed, so that it is not the oldest any more.
        servers.remember(server(0), Sign::Stranger, now, now);
        servers.remember(server(all), Sign::Stranger, now, now);
        assert!(servers.contains(&server(0), now));
        assert!(!servers.contains(&server(1), now));
        assert!((2..=all).all(|number| servers.contains(&server(number), now)));
        // What has ended makes room before what has not: 2 and 3 have.
        let later = START.after(REMEMBERED_MS).after(3);
        servers.remember(server(100), Sign::Stranger, later, later);
        servers.remember(server(101), Sign::Stranger, later, later);
        assert!((4..=all).all(|number| servers.contains(&server(number), later)));
        assert!(servers.contains(&server(100), later));
        assert!(servers.contains(&server(101), later));
    }

    #[test]
    fn an_end_may_be_anything_but_two() {
        let mut servers = PlainServers::new();
        servers.remember(server(1), Sign::Ended, START, START);
        assert!(!servers.contains(&server(1), START));
        servers.clear(&server(1));
        servers.remember(server(1), Sign::Ended, START, START);
        assert!(!servers.contains(&server(1), START));
        // Another one.
        servers.remember(server(2), Sign::Ended, START, START);
        assert!(!servers.contains(&server(2), START));
        // Long ago.
        servers.remember(
            server(2),
            Sign::Ended,
            START.after(REMEMBERED_MS),
            START.after(REMEMBERED_MS),
        );
        assert!(!servers.contains(&server(2), START.after(REMEMBERED_MS)));
        servers.remember(
            server(1),
            Sign::Ended,
            START.after(REMEMBERED_MS - 1),
            START.after(REMEMBERED_MS - 1),
        );
        assert!(servers.contains(&server(1), START.after(REMEMBERED_MS)));
        servers.remember(server(3), Sign::Stranger, START, START);
        servers.remember(server(3), Sign::Ended, START, START);
        assert!(servers.contains(&server(3), START));
        servers.clear(&server(3));
        assert!(!servers.contains(&server(3), START));
        // Two at once are one event.
        let later = START.after(5);
        servers.remember(server(4), Sign::Ended, START, later);
        servers.remember(server(4), Sign::Ended, later, later.after(5));
        assert!(!servers.contains(&server(4), later.after(5)));
        servers.remember(server(4), Sign::Ended, later.after(1), later.after(6));
        assert!(servers.contains(&server(4), later.after(6)));
    }
}
