//! Connections to measure: over loopback, one end plain TCP, the other one what is asked for.

use smc_selftest::kind::Kind;
use smc_selftest::sys::{Epoll, Sock};
use smc_selftest::{check, mode, Context, Outcome};
use std::net::{Ipv4Addr, SocketAddr};

/// What the measured end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Plain TCP, client and server.
    Tcp,
    /// An SMC client that fell back, since its server is plain TCP.
    Client,
    /// A connection that an SMC listener has accepted from a plain TCP client.
    Server,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Tcp, Way::Client, Way::Server];

    fn kinds(self) -> (Kind, Kind) {
        match self {
            Way::Tcp => (Kind::Tcp4, Kind::Tcp4),
            Way::Client => (Kind::Smc4, Kind::Tcp4),
            Way::Server => (Kind::Tcp4, Kind::Smc4),
        }
    }
}

pub fn socket(kind: Kind) -> std::io::Result<Sock> {
    let (family, protocol) = kind.arguments();
    Sock::raw(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol)
}

/// A listener of one of the two kinds, and its address.
pub struct Listener {
    pub sock: Sock,
    pub address: SocketAddr,
    client: Kind,
}

impl Listener {
    pub fn new(way: Way) -> Outcome<Listener> {
        let (client, server) = way.kinds();
        let sock = socket(server).during("a listener")?;
        sock.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        sock.listen(16)?;
        let address = sock.local()?;
        Ok(Listener {
            sock,
            address,
            client,
        })
    }

    /// A connection: the client's end, and the server's.
    pub fn connect(&self) -> std::io::Result<(Sock, Sock)> {
        let client = socket(self.client)?;
        client.connect(self.address)?;
        Ok((client, self.sock.accept()?))
    }
}

/// A connection to measure.
pub struct Pair {
    /// The end that is measured.
    pub near: Sock,
    pub far: Sock,
    /// An edge-triggered set that has known the measured end since before it was connected, or at a
    /// server since it was accepted.
    pub epoll: Epoll,
}

const EVENTS: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;

impl Pair {
    pub fn new(way: Way) -> Outcome<Pair> {
        let listener = Listener::new(way)?;
        let epoll = Epoll::new()?;
        let client = socket(listener.client)?;
        if way != Way::Server {
            epoll.add(&client, EVENTS, 1)?;
        }
        client.connect(listener.address)?;
        let server = listener.sock.accept()?;
        let (near, far) = match way {
            Way::Server => (server, client),
            Way::Tcp | Way::Client => (client, server),
        };
        if way == Way::Server {
            epoll.add(&near, EVENTS, 1)?;
        }
        for end in [&near, &far] {
            end.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32)?;
        }
        if way != Way::Tcp {
            // An error if it did not.
            let reason = mode::fallback_reason(&near).during("the mode of a connection")?;
            check!(reason != 0, "{way:?} did not fall back");
        }
        let pair = Pair { near, far, epoll };
        pair.warm_up()?;
        Ok(pair)
    }

    /// Past the beginning, when windows grow and each segment is acknowledged at once.
    fn warm_up(&self) -> Outcome {
        let mut room = vec![0; 16384];
        for _ in 0..48 {
            for (from, to) in [(&self.near, &self.far), (&self.far, &self.near)] {
                from.send_all(&room)?;
                to.recv_all(&mut room)?;
            }
        }
        self.forget_events()
    }

    pub fn forget_events(&self) -> Outcome {
        while !self.epoll.wait(std::time::Duration::ZERO)?.is_empty() {}
        Ok(())
    }
}
