//! What a fallback costs, and what the module costs that is loaded but not used: instructions of the
//! machine for each system call, beside plain TCP. And what a dump of many sockets costs.
//!
//!   smc-bench fallback [ROUNDS]    all of it
//!   smc-bench dump                 the dumps only
//!   smc-bench measure tcp|c|rust [TEXT]
//!                                  what `make bench` compares, of one stack; TEXT: only works with this, or one of
//!                                  several between commas, in their name
//!   smc-bench places tcp|c|rust [TEXT]
//!                                  the same way: programs between the marks of places.c, and the modules' functions
//!   smc-bench report DIR BASELINE KERNEL
//!                                  on the host: what the boots of `make bench` have measured, side by side
//!   smc-bench report-places DIR KERNEL-DIR
//!                                  on the host: whose instructions these were
//!
//! Runs inside the test machine, booted with rig.icount. Lines that begin with '|' are the tables.

mod clock;
mod dump;
mod figures;
mod messages;
mod pair;
mod places;
mod plot;
mod report;
mod rows;
mod stack;
mod table;
mod works;

use pair::{Pair, Way};
use rows::ROWS;
use smc_selftest::kind::Kind;
use smc_selftest::ktap::{Report, Verdict};
use smc_selftest::{check, rig, Context, Outcome};
use stack::Stack;
use std::process::ExitCode;
use std::time::Duration;
use table::Samples;

