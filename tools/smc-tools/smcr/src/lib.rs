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
use smc_tools_common::Error;
use std::io::Write;
use std::process::ExitCode;

/// Prints what `made` gives, or why it gives nothing.
fn finish(tool: &str, outcome: Result<(), Error>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{tool}: error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints text as it is.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Prints an object in one line.
fn print_json(value: &Value) -> Result<(), Error> {
    print(&format!("{value}\n"))
}
