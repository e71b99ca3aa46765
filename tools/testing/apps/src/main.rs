//! Programs that nobody here wrote, each over TCP first and then over SMC-R, in the test machine.
//!
//! A case is a command that tells results by name (`apps/cases`, `apps/guest/lib.sh`); it does not know which
//! transport it runs over. It must succeed over TCP, or it proves nothing, and bring the same results over SMC-R. What
//! became of the connections is counted in the module itself, by probes: the shortest connection is seen.

mod cases;
mod expected;
mod probes;
mod root;
mod table;

use cases::{Case, Results};
use expected::Expected;
use probes::{Counts, Probes};
use smc_selftest::ktap::{Report, Verdict};
use smc_selftest::transport::Transport;
use smc_selftest::{rig, Fail, Outcome};
use std::process::ExitCode;
use std::time::Instant;
use table::Row;

const USAGE: &str = "\
smc-apps [OPTION...]
    --only NAME,...   only cases whose name begins with one of the texts
    --mode 1|2        net.smc.tcp2smc of the SMC-R runs (2)
    --list            the cases";

struct Options {
    only: Vec<String>,
    mode: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("smc-apps: {failure}");
            ExitCode::from(2)
        }
    }
}

fn start(arguments: &[String]) -> Outcome<bool> {
    let mut options = Options {
        only: Vec::new(),
        mode: "2".into(),
    };
    let all = cases::read()?;
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("--list", None) => {
                for case in &all {
                    println!("{}: {}, {}", case.name, case.program, case.ran);
                }
                return Ok(true);
            }
            ("--only", Some(names)) => options.only = names.split(',').map(str::to_owned).collect(),
            ("--mode", Some(mode @ ("1" | "2"))) => options.mode = mode.to_owned(),
            _ => return Err(Fail(format!("unknown option {word}\n{USAGE}"))),
        }
    }
    let chosen: Vec<Case> = all
        .into_iter()
        .filter(|case| {
            options.only.is_empty()
                || options
                    .only
                    .iter()
                    .any(|name| case.name.starts_with(name.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        return Err(Fail("no case has such a name; --list shows all".into()));
    }
    let mut report = Report::silent(1 + chosen.len() + rig::oracles().len());
    let outcome = run(&options, &chosen, &mut report);
    if let Err(failure) = outcome {
        println!("smc-apps: {failure}");
        report.result("apps.set_up", Verdict::Fail(failure.0));
    }
    println!(
        "{} passed, {} failed, {} skipped",
        report.passed, report.failed, report.skipped
    );
    Ok(report.failed == 0)
}

fn run(options: &Options, chosen: &[Case], report: &mut Report) -> Outcome {
    rig::hosts_up(rig::SoftRoce::Stock)?;
    // Programs that talk to themselves do so by the loopback device of the machine's first namespace.
    rig::run("rdma link add rxeL type rxe netdev lo")?;
    let before = rig::Before::take()?;
    rig::module_load()?;
    let probes = Probes::install()?;
    root::mount()?;
    let expected = Expected::read()?;
    report.result("apps.set_up", Verdict::Pass);

    let mut rows = Vec::new();
    for (number, case) in chosen.iter().enumerate() {
        let mut runs = Vec::new();
        for transport in [Transport::Tcp, Transport::Smc] {
            switch(transport, &options.mode)?;
            println!(
                "[{}/{}] {} over {} ...",
                number + 1,
                chosen.len(),
                case.name,
                transport.name()
            );
            let begin = Instant::now();
            let before = probes.read()?;
            let results = case.run(transport)?;
            let counts = probes.read()?.since(&before);
            println!(
                "    {} s: {}; {}",
                begin.elapsed().as_secs(),
                results.words(),
                counts.words()
            );
            runs.push((results, counts));
        }
        switch(Transport::Tcp, &options.mode)?;
        let [(tcp, tcp_counts), (smc, counts)] = &runs[..] else {
            return Err(Fail("a case runs twice".into()));
        };
        let judged = judge(case, &expected, tcp, tcp_counts, smc, counts);
        for line in judged.trouble.iter().take(40) {
            println!("    {line}");
        }
        rows.push(Row::new(case, tcp, smc, counts, &judged));
        report.result(
            &format!("apps.{}", case.name),
            if judged.trouble.is_empty() {
                Verdict::Pass
            } else {
                Verdict::Fail(judged.trouble.join("\n"))
            },
        );
    }
    let text = table::markdown(&rows);
    println!("\n{text}");
    root::keep("table.md", &text)?;
    probes.remove()?;
    root::unmount()?;
    rig::judge(report, &before, "after the programs");
    Ok(())
}

/// Everywhere in the machine.
fn switch(transport: Transport, mode: &str) -> Outcome {
    transport.switch_hosts(mode)?;
    transport.switch_here(mode)
}

/// What is to be said about a case.
pub struct Judged {
    /// What nobody expected.
    pub trouble: Vec<String>,
    /// Listed differences that occurred, with their reasons.
    pub listed: Vec<String>,
}

fn judge(
    case: &Case,
    expected: &Expected,
    tcp: &Results,
    tcp_counts: &Counts,
    smc: &Results,
    counts: &Counts,
) -> Judged {
    let mut of_case = expected.of(&case.name);
    let mut trouble = Vec::new();
    if tcp.is_empty() {
        trouble.push("told no result over TCP".to_owned());
    }
    for (id, value) in tcp.failures() {
        if !of_case.takes(id, expected::What::Both) {
            trouble.push(format!("{id}: {value} over TCP, where it must succeed"));
        }
    }
    for (id, over_tcp, over_smc) in tcp.differences(smc) {
        if !of_case.takes(id, expected::What::Smc) {
            trouble.push(format!("{id}: {over_tcp} over TCP, {over_smc} over SMC-R"));
        }
    }
    if tcp_counts.smc_ends + tcp_counts.fallbacks() > 0 {
        trouble.push("SMC sockets were used in the TCP run".to_owned());
    }
    if counts.smc_ends == 0 && !of_case.takes("no connection", expected::What::Smc) {
        trouble.push("no connection went by SMC-R".to_owned());
    }
    for (reason, ends) in &counts.by_reason {
        let id = format!("fallback:{reason}");
        if !of_case.takes(&id, expected::What::Smc) {
            trouble.push(format!("{id}: {ends} ends of connections fell back"));
        }
    }
    trouble.extend(of_case.left_over());
    Judged {
        trouble,
        listed: of_case.used(),
    }
}