/// More than this over plain TCP is too much.
const LIMIT: f64 = 0.03;
/// Samples of a row in each round.
const SAMPLES: usize = 5;
/// The kernel tests its ciphers after the boot. Sleeping costs nothing by this clock.
const BOOT_SETTLES: Duration = Duration::from_secs(20);
/// The hook that puts the option into a SYN stays for 5 s after the last socket that needs it.
const HOOK_LINGERS: Duration = Duration::from_secs(6);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["measure", stack, ref filter @ ..] if filter.len() <= 1 => {
            Stack::parse(stack).map(|stack| measure(stack, filter.first().copied().unwrap_or("")))
        }
        ["places", stack, ref filter @ ..] if filter.len() <= 1 => Stack::parse(stack)
            .map(|stack| places::measure(stack, filter.first().copied().unwrap_or(""))),
        ["report-places", dir, kernel] => Some(places::report(dir, kernel)),
        ["report", dir, baseline, kernel] => Some(report::main(dir, baseline, kernel)),
        _ => None,
    };
    match result {
        None => {}
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(failure)) => {
            eprintln!("smc-bench: {failure}");
            return ExitCode::FAILURE;
        }
    }
    let rounds = match &arguments[..] {
        [what] if what == "dump" => Some(0),
        [what] if what == "fallback" => Some(9),
        [what, rounds] if what == "fallback" => rounds.parse().ok().filter(|rounds| *rounds > 0),
        _ => None,
    };
    let Some(rounds) = rounds else {
        eprintln!("usage: smc-bench fallback [ROUNDS] | dump | measure STACK [TEXT] | places STACK | report ... (see main.rs)");
        return ExitCode::FAILURE;
    };
    match run(rounds) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("smc-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a name contains one of the texts between commas.
fn is_chosen(name: &str, filter: &str) -> bool {
    filter.split(',').any(|part| name.contains(part))
}

/// Prints a line `figure<TAB>name<TAB>value` for each figure.
fn measure(stack: Stack, filter: &str) -> Outcome {
    std::thread::sleep(BOOT_SETTLES);
    clock::check()?;
    stack.up()?;
    let mut found = Vec::new();
    for work in works::WORKS {
        if !is_chosen(work.name, filter) {
            continue;
        }
        println!("{}", work.name);
        for (name, value) in (work.run)(stack).during(work.name)? {
            check!(
                figures::find(&name).is_some(),
                "no figure '{name}' in figures.rs"
            );
            found.push(format!("figure\t{name}\t{value}"));
        }
    }
    check!(!found.is_empty(), "no work with '{filter}' in its name");
    stack.unload()?;
    println!("{}", found.join("\n"));
    Ok(())
}

/// True if every row is within its limit.
fn run(rounds: usize) -> Outcome<bool> {
    std::thread::sleep(BOOT_SETTLES);
    clock::check()?;
    if rounds == 0 {
        rig::module_load()?;
        dump::judge(&dump::measure()?)?;
        return Ok(true);
    }
    let unused = unused_module(rounds)?;
    rig::module_load()?;
    let fallback = fallback(rounds)?;
    let dumps = dump::measure()?;
    println!("\nInstructions after a fallback:");
    table::show(
        &[
            "",
            "TCP",
            "SMC client, fallen back",
            "SMC server, fallen back",
        ],
        &fallback,
    );
    println!("\nInstructions of TCP with the module loaded, net.smc.tcp2smc=0:");
    table::show(&["", "not loaded", "loaded"], &unused);
    let all: Vec<&Samples> = fallback.iter().chain(&unused).collect();
    let limited = all.iter().filter(|row| row.limit.is_some());
    let mut report = Report::silent(limited.clone().count() + 1);
    for row in limited {
        let verdict = match row.failure() {
            None => Verdict::Pass,
            Some(why) => {
                println!("too much: {why}");
                Verdict::Fail(why)
            }
        };
        report.result(
            &format!("bench.{}", row.name.replace([' ', ','], "_")),
            verdict,
        );
    }
    let verdict = match dump::judge(&dumps) {
        Ok(()) => Verdict::Pass,
        Err(failure) => Verdict::Fail(failure.to_string()),
    };
    report.result("bench.dumps", verdict);
    Ok(report.failed == 0)
}

/// In turns forwards and backwards, so that what comes first is not always the same.
fn order<T: Copy>(round: usize, all: &[T]) -> Vec<(usize, T)> {
    let mut order: Vec<(usize, T)> = all.iter().copied().enumerate().collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn fallback(rounds: usize) -> Outcome<Vec<Samples>> {
    let columns = Way::ALL.len();
    let mut table: Vec<Samples> = ROWS
        .iter()
        .map(|row| Samples::new(row.name, columns, Some(LIMIT)))
        .collect();
    let mut connection = Samples::new("connect, accept, close", columns, None);
    let mut short = Samples::new("the same, known to be short", columns, None);
    let mut socket = Samples::new("socket, close", 2, None);
    for round in 0..rounds {
        println!("fallback: round {} of {rounds}", round + 1);
        for (column, way) in order(round, &Way::ALL) {
            let pair = Pair::new(way)?;
            std::thread::sleep(HOOK_LINGERS);
            for (row, samples) in ROWS.iter().zip(&mut table) {
                // The first one finds cold caches, of slabs and the like.
                (row.sample)(&pair).during(row.name)?;
                for _ in 0..SAMPLES {
                    samples.add(column, (row.sample)(&pair).during(row.name)?);
                }
            }
        }
        for (column, way) in order(round, &Way::ALL) {
            rows::connection(way)?;
            for _ in 0..SAMPLES {
                connection.add(column, rows::connection(way)?);
            }
        }
        for (column, way) in order(round, &Way::ALL) {
            for _ in 0..SAMPLES {
                short.add(column, rows::short_connection(way)?);
            }
        }
        for (column, kind) in order(round, &[Kind::Tcp4, Kind::Smc4]) {
            rows::unused_socket(kind)?;
            for _ in 0..SAMPLES {
                socket.add(column, rows::unused_socket(kind)?);
            }
        }
    }
    table.extend([connection, short, socket]);
    Ok(table)
}

fn unused_module(rounds: usize) -> Outcome<Vec<Samples>> {
    let mut socket = Samples::new("TCP socket, close", 2, Some(LIMIT));
    let mut connection = Samples::new("TCP connect, accept, close", 2, Some(LIMIT));
    let mut table: Vec<Samples> = ROWS
        .iter()
        .take(4)
        .map(|row| Samples::new(&format!("TCP {}", row.name), 2, Some(LIMIT)))
        .collect();
    for round in 0..rounds {
        println!("module loaded or not: round {} of {rounds}", round + 1);
        for (column, loaded) in order(round, &[false, true]) {
            if loaded {
                rig::module_load()?;
            } else if rig::module_loaded() {
                rig::run(&format!("rmmod {}", rig::MODULE))?;
            }
            rows::unused_socket(Kind::Tcp4)?;
            rows::connection(Way::Tcp)?;
            let pair = Pair::new(Way::Tcp)?;
            for _ in 0..SAMPLES {
                socket.add(column, rows::unused_socket(Kind::Tcp4)?);
                connection.add(column, rows::connection(Way::Tcp)?);
                for (row, samples) in ROWS.iter().zip(&mut table) {
                    samples.add(column, (row.sample)(&pair).during(row.name)?);
                }
            }
        }
    }
    table.insert(0, socket);
    table.insert(1, connection);
    Ok(table)
}
