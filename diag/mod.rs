// SPDX-License-Identifier: GPL-2.0

//! Diagnosis: what `smcss` and friends ask for.

// Pure: also built for the host.
pub mod abi;

// Glue.
mod sockets;

pub(crate) use sockets::register;
