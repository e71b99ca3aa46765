// SPDX-License-Identifier: GPL-2.0

//! The IP addresses of network devices.
//!
//! # What C guarantees
//!
//! A device's addresses are lists that change under the RTNL mutex and are read under RCU: an entry
//! that is taken out is freed after a grace period, and keeps its link to the next one until then.
//! What is read here of an entry is set before the entry is in the list; a prefix length may change
//! later, in one piece.

use core::ptr;
use kernel::{
    container_of,
    sync::rcu, //
};

use super::netns::Net;
use crate::bindings;

/// An IPv4 address of a network device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4Addr {
    /// An address in the network it is attached to: its own, or that of the other end of a
    /// point-to-point connection.
    pub(crate) network: [u8; 4],
    /// Length of the network's prefix, in bits.
    pub(crate) prefix_len: u8,
}

/// An IPv6 address of a network device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv6Addr {
    /// The address.
    pub(crate) addr: [u8; 16],
    /// Length of its network's prefix, in bits.
    pub(crate) prefix_len: u8,
}

/// The index of the device that the VLAN device `ifindex` of `net` is on, and the number of the VLAN; of any other
/// device its own index.
pub(crate) fn base_device(net: &Net, ifindex: i32) -> (i32, Option<u16>) {
    let mut vlan = 0;
    // SAFETY: The namespace is alive; `vlan` is live and of the type that the helper writes.
    match unsafe { bindings::vlan_base(net.as_ptr(), ifindex, &mut vlan) } {
        0 => (ifindex, None),
        base => (base, Some(vlan)),
    }
}

/// The name of the device `ifindex` of `net`, ended by a zero. While it is being renamed it may be neither the
/// old one nor the new one.
pub(crate) fn device_name(net: &Net, ifindex: i32) -> Option<[u8; 16]> {
    let _rcu = rcu::read_lock();
    // SAFETY: The namespace is alive, and the RCU read lock is held.
    let dev = unsafe { bindings::dev_get_by_index_rcu(net.as_ptr(), ifindex) };
    if dev.is_null() {
        return None;
    }
    // SAFETY: The device is valid under the RCU read lock; bytes of its name may change at any time.
    let mut name = unsafe { ptr::read_volatile((&raw const (*dev).name).cast::<[u8; 16]>()) };
    if let Some(last) = name.last_mut() {
        *last = 0;
    }
    Some(name)
}

/// Reads a pointer that RCU protects.
///
/// # Safety
///
/// `place` is valid for reads, and the caller holds the RCU read lock for as long as it uses what
/// the pointer points to.
unsafe fn dereference<T>(place: *const *mut T) -> *mut T {
    // SAFETY: The caller vouches for `place`. Volatile, so that the pointer is read once; what is
    // read through it depends on it, which is all the order that readers of RCU need.
    unsafe { ptr::read_volatile(place) }
}

/// Calls `f` with each IPv4 address of the device `ifindex` of `net`, in the device's order, until
/// it returns false. Under the RCU read lock: `f` must not sleep.
pub(crate) fn for_each_ipv4(net: &Net, ifindex: i32, mut f: impl FnMut(Ipv4Addr) -> bool) {
    let _rcu = rcu::read_lock();
    // SAFETY: The namespace is alive, and the RCU read lock is held.
    let dev = unsafe { bindings::dev_get_by_index_rcu(net.as_ptr(), ifindex) };
    if dev.is_null() {
        return;
    }
    // SAFETY: The device is valid under the RCU read lock, which is held to the end.
    let in_dev = unsafe { dereference(&raw const (*dev).ip_ptr) };
    if in_dev.is_null() {
        return;
    }
    // SAFETY: `in_dev` was read under the RCU read lock, which is still held.
    let mut ifa = unsafe { dereference(&raw const (*in_dev).ifa_list) };
    while !ifa.is_null() {
        // SAFETY: An entry read under the RCU read lock is valid while that is held; these are
        // aligned integers, and the addresses are in network byte order.
        let address = unsafe {
            Ipv4Addr {
                network: ptr::read_volatile(&raw const (*ifa).ifa_address).to_ne_bytes(),
                prefix_len: ptr::read_volatile(&raw const (*ifa).ifa_prefixlen),
            }
        };
        if !f(address) {
            return;
        }
        // SAFETY: As above.
        ifa = unsafe { dereference(&raw const (*ifa).ifa_next) };
    }
}

/// Calls `f` with each IPv6 address of the device `ifindex` of `net`, in the device's order, until
/// it returns false. Under the RCU read lock: `f` must not sleep.
pub(crate) fn for_each_ipv6(net: &Net, ifindex: i32, mut f: impl FnMut(Ipv6Addr) -> bool) {
    let _rcu = rcu::read_lock();
    // SAFETY: The namespace is alive, and the RCU read lock is held.
    let dev = unsafe { bindings::dev_get_by_index_rcu(net.as_ptr(), ifindex) };
    if dev.is_null() {
        return;
    }
    // SAFETY: The device is valid under the RCU read lock, which is held to the end.
    let in6_dev = unsafe { dereference(&raw const (*dev).ip6_ptr) };
    if in6_dev.is_null() {
        return;
    }
    // SAFETY: `in6_dev` was read under the RCU read lock, which is still held.
    let head = unsafe { &raw mut (*in6_dev).addr_list };
    // SAFETY: As above; the head of a list is always initialised.
    let mut at = unsafe { dereference(&raw const (*head).next) };
    while at != head {
        // SAFETY: What is in this list and is not its head is the `if_list` of an address.
        let ifp = unsafe { container_of!(at, bindings::inet6_ifaddr, if_list) };
        // SAFETY: An entry read under the RCU read lock is valid while that is held. The address
        // does not change; the length is an aligned integer. All bytes of the union are set.
        let (addr, prefix_len) = unsafe {
            (
                (*ifp).addr.in6_u.u6_addr8,
                ptr::read_volatile(&raw const (*ifp).prefix_len),
            )
        };
        // It is at most 128.
        let prefix_len = u8::try_from(prefix_len).unwrap_or(128);
        if !f(Ipv6Addr { addr, prefix_len }) {
            return;
        }
        // SAFETY: As above; an entry that is taken out keeps its link.
        at = unsafe { dereference(&raw const (*at).next) };
    }
}
