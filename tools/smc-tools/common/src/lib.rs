// SPDX-License-Identifier: GPL-2.0

//! What the SMC tools share: netlink, the layout of what the kernel says, and tables.
//!
//! `unsafe` is in [`netlink`] and [`interface`] only, where the system calls are.

pub mod diag;
pub mod error;
pub mod genl;
pub mod interface;
pub mod netlink;
pub mod output;
pub mod pnet;
pub mod reason;
pub mod route;
pub mod smc;
pub mod stats;
pub mod table;
pub mod ueid;
mod wire;

pub use error::Error;

/// Number of the address family `AF_SMC`.
pub const AF_SMC: u8 = 43;

/// What `--version` says after the tool's name.
pub const VERSION: &str = concat!("smc_rs ", env!("CARGO_PKG_VERSION"));
