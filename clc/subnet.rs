// SPDX-License-Identifier: GPL-2.0

//! Whether two hosts are on the same LAN, as version 1 requires.

#![forbid(unsafe_code)]

use crate::clc::wire::{
    Ipv4Subnet,
    Ipv6Prefix,
    Subnets,
    MAX_IPV6_PREFIXES, //
};

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Address {
    /// The address.
    pub addr: [u8; 4],
    /// Length of its subnet's prefix, in bits.
    pub prefix_len: u8,
}

/// An IPv6 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Address {
    /// The address.
    pub addr: [u8; 16],
    /// Length of its network's prefix, in bits.
    pub prefix_len: u8,
}

impl Ipv6Address {
    /// Whether the address is only valid on its link (RFC 4291, section 2.5.6).
    ///
    /// Such a prefix is the same everywhere, so that it says nothing about which LAN it is.
    const fn is_link_local(&self) -> bool {
        let [first, second, ..] = self.addr;
        first == 0xfe && second & 0xc0 == 0x80
    }
}

/// Where the server's interface for one connection is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalNetworks<'a> {
    /// Addresses of the interface, for a connection over IPv4.
    V4(&'a [Ipv4Address]),
    /// Addresses of the interface, for a connection over IPv6.
    V6(&'a [Ipv6Address]),
}

/// Whether client and server are on the same LAN.
///
/// RFC 7609, section 3.5.1.2: IPv4 by equal subnet numbers, IPv6 by being attached to at least one
/// of the client's prefixes. A prefix of length zero names no network and matches nothing.
pub fn on_same_lan(client: &Subnets<'_>, server: LocalNetworks<'_>) -> bool {
    match server {
        LocalNetworks::V4(addresses) => {
            let theirs = Ipv4Subnet::of(Ipv4Address {
                addr: client.ipv4.subnet,
                prefix_len: client.ipv4.prefix_len,
            });
            (1..=32).contains(&theirs.prefix_len)
                && addresses.iter().any(|&ours| Ipv4Subnet::of(ours) == theirs)
        }
        LocalNetworks::V6(addresses) => client.ipv6.iter().any(|prefix| {
            (1..=128).contains(&prefix.prefix_len)
                && addresses
                    .iter()
                    .filter(|ours| !ours.is_link_local())
                    .any(|ours| {
                        Ipv6Prefix::of(ours.addr, prefix.prefix_len)
                            == Ipv6Prefix::of(prefix.addr, prefix.prefix_len)
                    })
        }),
    }
}

/// What a client whose connection has the address `own` tells of its interface with `addresses`:
/// the subnet that the address is in, [`None`] if it is in none of them.
pub fn offered_subnet(own: [u8; 4], addresses: &[Ipv4Address]) -> Option<Ipv4Subnet> {
    let within = |network: &Ipv4Address| {
        let addr = own;
        let prefix_len = network.prefix_len;
        Ipv4Subnet::of(Ipv4Address { addr, prefix_len }) == Ipv4Subnet::of(*network)
    };
    // The smallest of them: subnets of one interface may lie in each other.
    addresses
        .iter()
        .filter(|network| (1..=32).contains(&network.prefix_len) && within(network))
        .max_by_key(|network| network.prefix_len)
        .map(|network| Ipv4Subnet::of(*network))
}

/// What a client tells of its interface with `addresses` for a connection over IPv6: each prefix
/// once, as many as go into a Proposal, written to `out`.
pub fn offered_prefixes<'a>(
    addresses: &[Ipv6Address],
    out: &'a mut [Ipv6Prefix; MAX_IPV6_PREFIXES],
) -> &'a [Ipv6Prefix] {
    let mut count = 0usize;
    for address in addresses {
        let prefix = Ipv6Prefix::of(address.addr, address.prefix_len);
        let useful = (1..=128).contains(&prefix.prefix_len) && !address.is_link_local();
        if !useful || out.iter().take(count).any(|other| *other == prefix) {
            continue;
        }
        let Some(place) = out.get_mut(count) else {
            break;
        };
        *place = prefix;
        count = count.saturating_add(1);
    }
    out.get(..count).unwrap_or(&[])
}

impl Ipv4Subnet {
    /// The subnet of an interface address.
    pub fn of(address: Ipv4Address) -> Self {
        let mask = !u32::MAX
            .checked_shr(u32::from(address.prefix_len))
            .unwrap_or(0);
        Self {
            subnet: (u32::from_be_bytes(address.addr) & mask).to_be_bytes(),
            prefix_len: address.prefix_len,
        }
    }
}

impl Ipv6Prefix {
    /// The prefix of an interface address.
    pub fn of(addr: [u8; 16], prefix_len: u8) -> Self {
        let mask = !u128::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        Self {
            addr: (u128::from_be_bytes(addr) & mask).to_be_bytes(),
            prefix_len,
        }
    }
}
