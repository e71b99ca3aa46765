// SPDX-License-Identifier: GPL-2.0

//! What each network namespace remembers of servers that do not speak SMC, though they seem to.

use super::{
    registry,
    time::Millis, //
};
use crate::{
    clc::plain_servers::{
        PlainServers,
        Server,
        Sign, //
    },
    kapi::{
        clcsock::SockAddr,
        netns::{
            self,
            Net,
            Pernet,
            PernetData,
            PernetKey, //
        }, //
    }, //
};
use kernel::{
    error::Result,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Keeps the memory of every namespace; without it nothing is remembered.
pub(crate) struct Memory {
    _pernet: Pernet<Namespace>,
}

/// Begins to remember. May sleep.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn start() -> Result<Memory> {
    Ok(Memory {
        _pernet: Pernet::register()?,
    })
}

#[pin_data]
struct Namespace {
    #[pin]
    servers: SpinLock<PlainServers>,
}

static KEY: PernetKey<Namespace> = PernetKey::new();

impl PernetData for Namespace {
    fn key() -> &'static PernetKey<Self> {
        &KEY
    }

    fn new(_net: &Net) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                servers <- new_spinlock!(PlainServers::new(), "plain_servers::servers"),
            }),
            GFP_KERNEL,
        )
    }
}

/// Remembers what the server at `address` did instead of answering the Proposal of a connection that was
/// `begun` then. Process context.
pub(crate) fn remember(net: &Net, address: &SockAddr, sign: Sign, begun: Millis) {
    let _ = with(net, address, |servers, server| {
        servers.remember(server, sign, begun, registry::now());
    });
}

/// Whether the server at `address` is known not to speak SMC. Process context.
pub(crate) fn is_known(net: &Net, address: &SockAddr) -> bool {
    let known = |servers: &mut PlainServers, server| servers.contains(&server, registry::now());
    with(net, address, known).unwrap_or(false)
}

/// The server at `address` has spoken SMC. Process context.
pub(crate) fn clear(net: &Net, address: &SockAddr) {
    let _ = with(net, address, |servers, server| servers.clear(&server));
}

fn with<T>(
    net: &Net,
    address: &SockAddr,
    f: impl FnOnce(&mut PlainServers, Server) -> T,
) -> Option<T> {
    let server = Server::from_sockaddr(address.family(), address.bytes())?;
    netns::with::<Namespace, _>(net, |namespace| f(&mut namespace.servers.lock(), server))
}
