// SPDX-License-Identifier: GPL-2.0

//! What both sides of the handshake have in common.

use super::negotiate::{
    Host,
    Mode, //
};
use crate::{
    kapi::host,
    smc_core::llc::wire::LlcVersion, //
};

/// How long to wait for a Decline that may be on its way.
pub(super) const LATE_DECLINE_MS: u32 = 1_000;

/// This host, as it describes itself at first contact.
pub(super) fn this_host() -> Host {
    Host {
        direct: true,
        hostname: host::hostname(),
    }
}

/// The form of the LLC messages that goes with a version.
pub(super) fn llc_version(mode: &Mode) -> LlcVersion {
    match mode {
        Mode::V1 => LlcVersion::V1,
        Mode::V2 { .. } => LlcVersion::V2,
    }
}
