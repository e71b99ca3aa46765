// SPDX-License-Identifier: GPL-2.0

//! The data path: rings, cursors, CDC messages, and what they do to a connection.

// Pure: only `core` and `zerocopy`, also built for the host.
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
