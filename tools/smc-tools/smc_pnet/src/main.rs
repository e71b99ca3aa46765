// SPDX-License-Identifier: GPL-2.0

//! smc_pnet: shows and changes the table of physical networks, as IBM's tool of that name does.

#![forbid(unsafe_code)]

mod args;

use args::Args;
use clap::Parser;
use serde_json::{json, Value};
use smc_tools_common::pnet::{Entry, Table};
use smc_tools_common::{output, Error};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    output::finish("smc_pnet", run(&args).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    let mut table = Table::open()?;
    let name = args.pnetid.as_deref();
    match name {
        Some(name) if args.add => table.add(&Entry {
            name: name.into(),
            ethernet: args.interface.clone(),
            rdma: args.ibdevice.clone(),
            port: args.ibport,
        }),
        Some(name) if args.delete => table.delete(name),
        _ if args.flush => table.flush(),
        _ => print(&table.entries(name)?, args.json),
    }
}

/// As IBM's: name, Ethernet device, RDMA device, port.
fn line(entry: &Entry) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "n/a".into());
    format!(
        "{} {} {} {}\n",
        entry.name,
        name(&entry.ethernet),
        name(&entry.rdma),
        entry.port.unwrap_or(u8::MAX)
    )
}

fn object(entries: &[Entry]) -> Value {
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "pnetid": entry.name, "netdev": entry.ethernet, "ib_device": entry.rdma, "port": entry.port,
            })
        })
        .collect();
    json!({ "entries": entries })
}

fn print(entries: &[Entry], json: bool) -> Result<(), Error> {
    let text = if json {
        format!("{}\n", object(entries))
    } else {
        entries.iter().map(line).collect()
    };
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_as_ibms_tool_prints_them_and_as_json() {
        let ethernet = Entry {
            name: "NET1".into(),
            ethernet: Some("eth0".into()),
            ..Entry::default()
        };
        let rdma = Entry {
            name: "NET1".into(),
            rdma: Some("rxe0".into()),
            port: Some(1),
            ..Entry::default()
        };
        assert_eq!(line(&ethernet), "NET1 eth0 n/a 255\n");
        assert_eq!(line(&rdma), "NET1 n/a rxe0 1\n");
        assert_eq!(
            object(&[ethernet, rdma]),
            json!({"entries": [
                {"pnetid": "NET1", "netdev": "eth0", "ib_device": null, "port": null},
                {"pnetid": "NET1", "netdev": null, "ib_device": "rxe0", "port": 1}
            ]})
        );
    }
}
