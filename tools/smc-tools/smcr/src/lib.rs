// SPDX-License-Identifier: GPL-2.0

//! What smcr and smcd have in common: the command line and what they print, as IBM's tools of those
//! names.

#![forbid(unsafe_code)]

pub mod args;
mod device;
mod info;
mod linkgroup;
mod reset;
pub mod smcd;
pub mod smcr;
mod stats;
mod ueid;

use serde_json::Value;
use smc_tools_common::output::{finish, print};
use smc_tools_common::Error;

/// Prints an object in one line.
fn print_json(value: &Value) -> Result<(), Error> {
    print(&format!("{value}\n"))
}
