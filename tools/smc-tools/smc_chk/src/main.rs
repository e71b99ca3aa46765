// SPDX-License-Identifier: GPL-2.0

//! smc_chk: says why SMC is or is not used.

#![forbid(unsafe_code)]

mod args;
mod live;
mod machine;
mod report;

use args::Args;
use clap::Parser;
use report::Report;
use smc_tools_common::output::{finish, print};
use smc_tools_common::smc::Smc;
use smc_tools_common::{interface, route, Error};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    finish("smc_chk", run(&args))
}

fn run(args: &Args) -> Result<bool, Error> {
    if args.server {
        live::serve(args.ipv6, args.port, args.json)?;
        return Ok(true);
    }
    if let Some(name) = &args.pnetid {
        let id = machine::pnetid(&mut Smc::open()?, name)?;
        if args.json {
            print(&format!(
                "{}\n",
                serde_json::json!({ "interface": name, "pnetid": id })
            ))?;
        } else if let Some(id) = id {
            print(&format!("{id}\n"))?;
        }
        return Ok(true);
    }
    let peer = match &args.connect {
        Some(name) => Some(address(name, args.port, args.ipv6)?),
        None => None,
    };
    let mut report = Report::new(args.debug);
    if let Some(mut smc) = machine::module(&mut report)? {
        if peer.is_none() {
            machine::programs(&mut report);
        }
        machine::settings(&mut report, &mut smc)?;
        let passable = match peer {
            None => {
                machine::devices(&mut report, &mut smc, &args.interfaces)?;
                None
            }
            Some(peer) => way(&mut report, &mut smc, peer.ip())?.then_some(peer),
        };
        machine::memory(&mut report);
        if let Some(peer) = passable {
            live::connect(&mut report, peer)?;
        }
        if peer.is_none() {
            machine::history(&mut report, &mut smc)?;
        }
    }
    if args.json {
        print(&format!("{}\n", report.object()))?;
    } else {
        print(&report.text())?;
    }
    Ok(report.is_good())
}

/// The address of a peer by its name.
fn address(name: &str, port: u16, ipv6: bool) -> Result<SocketAddr, Error> {
    let literal = name.parse::<IpAddr>().is_ok();
    let all = (name, port)
        .to_socket_addrs()
        .map_err(|error| Error::Refused(format!("the address of {name} is not known: {error}")))?;
    let mut wanted = all.filter(|address| literal || address.is_ipv6() == ipv6);
    wanted.next().ok_or_else(|| {
        let which = if ipv6 { "IPv6" } else { "IPv4" };
        Error::Refused(format!(
            "{name} has no {which} address: try with or without -6"
        ))
    })
}

/// The way to the peer: route, interface, RDMA device. Whether there is one.
fn way(report: &mut Report, smc: &mut Smc, peer: IpAddr) -> Result<bool, Error> {
    let Some(route) = route::to(peer)? else {
        report.failed(
            "route",
            format!("there is no route to {peer}"),
            "look at 'ip route' and 'ip address'",
        );
        return Ok(false);
    };
    let name =
        interface::name(route.ifindex).unwrap_or_else(|| format!("device {}", route.ifindex));
    report.detail("route", || format!("{route:?}"));
    if route.local {
        report.failed(
            "route",
            format!("{peer} is this host's own address: such connections go by {name}, which has no RDMA device"),
            "check from another host",
        );
        return Ok(false);
    }
    let from = route
        .source
        .map_or(String::new(), |source| format!(" from {source}"));
    let by = route
        .gateway
        .map_or(String::new(), |gateway| format!(", gateway {gateway}"));
    report.passed("route", format!("to {peer}{from} by {name}{by}"));
    let devices = smc.devices()?;
    let table = machine::table()?;
    machine::for_interface(report, &devices, &table, &name, route.ifindex, route.source);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_or_an_address() {
        let got = |name: &str, ipv6| address(name, 7, ipv6).map(|address| address.to_string());
        assert_eq!(got("10.9.0.2", false).unwrap(), "10.9.0.2:7");
        assert_eq!(got("fe80::1", false).unwrap(), "[fe80::1]:7");
        assert!(got("no.such.name.invalid", false).is_err());
    }
}
