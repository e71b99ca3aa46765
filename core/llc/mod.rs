// SPDX-License-Identifier: GPL-2.0

//! Link Layer Control: messages that set up, test and end links and announce buffers
//! (RFC 7609, appendix A.3 and sections 4.5.3 to 4.6; SMC-Rv2 in the form that Linux uses).

#![forbid(unsafe_code)]

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod event;
pub mod flow;
pub mod layout;
pub mod links;
pub mod message;
pub mod wire;

pub use message::LlcMessage;
