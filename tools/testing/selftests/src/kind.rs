//! Kinds of sockets that the tests run over, and the two hosts they connect.

use crate::rig::SoftRoce;
use rand::rngs::SmallRng;
use rand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const AF_SMC: i32 = 43;
pub const SMCPROTO_SMC: i32 = 0;
pub const SMCPROTO_SMC6: i32 = 1;
pub const IPPROTO_SMC: i32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp4,
    Tcp6,
    /// socket(AF_SMC, SOCK_STREAM, 0)
    Smc4,
    /// socket(AF_SMC, SOCK_STREAM, 1)
    Smc6,
    /// socket(AF_INET, SOCK_STREAM, IPPROTO_SMC)
    IpSmc4,
    /// socket(AF_INET6, SOCK_STREAM, IPPROTO_SMC)
    IpSmc6,
}

/// What a connection of some kind has to turn out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A plain TCP socket: nothing to check.
    Plain,
    /// It must go by RDMA; a fallback that was not asked for is a failure.
    Rdma,
    /// Both are right. SMC-Rv2 is defined for IPv4, and v1 needs RoCEv1 devices, which stock rxe is not.
    Either,
}

impl Kind {
    /// SMC more often than TCP, and IPv4 than IPv6.
    pub fn at_random(random: &mut SmallRng) -> Kind {
        match random.gen_range(0..10) {
            0..4 => Kind::Smc4,
            4..6 => Kind::IpSmc4,
            6 => Kind::Smc6,
            7 => Kind::IpSmc6,
            8 => Kind::Tcp4,
            _ => Kind::Tcp6,
        }
    }

    pub const ALL: [Kind; 6] = [
        Kind::Tcp4,
        Kind::Tcp6,
        Kind::Smc4,
        Kind::Smc6,
        Kind::IpSmc4,
        Kind::IpSmc6,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Tcp4 => "tcp4",
            Kind::Tcp6 => "tcp6",
            Kind::Smc4 => "smc4",
            Kind::Smc6 => "smc6",
            Kind::IpSmc4 => "ipsmc4",
            Kind::IpSmc6 => "ipsmc6",
        }
    }

    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn is_v6(self) -> bool {
        matches!(self, Kind::Tcp6 | Kind::Smc6 | Kind::IpSmc6)
    }

    pub fn expect(self) -> Expect {
        match self {
            Kind::Tcp4 | Kind::Tcp6 => Expect::Plain,
            Kind::Smc4 | Kind::IpSmc4 => Expect::Rdma,
            Kind::Smc6 | Kind::IpSmc6 if SoftRoce::here() == SoftRoce::V1 => Expect::Rdma,
            Kind::Smc6 | Kind::IpSmc6 => Expect::Either,
        }
    }

    /// Family and protocol for socket(2).
    pub fn arguments(self) -> (i32, i32) {
        match self {
            Kind::Tcp4 => (libc::AF_INET, 0),
            Kind::Tcp6 => (libc::AF_INET6, 0),
            Kind::Smc4 => (AF_SMC, SMCPROTO_SMC),
            Kind::Smc6 => (AF_SMC, SMCPROTO_SMC6),
            Kind::IpSmc4 => (libc::AF_INET, IPPROTO_SMC),
            Kind::IpSmc6 => (libc::AF_INET6, IPPROTO_SMC),
        }
    }

    /// The TCP kind of the same address family.
    pub fn plain(self) -> Kind {
        if self.is_v6() {
            Kind::Tcp6
        } else {
            Kind::Tcp4
        }
    }
}

/// One of the two network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    A,
    B,
}

impl Host {
    pub const BOTH: [Host; 2] = [Host::A, Host::B];

    pub fn other(self) -> Host {
        match self {
            Host::A => Host::B,
            Host::B => Host::A,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Host::A => "A",
            Host::B => "B",
        }
    }

    pub fn rdma_device(self) -> &'static str {
        match self {
            Host::A => "rxeA",
            Host::B => "rxeB",
        }
    }

    pub fn netdev(self) -> &'static str {
        match self {
            Host::A => "vA",
            Host::B => "vB",
        }
    }

    fn number(self) -> u8 {
        match self {
            Host::A => 1,
            Host::B => 2,
        }
    }

    pub fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, self.number())
    }

    pub fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, self.number().into())
    }

    pub fn address(self, kind: Kind, port: u16) -> SocketAddr {
        let ip = if kind.is_v6() {
            IpAddr::V6(self.ipv6())
        } else {
            IpAddr::V4(self.ipv4())
        };
        SocketAddr::new(ip, port)
    }
}
