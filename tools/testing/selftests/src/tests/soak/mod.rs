//! Everything at once, at random, for as long as it is told: `smc-selftest soak --minutes N --seed S`.
//!
//! A soak has phases ([`plan`]). In each, processes make connections of all kinds ([`worker`]) while things are done to the
//! hosts ([`act`]): in gentle ones no connection may fail, in rough ones it may end with an error that says so. Every byte is
//! compared, nothing may hang, and after each phase connections go by RDMA as ever.

mod act;
mod board;
mod plan;
pub(super) mod process;
mod worker;

use super::cycles::Memory;
use super::link::{echo, fresh, unload_with_traffic, works_again};
use super::netem::Netem;
use super::redundancy::Streams;
use super::settings::Changed;
use super::two_links::{await_all_symmetric, Second};
use crate::kind::{Host, Kind};
use crate::rig::SoftRoce;
use crate::runner::{own_stacks, ports_of, Ctx, Needs, Suite, Test};
use crate::sys;
use crate::{check, Context, Fail, Outcome};
use board::{Board, WORKERS};
use plan::{Act, Phase};
use process::Process;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use worker::Job;

/// For `smc-selftest soak`.
pub static SUITE: Suite = Suite {
    name: "soak",
    kinds: &[Kind::Smc4],
    module: true,
    divisor: 16,
    roce: SoftRoce::Stock,
    subjects: &[],
    about: "everything at once, at random",
};

pub const ALL: Test = Test {
    name: "soak.everything",
    body: everything,
    // Beside the minutes: the last phase comes to its end.
    limit: 900,
    needs: Needs::Once,
};

/// A worker that does not come to the end of anything for so long hangs. A connection on which nothing moves says so
/// before.
const PATIENCE: Duration = Duration::from_secs(240);
const SHOWN_EVERY: Duration = Duration::from_secs(30);
/// The first phases make what stays for good: caches of the kernel, and of this machine's tools.
const WARM_UP: u64 = 4;
/// Of so many phases memory is compared.
const HALF: u64 = 4;

fn everything(ctx: &Ctx) -> Outcome {
    let board = Board::new()?;
    // Whenever it is loaded from now on, it tells its state; for failures, and since it is to be asked for.
    std::fs::create_dir_all("/etc/modprobe.d")?;
    sys::write_file("/etc/modprobe.d/soak.conf", "options smc_rs debugfs=1\n")?;
    unload_with_traffic(ctx, 1)?;
    let lasts = Duration::from_secs(60 * ctx.minutes.unwrap_or(1));
    println!("# soak of {} s; seed {}", lasts.as_secs(), ctx.seed);
    let begin = Instant::now();
    let mut shown = begin;
    let mut memory = Vec::new();
    let mut number = ctx.phase;
    loop {
        let phase = Phase::new(ctx.seed, number);
        println!("# {phase}");
        // A process of its own has no threads when it forks others, and its own ports.
        let ctx = Ctx {
            ports: ports_of(number as usize),
            ..ctx.with_kind(ctx.kind)
        };
        let mut process = Process::start(format!("phase {number}"), || {
            play(&ctx, board, &phase)?;
            if phase.class.rough {
                act::settled(&ctx, &mut |time| {
                    std::thread::sleep(time);
                    Ok(())
                })
                .during("between phases")?;
            }
            if phase.reload {
                unload_with_traffic(&ctx, 10).during("between phases")?;
            }
            works_again(&ctx).during("between phases")
        })?;
        let mut watch = Watch::new();
        loop {
            if let Some(outcome) = process.ended()? {
                outcome.map_err(|fail| Fail(format!("{fail}\n{phase}\n{}", board.line())))?;
                break;
            }
            if shown.elapsed() > SHOWN_EVERY {
                println!("# {} s: {}", begin.elapsed().as_secs(), board.line());
                shown = Instant::now();
            }
            check!(
                watch.moves(board.pulse()) < PATIENCE * 2,
                "nothing goes on any more\n{phase}\n{}; threads:\n{}",
                board.line(),
                own_stacks()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Board::count(&board.phases, 1);
        number += 1;
        let warm = number - ctx.phase >= WARM_UP;
        if warm && (memory.is_empty() || memory.len() == 1 && begin.elapsed() > lasts / 2) {
            memory.push((number, measured(&ctx)?));
        }
        if begin.elapsed() > lasts {
            break;
        }
    }
    println!("# {} s: {}", begin.elapsed().as_secs(), board.line());
    // In halves of a few phases what the kernel keeps for itself would be the most.
    if let [(first, one), (middle, two)] = &memory[..] {
        if middle - first >= HALF && number - middle >= HALF {
            Memory::compare([one, two, &measured(ctx)?], (number - first) as usize)?;
        }
    }
    check!(
        board.by_rdma.load(Ordering::Relaxed) > 0,
        "no connection went by RDMA"
    );
    works_again(ctx).during("in the end")
}

fn measured(ctx: &Ctx) -> Outcome<Memory> {
    fresh(ctx)?;
    Memory::now()
}

/// For how long a number has not changed.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    last: u64,
    since: Instant,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            last: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn moves(&mut self, now: u64) -> Duration {
        if now != self.last {
            *self = Watch {
                last: now,
                since: Instant::now(),
            };
        }
        self.since.elapsed()
    }
}

/// One phase, from hosts that are as ever to hosts that are so again.
fn play(ctx: &Ctx, board: &'static Board, phase: &Phase) -> Outcome {
    let second = match phase.class.two_links {
        true => Some(Second::new(&Host::BOTH)?),
        false => None,
    };
    match &second {
        Some(second) => second.fresh(ctx)?,
        None => fresh(ctx)?,
    }
    // So that a link that is dead is found while the phase goes on.
    let testlink = match phase.class.rough {
        true => Some(Changed::new(&Host::BOTH, "smcr_testlink_time", 2)?),
        false => None,
    };
    let netem = Netem::new("")?;
    let mut crew = Crew::start(ctx, board, phase)?;
    for (number, step) in phase.steps.iter().enumerate() {
        crew.step(step, &netem)
            .map_err(|fail| crew.words(fail, &format!("step {number}, {:?}", step.act)))?;
        Board::count(&board.acts, 1);
    }
    crew.end().map_err(|fail| crew.words(fail, "the end"))?;
    drop(crew);
    drop(netem);
    drop(testlink);
    drop(second);
    Ok(())
}

/// The processes of a phase.
struct Crew<'a> {
    ctx: &'a Ctx,
    board: &'static Board,
    phase: &'a Phase,
    workers: Vec<Process>,
    /// What each worker has moved.
    watches: [Watch; WORKERS],
    streams: Option<Process>,
}

