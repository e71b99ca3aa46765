//! The command line of the tests; runs inside the test machine as root.

use smc_selftest::kind::{Host, Kind};
use smc_selftest::rig::SoftRoce;
use smc_selftest::runner::{self, Options, Suite, SUITES};
use smc_selftest::{bulk, ktap, rig, tests, Fail, Outcome};
use std::process::ExitCode;

const USAGE: &str = "\
smc-selftest list                      the tests and suites
smc-selftest run SUITE [OPTION...]     run a suite; the report is KTAP
    --filter TEXT,... only tests whose name[kind] contains one of the texts; !TEXT: not those
    --skip TEXT,...   tell of tests whose name[kind] contains one of the texts as skipped
    --part N/M        every M-th of the chosen tests, from the N-th on
    --kinds K,K       tcp4 tcp6 smc4 smc6 ipsmc4 ipsmc6, instead of the suite's
    --seed N          the seed of every random number (printed in the report)
    --divisor N       divide the volume of the large tests
    --repeat N        run each test N times
    --rounds N        rounds of the tests cycles.*
    --minutes N       how long soak and calls go on (1; calls: half of one)
    --phase N         soak begins with this phase of its seed, calls with this program (0)
    --any-mode        do not fail connections that fall back to TCP (for work on the sockets alone)
    --keep            leave hosts and module as they are, and skip the leak oracles
smc-selftest bulk [OPTION...]          every way to write against every way to read, over every kind; the same options
smc-selftest soak [OPTION...]          everything at once, at random; the same options
smc-selftest calls [OPTION...]         system calls at random, with hostile arguments; the same options
smc-selftest exclusive                 exclusive RDMA namespaces, in a fresh machine; the report is KTAP
smc-selftest selinux                   a policy of SELinux, in a machine booted with it; the report is KTAP
smc-selftest hosts up|down             the two hosts A (10.9.0.1) and B (10.9.0.2)
smc-selftest counters                  packets that the RDMA devices have sent";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("smc-selftest: {failure}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for suite in &SUITES {
                println!("suite {}: {}", suite.name, suite.about);
            }
            for test in tests::all() {
                println!("{}", test.name);
            }
            Ok(true)
        }
        ["run", suite, rest @ ..] => Ok(runner::run(
            &options(suite_named(suite)?, rest)?,
            &tests::all(),
        )),
        ["bulk", rest @ ..] => Ok(runner::run(&options(&bulk::SUITE, rest)?, &[bulk::ALL])),
        ["soak", rest @ ..] => Ok(runner::run(
            &options(&tests::soak::SUITE, rest)?,
            &[tests::soak::ALL],
        )),
        ["calls", rest @ ..] => Ok(runner::run(
            &options(&tests::calls::SUITE, rest)?,
            &[tests::calls::ALL],
        )),
        ["exclusive"] => Ok(ktap::run(&smc_selftest::exclusive::STEPS)),
        ["selinux"] => Ok(ktap::run(&smc_selftest::selinux::STEPS)),
        ["hosts", "up"] => rig::hosts_up(SoftRoce::Stock).map(|()| true),
        ["hosts", "down"] => rig::hosts_down().map(|()| true),
        ["counters"] => {
            for host in Host::BOTH {
                println!(
                    "{} sent_pkts {}",
                    host.rdma_device(),
                    smc_selftest::mode::counter(host, "sent_pkts")?
                );
            }
            Ok(true)
        }
        _ => Err(Fail(format!("usage:\n{USAGE}"))),
    }
}

fn suite_named(name: &str) -> Outcome<&'static Suite> {
    SUITES
        .iter()
        .find(|suite| suite.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            Fail(format!(
                "no suite '{name}'; there are: {}",
                names.join(", ")
            ))
        })
}

fn part(text: &str) -> Outcome<(usize, usize)> {
    let (part, of) = text.split_once('/').unwrap_or((text, ""));
    match (part.parse(), of.parse()) {
        (Ok(part @ 1usize..), Ok(of)) if part <= of => Ok((part - 1, of)),
        _ => Err(Fail(format!("--part {text}: not as in 1/4"))),
    }
}

fn options(suite: &'static Suite, words: &[&str]) -> Outcome<Options> {
    let mut options = Options {
        suite,
        filter: None,
        skip: None,
        part: None,
        kinds: None,
        seed: std::process::id().into(),
        divisor: None,
        repeat: 1,
        rounds: None,
        minutes: None,
        phase: 0,
        any_mode: false,
        keep: false,
    };
    if let Ok(since) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        options.seed = u64::from(since.subsec_nanos()) ^ since.as_secs();
    }
    let number = |name: &str, text: &str| {
        text.parse::<u64>()
            .map_err(|error| Fail(format!("{name} {text}: {error}")))
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--keep" => {
                options.keep = true;
                continue;
            }
            "--any-mode" => {
                options.any_mode = true;
                continue;
            }
            _ => {}
        }
        let value = words
            .next()
            .ok_or_else(|| Fail(format!("option {word} is unknown or has no value\n{USAGE}")))?;
        match word {
            "--filter" => options.filter = Some((*value).to_owned()),
            "--kinds" => {
                let kinds: Option<Vec<Kind>> = value.split(',').map(Kind::parse).collect();
                options.kinds =
                    Some(kinds.ok_or_else(|| Fail(format!("unknown kind in '{value}'")))?);
            }
            "--skip" => options.skip = Some((*value).to_owned()),
            "--part" => options.part = Some(part(value)?),
            "--seed" => options.seed = number(word, value)?,
            "--divisor" => options.divisor = Some(number(word, value)?.max(1) as usize),
            "--rounds" => options.rounds = Some(number(word, value)?.max(2) as usize),
            "--minutes" => options.minutes = Some(number(word, value)?.max(1)),
            "--phase" => options.phase = number(word, value)?,
            "--repeat" => options.repeat = number(word, value)?.max(1) as usize,
            _ => return Err(Fail(format!("unknown option {word}\n{USAGE}"))),
        }
    }
    Ok(options)
}
