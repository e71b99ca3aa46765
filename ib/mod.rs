// SPDX-License-Identifier: GPL-2.0

//! RDMA: devices and their ports, and the queues and memory that links are made of.
//!
//! Nothing here knows SMC. [`verbs`] wraps the kernel's RDMA core; the rest is built on it without
//! `unsafe`: [`client`] follows the devices, [`port`] finds a port's addresses, and [`wr`] keeps
//! the work requests that are under way.

pub(crate) mod client;
pub(crate) mod port;
#[allow(unsafe_code, reason = "wrappers of the RDMA core's C interface")]
pub(crate) mod verbs;
pub(crate) mod wr;
