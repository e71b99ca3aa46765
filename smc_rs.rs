// SPDX-License-Identifier: GPL-2.0

//! SMC-R: Shared Memory Communications over RDMA (RFC 7609).
#![deny(unsafe_code)]

use kernel::prelude::*;

#[allow(unsafe_code, reason = "raw C bindings")]
mod bindings;
pub mod clc;
pub mod diag;
mod ib;
#[allow(unsafe_code, reason = "safe abstractions of C interfaces")]
mod kapi;
mod queues;
pub mod rx_tx;
#[path = "core/mod.rs"]
pub mod smc_core;
mod sysctl;

module! {
    type: SmcModule,
    name: "smc_rs",
    authors: ["The smc_rs authors"],
    description: "Shared Memory Communications over RDMA (SMC-R, RFC 7609)",
    license: "GPL",
    alias: [
        "smc",
        "smc_diag",
        "net-pf-43",
        "net-pf-2-proto-256-type-1",
        "net-pf-10-proto-256-type-1",
        "net-pf-16-proto-4-type-43",
        "net-pf-16-proto-16-family-SMC_GEN_NETLINK",
        "net-pf-16-proto-16-family-SMC_PNETID",
    ],
    params: {
        rsvd_ports_base: u16 {
            default: 33800,
            description: "First of the 16 TCP ports reserved where an iWARP device is reachable",
        },
        debugfs: u8 {
            default: 0,
            description: "1: show the state of link groups in debugfs, smc_rs/state",
        },
    },
}

/// Everything that exists while the module is loaded. The order of the fields is the order of
/// the teardown.
struct SmcModule {
    _diagnosis: diag::Diagnosis,
    _sysctl: sysctl::Sysctl,
    _sockets: kapi::family::Registration<smc_core::sock::SmcSocket>,
    _plain_servers: smc_core::plain_servers::Memory,
    _running: smc_core::registry::Running,
    _namespaces: smc_core::namespace::Namespaces,
    _queues: queues::Queues,
    _tcp_option: kapi::tcp_option::Registration,
}

impl kernel::Module for SmcModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let tcp_option = kapi::tcp_option::Registration::new()?;
        let queues = queues::start()?;
        let sysctl = sysctl::Sysctl::register()?;
        let namespaces = smc_core::namespace::start()?;
        let plain_servers = smc_core::plain_servers::start()?;
        let running = smc_core::registry::start(kapi::version::parameter!(rsvd_ports_base))?;
        // The last that can fail: a module that was not loaded in the end must not have had a socket.
        let sockets = smc_core::sock::register()?;
        let diagnosis = diag::register(kapi::version::parameter!(debugfs) != 0);
        running.announce();
        Ok(Self {
            _diagnosis: diagnosis,
            _sysctl: sysctl,
            _sockets: sockets,
            _plain_servers: plain_servers,
            _running: running,
            _namespaces: namespaces,
            _queues: queues,
            _tcp_option: tcp_option,
        })
    }
}
