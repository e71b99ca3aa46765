// SPDX-License-Identifier: GPL-2.0

//! `net.smc.adaptive`: SMC is left out where connections are too short for it ([`super::habits`]).

use super::{
    habits::{
        Advice,
        Habits,
        Place,
        Policy,
        Visit, //
    },
    namespace::Namespace,
    registry, //
};
use crate::{
    clc::plain_servers::Server,
    kapi::{
        clcsock::SockAddr,
        netns::{
            self,
            Net, //
        }, //
    },
    sysctl::Settings, //
};
use kernel::prelude::*;

/// Servers and ports that a namespace remembers.
const CAPACITY: usize = 128;

/// The memory of a namespace; empty until it is used.
pub(super) type Memory = KVec<Option<super::habits::Entry>>;

/// The server at `address`, if connections to it are looked at.
pub(crate) fn server(net: &Net, address: &SockAddr) -> Option<Place> {
    policy(net)?;
    Server::from_sockaddr(address.family(), address.bytes()).map(Place::Server)
}

/// The port of `address`, if connections that are accepted at it are looked at.
pub(crate) fn port(net: &Net, address: impl FnOnce() -> Option<SockAddr>) -> Option<Place> {
    policy(net)?;
    let address = address()?;
    let server = Server::from_sockaddr(address.family(), address.bytes())?;
    Some(Place::Port(server.port()))
}

/// Whether the next connection is to be left to TCP. Process context.
pub(crate) fn is_for_tcp(net: &Net, place: Place) -> bool {
    let advice = |habits: &mut Habits<'_>, policy: &Policy| {
        habits.advice(place, registry::now(), policy) == Advice::Tcp
    };
    with(net, advice).unwrap_or(false)
}

/// A connection is there. Process context.
pub(crate) fn begin(net: &Net, place: Place) -> Option<Visit> {
    with(net, |habits, policy| {
        habits.begin(place, registry::now(), policy)
    })
}

/// It has ended, and has carried so many bytes. Process context.
pub(crate) fn over(net: &Net, visit: Visit, bytes: u64) {
    with(net, |habits, policy| {
        habits.over(visit, bytes, registry::now(), policy);
    });
}

/// The policy of a namespace; [`None`] if it has none.
fn policy(net: &Net) -> Option<Policy> {
    let adaptive = Settings::adaptive(net)?;
    Some(Policy {
        bytes: adaptive.bytes.into(),
        lifetime_ms: adaptive.lifetime_ms,
        forget_ms: adaptive.forget_seconds.saturating_mul(1000),
    })
}

fn with<T>(net: &Net, f: impl FnOnce(&mut Habits<'_>, &Policy) -> T) -> Option<T> {
    let policy = policy(net)?;
    let lacks = |namespace: &Namespace| namespace.habits().lock().is_empty();
    if netns::with::<Namespace, _>(net, lacks)? {
        // Where there is no memory nothing is remembered.
        let mut new = KVec::from_elem(None, CAPACITY, GFP_KERNEL).unwrap_or_default();
        netns::with::<Namespace, _>(net, |namespace| {
            let mut memory = namespace.habits().lock();
            if memory.is_empty() {
                core::mem::swap(&mut *memory, &mut new);
            }
        })?;
    }
    netns::with::<Namespace, _>(net, |namespace| {
        f(&mut Habits(&mut namespace.habits().lock()), &policy)
    })
}