impl<'a> Crew<'a> {
    fn start(ctx: &'a Ctx, board: &'static Board, phase: &'a Phase) -> Outcome<Crew<'a>> {
        board.stop.store(0, Ordering::Relaxed);
        board.ready.store(0, Ordering::Relaxed);
        let mut crew = Crew {
            ctx,
            board,
            phase,
            workers: Vec::new(),
            watches: [Watch::new(); WORKERS],
            streams: None,
        };
        if !phase.class.rough {
            crew.streams = Some(Process::start("streams".into(), || streams(ctx, board))?);
            while board.ready.load(Ordering::Relaxed) == 0 {
                crew.look()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            if phase.class.two_links {
                await_all_symmetric(act::GROUPS)?;
            }
        }
        for worker in 0..WORKERS {
            let process = crew.worker(worker, 0)?;
            crew.workers.push(process);
        }
        Ok(crew)
    }

    fn worker(&self, worker: usize, first: u64) -> Outcome<Process> {
        let Crew {
            ctx, board, phase, ..
        } = *self;
        Process::start(format!("worker {worker}"), || {
            worker::work(ctx, board, phase, worker, first)
        })
    }

    fn step(&mut self, step: &plan::Step, netem: &Netem) -> Outcome {
        self.hold(Duration::from_millis(step.after))?;
        if let Act::Killed(worker) = step.act {
            // What the next one does is not the same again.
            let first = self.board.jobs[worker].load(Ordering::Relaxed) + 1_000;
            // The process is killed, and waited for.
            self.workers[worker] = self.worker(worker, first)?;
        }
        let (ctx, class) = (self.ctx, self.phase.class);
        act::play(ctx, class, netem, step, &mut |time| self.hold(time))
    }

    /// Waits, unless something has gone wrong.
    fn hold(&mut self, time: Duration) -> Outcome {
        let end = Instant::now() + time;
        loop {
            self.look()?;
            if Instant::now() >= end {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether all are still at work.
    fn look(&mut self) -> Outcome {
        for process in self.workers.iter_mut().chain(&mut self.streams) {
            if let Some(outcome) = process.ended()? {
                outcome?;
                return Err(Fail(format!("{} has ended by itself", process.name)));
            }
        }
        self.watch()
    }

    fn watch(&mut self) -> Outcome {
        for (number, watch) in self.watches.iter_mut().enumerate() {
            let still = watch.moves(self.board.beats[number].load(Ordering::Relaxed));
            check!(
                still < PATIENCE,
                "worker {number} has come to the end of nothing for {} s; threads:\n{}",
                still.as_secs(),
                own_stacks()
            );
        }
        Ok(())
    }

    /// All finish what they are at.
    fn end(&mut self) -> Outcome {
        self.board.stop.store(1, Ordering::Relaxed);
        let mut left: Vec<Process> = self.workers.drain(..).chain(self.streams.take()).collect();
        while !left.is_empty() {
            let mut going = Vec::new();
            for mut process in left {
                match process.ended()? {
                    Some(outcome) => outcome?,
                    None => going.push(process),
                }
            }
            left = going;
            self.watch()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A failure, and what everybody was at.
    fn words(&self, fail: Fail, place: &str) -> Fail {
        let mut text = format!("{fail}\nat {place}; last");
        for worker in 0..WORKERS {
            let number = self.board.jobs[worker].load(Ordering::Relaxed);
            let job = Job::new(self.phase, worker, number);
            text += &format!("\n- worker {worker}: job {number}, {job}");
        }
        match act::state() {
            Ok(state) => {
                text += "\nthe module:\n";
                for line in state.lines().take(80) {
                    text += &format!("{line}\n");
                }
            }
            Err(fail) => text += &format!("\n{fail}"),
        }
        Fail(text)
    }
}

/// Connections both ways that go on for the whole of a gentle phase.
fn streams(ctx: &Ctx, board: &Board) -> Outcome {
    let pairs = vec![ctx.pair()?, ctx.pair_the_other_way()?];
    for pair in &pairs {
        echo(pair, b"first")?;
    }
    let streams = Streams::start(ctx, pairs)?;
    Board::count(&board.ready, 1);
    let mut seen = 0;
    let mut watch = Watch::new();
    while !board.is_stopped() && !streams.is_over() {
        let now = streams.moved();
        Board::count(&board.bytes, (now - seen) as u64);
        seen = now;
        check!(
            watch.moves(now as u64) < sys::PATIENCE * 2,
            "the streams have stood still for {} s, after {now} bytes",
            (sys::PATIENCE * 2).as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let more = streams.await_more(100_000);
    // Why one of them has ended is said first.
    streams.end().during("streams")?;
    more
}
