// SPDX-License-Identifier: GPL-2.0

//! Connection Layer Control: the handshake over TCP that sets up a connection (RFC 7609, section
//! 3.5).

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod decline;
pub mod handshake;
pub mod negotiate;
pub mod plain_servers;
pub mod subnet;
pub mod tcp_header;
pub mod tcp_option;
pub mod wire;

// Glue: the handshake over a TCP socket.
pub(crate) mod client;
mod common;
mod io;
mod outcome;
pub(crate) mod rendezvous;
pub(crate) mod server;

pub(crate) use outcome::Outcome;
