// SPDX-License-Identifier: GPL-2.0

//! Link groups, links, connections, buffers and sockets: where the other parts are joined.
//!
//! Mounted as `smc_core`; a root module named `core` would hide the crate of that name from the
//! macros of the `kernel` crate.

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod counter;
pub mod errands;
pub mod error;
pub mod habits;
pub mod llc;
pub mod numbered;
pub mod order;
pub mod pnet;
pub mod rtoken;
pub mod state;
pub mod time;
pub mod types;
pub mod ueid;

// Glue: what the pure parts are used by.
pub(crate) mod buffers;
mod cdc_demux;
pub(crate) mod conn;
pub(crate) mod group;
mod group_table;
pub(crate) mod learning;
pub(crate) mod link;
pub(crate) mod namespace;
pub(crate) mod path;
pub(crate) mod plain_servers;
pub(crate) mod pnet_table;
mod ports;
pub(crate) mod registry;
mod rkeys;
pub(crate) mod sock;
pub(crate) mod stats;
