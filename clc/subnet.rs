// SPDX-License-Identifier: GPL-2.0

//! Whether two hosts are on the same LAN, as version 1 requires.

#![forbid(unsafe_code)]

use crate::clc::wire::{
    Ipv4Subnet,
    Ipv6Prefix,
    Subnets, //
};

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Address {
    /// The address.
    pub addr: [u8; 4],
    /// Length of its subnet's prefix, in bits.
    pub prefix_len: u8,
}

/// Where the server's interface for one connection is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalNetworks<'a> {
    /// Addresses of the interface, for a connection over IPv4.
    V4(&'a [Ipv4Address]),
    /// Addresses of the interface, for a connection over IPv6.
    V6(&'a [[u8; 16]]),
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
                && addresses.iter().any(|&ours| {
                    Ipv6Prefix::of(ours, prefix.prefix_len)
                        == Ipv6Prefix::of(prefix.addr, prefix.prefix_len)
                })
        }),
    }
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
