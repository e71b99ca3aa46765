// SPDX-License-Identifier: GPL-2.0

//! smcd: smc_rs has no SMC-D, and says so.

use crate::args::{in_our_spelling, Smcd, SmcdObject};
use crate::stats::Side;
use crate::{finish, info, stats, ueid};
use clap::Parser;
use serde_json::json;
use smc_tools_common::smc::Smc;
use smc_tools_common::Error;
use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    let args = Smcd::parse_from(in_our_spelling(std::env::args_os()));
    finish("smcd", run(&args).map(|()| true))
}

fn run(args: &Smcd) -> Result<(), Error> {
    let mut smc = Smc::open()?;
    let options = &args.options;
    let json = options.json;
    match &args.object {
        SmcdObject::Device { .. } => none(smc.smcd_counts()?.0, "devices", json),
        SmcdObject::Linkgroup { .. } => none(smc.smcd_counts()?.1, "linkgroups", json),
        SmcdObject::Info { .. } => info::show(&mut smc, json),
        SmcdObject::Seid { action } => ueid::system(&mut smc, action.as_ref(), json),
        SmcdObject::Stats { action, watch } => {
            stats::run(&mut smc, Side::D, *action, watch, options)
        }
        SmcdObject::Ueid { action } => ueid::run(&mut smc, action.as_ref(), json),
    }
}

/// That there are none; or, with another module that has some, how many.
fn none(count: usize, what: &str, json: bool) -> Result<(), Error> {
    if count > 0 {
        return Err(Error::Refused(format!(
            "the kernel tells of {count} SMC-D {what}, which this smcd does not show: use IBM's"
        )));
    }
    if json {
        return crate::print_json(&json!({ what: [] }));
    }
    eprintln!(
        "smcd: there are no SMC-D {what}: this module has SMC-R only, see 'smcr {}'",
        what.trim_end_matches('s')
    );
    Ok(())
}
