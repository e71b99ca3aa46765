// SPDX-License-Identifier: GPL-2.0

//! What each network namespace remembers of servers that do not speak SMC, though they seem to.

use super::registry;
use crate::{
    clc::plain_servers::{
        PlainServers,
        Server, //
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
                servers <- new_spinlock!(PlainServers::new(), "plain_servers"),
            }),
            GFP_KERNEL,
        )
    }
}

/// Remembers that the server at `address` does not speak SMC. Process context.
pub(crate) fn remember(net: &Net, address: &SockAddr) {
    let Some(server) = Server::from_sockaddr(address.family(), address.bytes()) else {
        return;
    };
    netns::with::<Namespace, _>(net, |namespace| {
        namespace.servers.lock().remember(server, registry::now());
    });
}

/// Whether that is known of the server at `address`. Process context.
pub(crate) fn is_known(net: &Net, address: &SockAddr) -> bool {
    let Some(server) = Server::from_sockaddr(address.family(), address.bytes()) else {
        return false;
    };
    netns::with::<Namespace, _>(net, |namespace| {
        namespace.servers.lock().contains(&server, registry::now())
    })
    .unwrap_or(false)
}
