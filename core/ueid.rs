// SPDX-License-Identifier: GPL-2.0

//! User-defined enterprise IDs (SMC-Rv2): hosts that have one in common may use SMC-R across
//! subnets.

use super::types::Ueid;

/// The ID that every host has until its administrator manages IDs, so that two hosts need no
/// configuration.
const DEFAULT_NAME: &[u8] = b"SMC-RS.DEFAULT";

/// The IDs of this host.
pub(crate) fn local() -> Option<Ueid> {
    Ueid::from_name(DEFAULT_NAME)
}
