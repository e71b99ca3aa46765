// SPDX-License-Identifier: GPL-2.0

//! What most files here want in scope: the `kernel` crate's prelude, and what later versions of it
//! have, and ours to report.

pub(crate) use super::log::pr_warn_ratelimited;
pub(crate) use kernel::prelude::*;

#[cfg(smc_rs_before_7_3)]
pub(crate) use super::version::errno::*;
