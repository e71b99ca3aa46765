// SPDX-License-Identifier: GPL-2.0

//! Connection Layer Control: the handshake over TCP that sets up a connection (RFC 7609, section
//! 3.5).

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod decline;
pub mod handshake;
pub mod negotiate;
pub mod tcp_option;
pub mod wire;

pub(crate) mod rendezvous;
pub(crate) enum Outcome { Smc(kernel::sync::Arc<crate::smc_core::conn::Conn>), Fallback(decline::DeclineReason,u32), Failed(kernel::error::Error)}
impl Outcome { pub(crate) fn dispose(self){} }
pub(crate) mod client { use super::*; pub(crate) fn handshake(_:&crate::kapi::sock::Sock<crate::smc_core::sock::SmcSocket>, _:&crate::kapi::clcsock::ClcSock)->Outcome{Outcome::Fallback(decline::DeclineReason::NOSMCRDEV,0)}}
pub(crate) mod server { pub(crate) use super::client::*; }
