//! System calls at random, with arguments that are right, wrong and hostile, on sockets of all kinds:
//! `smc-selftest calls --minutes N --seed S`.
//!
//! Programs ([`script`]) run one after the other in processes of their own, with a few threads on the same descriptors
//! ([`program`]). Each call has to come back, or to be ended by a signal; what it returns has to be possible; the kernel says
//! nothing; connections beside keep their bytes right; and nothing is left of it all. Where the kernel tells which code a call
//! has reached (KCOV: the kasan kernel, of smc_rs alone), programs that reached more are changed further.

mod arena;
mod board;
mod call;
mod kcov;
mod netlink;
mod program;
mod script;
mod table;

use super::link::{echo, works_again};
use super::redundancy::Streams;
use super::settings::Changed;
use super::soak::process::Process;
use super::soak::Watch;
use crate::kind::{Host, Kind};
use crate::rig::{self, SoftRoce};
use crate::runner::{own_stacks, Ctx, Needs, Suite, Test};
use crate::sys;
use crate::{check, Context, Outcome};
use board::Board;
use script::Script;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// For `smc-selftest calls`.
pub static SUITE: Suite = Suite {
    name: "calls",
    kinds: &[Kind::Smc4],
    module: true,
    divisor: 16,
    roce: SoftRoce::Stock,
    subjects: &[],
    about: "system calls at random, with hostile arguments",
};

pub const ALL: Test = Test {
    name: "calls.at_random",
    body: at_random,
    // Beside the minutes.
    limit: 600,
    needs: Needs::Once,
};

/// Seconds, where nobody has asked for minutes.
const SHORT: u64 = 30;
/// Processes that run programs, one after the other.
const WORKERS: u64 = 3;
/// A program that has not ended by then hangs; one call of it is given up before.
const PATIENCE: Duration = Duration::from_secs(180);
const SHOWN_EVERY: Duration = Duration::from_secs(20);
/// For what changes settings: a network namespace in which nobody talks.
const APART: &str = "calls";
/// Calls that have to have succeeded once, or the run has tried nothing.
const MUST: [&str; 11] = [
    "socket",
    "bind",
    "listen",
    "connect",
    "sendmsg",
    "recvmsg",
    "setsockopt",
    "getsockopt",
    "splice",
    "epoll_ctl",
    "netlink",
];

fn at_random(ctx: &Ctx) -> Outcome {
    let ctx = &ctx.with_kind(Kind::Smc4);
    let board = Board::new()?;
    let families = netlink::Families::find()?;
    // It is there still if an earlier run has failed.
    let _ = rig::run(&format!("ip netns del {APART}"));
    rig::run(&format!("ip netns add {APART}"))?;
    let converted = Changed::new(&Host::BOTH, "tcp2smc", 1)?;
    let lasts = Duration::from_secs(ctx.minutes.map_or(SHORT, |minutes| 60 * minutes));
    println!(
        "# calls for {} s; seed {}; KCOV: {}",
        lasts.as_secs(),
        ctx.seed,
        if kcov::is_there() { "yes" } else { "no" }
    );
    let outcome = play(ctx, board, &families, lasts);
    println!("# {}", board.line());
    println!("# {}", board.table());
    outcome?;
    drop(converted);
    // Descriptors that were passed in a circle keep sockets and namespaces until a socket of AF_UNIX is closed.
    drop(UnixDatagram::unbound()?);
    rig::run(&format!("ip netns del {APART}"))?;
    for name in MUST {
        check!(
            board.succeeded(name) > 0,
            "{name} has never succeeded, so that this has tried little"
        );
    }
    check!(
        board.by_rdma.load(Ordering::Relaxed) > 0,
        "no connection of a program went by RDMA"
    );
    works_again(ctx).during("in the end")
}

fn play(
    ctx: &Ctx,
    board: &'static Board,
    families: &netlink::Families,
    lasts: Duration,
) -> Outcome {
    let begin = Instant::now();
    let mut streams = Process::start("streams".into(), || beside(ctx, board))?;
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        workers.push(Process::start(format!("worker {worker}"), || {
            work(ctx, board, families, worker)
        })?);
    }
    let mut shown = begin;
    while begin.elapsed() < lasts {
        for process in workers.iter_mut().chain([&mut streams]) {
            if let Some(outcome) = process.ended()? {
                outcome?;
                check!(false, "{} has ended by itself", process.name);
            }
        }
        if shown.elapsed() > SHOWN_EVERY {
            println!("# {} s: {}", begin.elapsed().as_secs(), board.line());
            shown = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Workers first: the streams are beside them to the end.
    for (stop, group) in [(&board.stop, workers), (&board.stop_streams, vec![streams])] {
        stop.store(1, Ordering::Relaxed);
        for mut process in group {
            let end = Instant::now() + PATIENCE * 2;
            loop {
                if let Some(outcome) = process.ended()? {
                    outcome?;
                    break;
                }
                check!(
                    Instant::now() < end,
                    "{} does not end; threads:\n{}",
                    process.name,
                    own_stacks()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}

/// An ordinary connection each way, whose bytes are compared, and which has to move.
fn beside(ctx: &Ctx, board: &Board) -> Outcome {
    let pairs = vec![ctx.pair()?, ctx.pair_the_other_way()?];
    for pair in &pairs {
        echo(pair, b"first")?;
    }
    let streams = Streams::start(ctx, pairs)?;
    let mut watch = Watch::new();
    while board.stop_streams.load(Ordering::Relaxed) == 0 && !streams.is_over() {
        let now = streams.moved() as u64;
        board.compared.store(now, Ordering::Relaxed);
        check!(
            watch.moves(now) < sys::PATIENCE * 2,
            "the connections beside have stood still for {} s, after {now} bytes",
            (sys::PATIENCE * 2).as_secs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let more = streams.await_more(100_000);
    streams.end().during("connections beside")?;
    more
}

/// Runs programs until it is to stop.
fn work(ctx: &Ctx, board: &'static Board, families: &netlink::Families, worker: u64) -> Outcome {
    // Programs that reached something new.
    let mut kept: Vec<Script> = Vec::new();
    for number in ctx.phase.. {
        if board.stop.load(Ordering::Relaxed) != 0 {
            break;
        }
        let mut random = ctx.random((worker << 48) ^ number);
        let script = Script::next(&mut random, &kept);
        let new = board.places_found[worker as usize].load(Ordering::Relaxed);
        run(ctx, board, families, &script, worker)
            .map_err(|fail| crate::Fail(format!("{fail}\nprogram {number}, {script}")))?;
        board.programs.fetch_add(1, Ordering::Relaxed);
        if board.places_found[worker as usize].load(Ordering::Relaxed) != new {
            kept.push(script);
        }
    }
    Ok(())
}

/// One program, in a process of its own.
fn run(
    ctx: &Ctx,
    board: &'static Board,
    families: &netlink::Families,
    script: &Script,
    worker: u64,
) -> Outcome {
    let mut process = Process::start("program".into(), || {
        program::run(ctx, board, families, script, worker as usize)
    })?;
    let begin = Instant::now();
    let mut killed = false;
    loop {
        if let Some(outcome) = process.ended()? {
            return if killed { Ok(()) } else { outcome };
        }
        if script.dies_after.is_some_and(|time| begin.elapsed() > time) && !killed {
            process.kill()?;
            killed = true;
        }
        check!(
            begin.elapsed() < PATIENCE,
            "a program does not end; threads:\n{}",
            own_stacks()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
