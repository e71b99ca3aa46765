// SPDX-License-Identifier: GPL-2.0

//! What both sides of the handshake have in common.

use super::{
    io,
    negotiate::{
        Host,
        Mode, //
    },
    wire::{
        RdmaEndpoint,
        VendorOptions, //
    }, //
};
use crate::{
    kapi::{
        clcsock::ClcSock,
        host, //
    },
    smc_core::{
        group::{
            Confirmation,
            LinkGroup, //
        },
        link::{
            FarEnd,
            Link, //
        },
        llc::wire::LlcVersion,
        path::Path,
        registry, //
    },
    sysctl::Settings, //
};

/// How long to wait for a Decline that may be on its way.
pub(super) const LATE_DECLINE_MS: u32 = 1_000;

/// This host, as it describes itself at first contact over `path`.
pub(super) fn this_host(path: &Path) -> Host {
    Host {
        direct: path.gateway.is_none(),
        hostname: host::hostname(),
    }
}

/// What we do with hosts of our vendor, as the namespace is set.
pub(super) fn vendor_options(settings: &Settings) -> VendorOptions {
    if settings.uses_immediates() {
        VendorOptions::IMMEDIATE
    } else {
        VendorOptions::NONE
    }
}

/// The form of the LLC messages that goes with a version.
pub(super) fn llc_version(mode: &Mode) -> LlcVersion {
    match mode {
        Mode::V1 => LlcVersion::V1,
        Mode::V2 { .. } => LlcVersion::V2,
    }
}

/// The peer's end of the link that its Accept or Confirm names, reached over `path`.
pub(super) fn far_end(path: &Path, peer: &RdmaEndpoint) -> FarEnd {
    FarEnd {
        gid: peer.gid,
        mac: peer.mac,
        gateway: path.gateway,
        qpn: peer.qpn,
    }
}

/// Waits until `link`, the first one of `group`, is confirmed, at most `timeout_ms` milliseconds. A peer
/// that declines instead ends the wait, with [`None`].
pub(super) fn await_confirmation(
    group: &LinkGroup,
    link: &Link,
    clc: &ClcSock,
    timeout_ms: u32,
) -> Option<Confirmation> {
    const LOOK_MS: u32 = 200;

    let deadline = registry::now().after(timeout_ms);
    while !deadline.reached(registry::now()) {
        let confirmation = group.wait_confirmed(link, LOOK_MS);
        if confirmation.is_some() || io::has_input(clc) {
            return confirmation;
        }
    }
    None
}
