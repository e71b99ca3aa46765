// SPDX-License-Identifier: GPL-2.0

//! RDMA verbs: safe wrappers of the kernel's RDMA core.
//!
//! Ownership goes downwards, and every object keeps alive what it needs:
//!
//! ```text
//! Device <- Pd <- { Qp, Mapping }      Qp -> { send Cq, recv Cq }      Device <- Cq
//! ```
//!
//! Whoever holds none of these can still hold a [`device::Device`], which refuses to be used once
//! the C device is about to go.
//!
//! What may be called where: creating, changing and destroying objects sleeps, so process context
//! only. Posting work requests, completion handlers and `Mapping::sync_*` are for process and
//! bottom-half context.

use kernel::prelude::*;

pub(crate) mod client;
pub(crate) mod cq;
pub(crate) mod device;
pub(crate) mod gid;
pub(crate) mod mapping;
pub(crate) mod memory;
pub(crate) mod netdev;
pub(crate) mod pd;
pub(crate) mod qp;
pub(crate) mod queues;
pub(crate) mod wait;
pub(crate) mod wr;

/// Name under which `rdma resource` shows our objects.
const CALLER: &CStr = c"smc_rs";
