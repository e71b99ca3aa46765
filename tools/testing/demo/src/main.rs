//! Unmodified programs over SMC-R, each beside the same run over plain TCP.
//!
//! Runs inside the test machine. Nothing here is told to believe a program: bytes are counted by
//! the packet filter, packets by the RDMA devices, modes by sock_diag, content by checksums.
//!
//! `smc-demo failover` is `make demo-failover`; `smc-demo adapter a` and `adapter b` are the two machines of
//! `make demo-erdma`, and `smc-demo plot` makes its picture.

mod adapter;
mod apps;
mod failover;
mod plot;
mod witness;

use smc_selftest::ktap::{Report, Verdict};
use smc_selftest::transport::Transport;
use smc_selftest::{rig, sys, Fail, Outcome};
use std::process::ExitCode;
use witness::Evidence;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["adapter", ref rest @ ..] => return adapter::main(rest),
        ["failover"] => return failover::main(),
        ["ping"] => return adapter::ping(),
        ["pong"] => return adapter::pong(),
        ["plot", rates, instructions] => return plot::main(rates, instructions),
        _ => {}
    }
    let mut report = Report::silent(1 + apps::ALL.len() * 2 + rig::oracles().len());
    match demo(&mut report) {
        Ok(()) if report.failed == 0 => {
            println!("demo: OK: Redis, nginx and iperf3 ran unmodified over SMC-R; every connection went by RDMA and every byte was right");
            ExitCode::SUCCESS
        }
        Ok(()) => {
            println!(
                "demo: FAILED: {} of the checks above did not hold",
                report.failed
            );
            ExitCode::FAILURE
        }
        Err(failure) => {
            report.result("demo.set_up", Verdict::Fail(failure.0.clone()));
            println!("demo: FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn demo(report: &mut Report) -> Outcome {
    rig::hosts_up(rig::SoftRoce::Stock)?;
    let before = rig::Before::take()?;
    witness::install()?;
    rig::module_load()?;
    report.result("demo.set_up", Verdict::Pass);
    let release = sys::read_file("/proc/sys/kernel/osrelease")?;
    println!(
        "kernel {}; hosts A 10.9.0.1 and B 10.9.0.2: namespaces joined by veth, Soft-RoCE on each;\n\
         clients on A, servers on B; net.smc.tcp2smc=0 for TCP, =1 for SMC-R",
        release.trim()
    );
    for app in &apps::ALL {
        println!("\n{}", app.title);
        for transport in [Transport::Tcp, Transport::Smc] {
            let name = format!("demo.{}[{}]", app.name, transport.name());
            let outcome = measure(app, transport);
            if let Err(failure) = &outcome {
                println!("  {:<6} FAILED: {failure}", transport.name());
            }
            report.result(&name, outcome.into());
        }
    }
    Transport::Tcp.switch_hosts("1")?;
    println!();
    rig::judge(report, &before, "after the demo");
    Ok(())
}

fn measure(app: &apps::App, transport: Transport) -> Outcome {
    transport.switch_hosts("1")?;
    let mut server = (app.serve)()?;
    let watch = witness::Watch::start()?;
    let result = (app.run)();
    let evidence = watch.stop()?;
    server.stop();
    let result = result?;
    println!("  {:<6} {}", transport.name(), result.words);
    println!("         {}", evidence.words(transport));
    judge(transport, &evidence, result.bytes)
}

/// Do the witnesses agree with the transport that was asked for?
fn judge(transport: Transport, evidence: &Evidence, bytes: u64) -> Outcome {
    // Set-up of one connection over TCP: its own handshake, CLC messages and the end, with headers.
    const SET_UP: u64 = 3000;
    // The link group of the program before is there for a while, and tests its links (smcr_testlink_time).
    const IDLE_LINKS: u64 = 3000;
    match transport {
        Transport::Tcp => {
            if evidence.smc > 0 {
                return Err(Fail(format!(
                    "{} connections are SMC-R although plain TCP was asked for (sock_diag)",
                    evidence.smc
                )));
            }
            if evidence.rdma_bytes > IDLE_LINKS {
                return Err(Fail(format!(
                    "{} bytes went by RDMA although plain TCP was asked for",
                    evidence.rdma_bytes
                )));
            }
        }
        Transport::Smc => {
            if evidence.fallbacks > 0 {
                return Err(Fail(format!(
                    "{} of {} connections fell back to TCP unasked (sock_diag)",
                    evidence.fallbacks, evidence.opened
                )));
            }
            if evidence.smc == 0 {
                return Err(Fail("sock_diag has seen no connection by SMC-R".into()));
            }
            if evidence.rdma_packets == 0 {
                return Err(Fail(
                    "no packet left the RDMA devices: the connections fell back to TCP unasked"
                        .into(),
                ));
            }
            if evidence.rdma_bytes < bytes {
                return Err(Fail(format!(
                    "the program moved {bytes} bytes, but only {} went by RDMA",
                    evidence.rdma_bytes
                )));
            }
            let budget = evidence.opened * SET_UP;
            if evidence.tcp_bytes > budget {
                return Err(Fail(format!(
                    "{} bytes went by TCP, more than {budget} for the set-up of {} connections: some fell back unasked",
                    evidence.tcp_bytes, evidence.opened
                )));
            }
        }
    }
    Ok(())
}
