// SPDX-License-Identifier: GPL-2.0

//! The pure half of smc_rs, built for the host so that it can be tested without a kernel.
//!
//! The module tree mirrors that of the kernel module, so `crate::smc_core::types` names the same file
//! in both builds. Add a pure file here when it is added to the `mod.rs` of its directory.

#![no_std]
#![deny(unsafe_code)]
// Values of the peer must not reach a panic: the kernel would stop. Tests may: that is how they fail.
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

#[path = "../../../../core"]
pub mod smc_core {
    //! See `core/mod.rs`.
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
}

#[path = "../../../../clc"]
pub mod clc {
    //! See `clc/mod.rs`.
    pub mod decline;
    pub mod handshake;
    pub mod negotiate;
    pub mod plain_servers;
    pub mod subnet;
    pub mod tcp_header;
    pub mod tcp_option;
    pub mod wire;
}

#[path = "../../../../diag"]
pub mod diag {
    //! See `diag/mod.rs`.
    pub mod abi;
    pub mod genl_abi;
    pub mod nla;
    pub mod pnet_abi;
}

#[path = "../../../../rx_tx"]
pub mod rx_tx {
    //! See `rx_tx/mod.rs`.
    pub mod cdc;
    pub mod conn;
    pub mod cork;
    pub mod cursor;
    pub mod early;
    pub mod immediate;
    pub mod plan;
    pub mod receiver;
    pub mod sender;
    pub mod turns;
    pub mod window;
}
