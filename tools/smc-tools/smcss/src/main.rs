// SPDX-License-Identifier: GPL-2.0

//! smcss: shows SMC sockets, as IBM's tool of that name does.

#![forbid(unsafe_code)]

mod args;
mod json;
mod listing;
mod rates;

use args::Args;
use clap::Parser;
use rates::Rates;
use smc_tools_common::diag::{self, Entry};
use smc_tools_common::{output, Error};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args = Args::parse();
    output::finish("smcss", run(&args).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    let mut rates = Rates::default();
    let mut left = args.count;
    // A terminal shows the last listing only.
    let clear = args.watch.is_some() && !args.json && std::io::stdout().is_terminal();
    loop {
        let entries = diag::sockets(listing::extensions(args))?;
        let text = text(args, &entries, &mut rates)?;
        // Home, and clear what is behind.
        let home = if clear { "\x1b[H\x1b[J" } else { "" };
        output::print(&format!("{home}{text}"))?;
        left = left.map(|left| left.saturating_sub(1));
        match (args.watch, left) {
            (None, _) | (_, Some(0)) => return Ok(()),
            (Some(interval), _) => std::thread::sleep(interval),
        }
        if !args.json && !clear {
            output::print("\n")?;
        }
    }
}

/// One listing.
fn text(args: &Args, entries: &[Entry], rates: &mut Rates) -> Result<String, Error> {
    let rates = rates.next(entries, Instant::now());
    let shown: Vec<&Entry> = entries
        .iter()
        .filter(|entry| listing::shown(args, entry))
        .collect();
    if args.json {
        let line = json::line(&shown, &rates).map_err(|error| Error::Output(error.into()))?;
        return Ok(line + "\n");
    }
    let table = listing::table(args);
    let mut text = table.header() + "\n";
    for entry in shown {
        let rate = rates.get(&entry.cookie).copied();
        text.push_str(&table.row(listing::cells(args, entry, rate)));
        text.push('\n');
    }
    Ok(text)
}
