// SPDX-License-Identifier: GPL-2.0

//! Diagnosis: what `smcss`, `smcr` and friends ask for.

// Pure: also built for the host.
pub mod abi;
pub mod genl_abi;
pub mod nla;
pub mod pnet_abi;

// Glue.
mod genl;
mod pnet;
mod sockets;
mod state;
#[allow(unsafe_code, reason = "trace events")]
pub(crate) mod trace;

use crate::kapi::prelude::*;
use crate::{
    kapi,
    smc_core::sock::SmcSocket, //
};

/// Answers those who ask, until it is dropped.
pub(crate) struct Diagnosis {
    _sockets: Option<kapi::sock_diag::Registration<SmcSocket>>,
    _genl: Option<kapi::genl::Registration<genl::SmcGenl>>,
    _pnet: Option<kapi::genl::Registration<pnet::SmcPnetId>>,
    _state: Option<state::StateDump>,
}

/// Answers from now on; what cannot be registered is told in the log, and works all the same but for
/// that. With `debugfs` the state of link groups is shown there, too.
pub(crate) fn register(debugfs: bool) -> Diagnosis {
    Diagnosis {
        _sockets: sockets::register(),
        _genl: genl::register(),
        _pnet: pnet::register(),
        _state: if debugfs {
            state::show()
                .inspect_err(|err| pr_warn!("no state in debugfs: {err:?}\n"))
                .ok()
        } else {
            None
        },
    }
}
