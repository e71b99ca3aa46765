// SPDX-License-Identifier: GPL-2.0

//! SMC-R: Shared Memory Communications over RDMA (RFC 7609).

use kernel::prelude::*;

#[allow(unsafe_code, reason = "raw C bindings")]
mod bindings;
#[allow(unsafe_code, reason = "abstractions of C interfaces")]
mod kapi;

module! {
    type: SmcModule,
    name: "smc_rs",
    authors: ["The smc_rs authors"],
    description: "Shared Memory Communications over RDMA (SMC-R, RFC 7609)",
    license: "GPL",
    alias: ["smc", "smc_diag", "net-pf-43"],
}

struct SmcModule;

impl kernel::Module for SmcModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded\n");
        Ok(Self)
    }
}
