// SPDX-License-Identifier: GPL-2.0

//! smcr.

use crate::args::{in_our_spelling, LinkgroupAction, Smcr, SmcrObject};
use crate::stats::Side;
use crate::{device, finish, info, linkgroup, stats, ueid};
use clap::Parser;
use smc_tools_common::smc::Smc;
use smc_tools_common::Error;
use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    let args = Smcr::parse_from(in_our_spelling(std::env::args_os()));
    finish("smcr", run(&args).map(|()| true))
}

fn run(args: &Smcr) -> Result<(), Error> {
    let mut smc = Smc::open()?;
    let options = &args.options;
    let json = options.json;
    match &args.object {
        SmcrObject::Device(which) => {
            device::show(&mut smc, &which.words, options.details > 0, json)
        }
        SmcrObject::Linkgroup { action, which } => {
            let (which, links) = match action {
                None => (which, false),
                Some(LinkgroupAction::Show(which)) => (which, false),
                Some(LinkgroupAction::LinkShow(which)) => (which, true),
            };
            linkgroup::show(&mut smc, &which.words, links, options.details, json)
        }
        SmcrObject::Info { .. } => info::show(&mut smc, json),
        SmcrObject::Stats { action, watch } => {
            stats::run(&mut smc, Side::R, *action, watch, options)
        }
        SmcrObject::Ueid { action } => ueid::run(&mut smc, action.as_ref(), json),
    }
}
