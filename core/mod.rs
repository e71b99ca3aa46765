// SPDX-License-Identifier: GPL-2.0

//! Link groups, links, connections, buffers and sockets: where the other parts are joined.
//!
//! Mounted as `smc_core`; a root module named `core` would hide the crate of that name from the
//! macros of the `kernel` crate.

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod error;
pub mod state;
pub mod types;
