//! Processes that make connections one after the other, until they are told to stop.

use super::board::Board;
use super::plan::Phase;
use super::process::Process;
use crate::bulk::plan::Plan;
use crate::bulk::{self, Played, Road};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Test};
use crate::tests;
use crate::{check, Context, Fail, Outcome};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Tests that ask nothing of the network or of time: they run beside all the rest in gentle phases.
const BODIES: [&str; 22] = [
    "urgent.out_of_line",
    "urgent.inline",
    "urgent.inline_under_traffic",
    "splice.into_the_socket",
    "splice.tee",
    "splice.proxy",
    "splice.user_pages",
    "close.half_close",
    "close.simultaneous",
    "close.data_before_end",
    "process.fork_shares",
    "process.prefork_accept",
    "process.kill_sender",
    "process.kill_receiver",
    "process.kill_with_many_open",
    "sharing.dup",
    "sharing.pass_connected",
    "sharing.threads_write_and_read",
    "uring.life",
    "uring.large_send",
    "aio.read_and_write",
    "stream.random_sizes_both_ways",
];
/// How much slower everything is among all the rest.
const SLOWER: u64 = 4;

/// What a worker does: made from the phase's seed, the worker's number and that of the job.
pub enum Job {
    Connection {
        kind: Kind,
        client: Host,
        plan: Plan,
    },
    Body {
        kind: Kind,
        name: &'static str,
    },
}

impl Job {
    pub fn new(phase: &Phase, worker: usize, number: u64) -> Job {
        let seed = phase.seed
            ^ phase.number.rotate_left(40)
            ^ (worker as u64).rotate_left(32)
            ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = SmallRng::seed_from_u64(seed);
        let kind = Kind::at_random(&mut random);
        if worker == 0 && !phase.class.rough {
            return Job::Body {
                kind,
                name: BODIES[random.gen_range(0..BODIES.len())],
            };
        }
        let largest = [2, 400, 20_000, 200_000, 2_000_000][random.gen_range(0..5)];
        Job::Connection {
            kind,
            client: Host::BOTH[random.gen_range(0..2)],
            plan: Plan::new(seed, random.gen_range(0..bulk::plan::PLANS), largest),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Connection { kind, client, plan } => {
                write!(f, "{}, client on {}, {plan}", kind.name(), client.name())
            }
            Job::Body { kind, name } => write!(f, "{name}[{}]", kind.name()),
        }
    }
}

/// Plays jobs until the soak stops.
pub fn work(ctx: &Ctx, board: &'static Board, phase: &Phase, worker: usize, first: u64) -> Outcome {
    for number in first.. {
        if board.is_stopped() {
            break;
        }
        board.jobs[worker].store(number, Ordering::Relaxed);
        let job = Job::new(phase, worker, number);
        match &job {
            Job::Connection { kind, client, plan } => {
                let road = Road {
                    client: *client,
                    rough: phase.class.rough,
                    links_go: phase.class.two_links,
                    beat: &board.beats[worker],
                };
                let ctx = ctx.with_kind(*kind).unasked();
                match bulk::connection(&ctx, plan, &road).during(&job.to_string())? {
                    Played::Whole { bytes, by_rdma } => {
                        Board::count(&board.bytes, bytes as u64);
                        Board::count(&board.by_rdma, u64::from(by_rdma));
                    }
                    Played::Broken(_) => Board::count(&board.broken, 1),
                }
                Board::count(&board.connections, 1);
            }
            Job::Body { kind, name } => {
                let body = body(name)?;
                play_body(&ctx.with_kind(*kind).unasked(), &body).during(&job.to_string())?;
                Board::count(&board.bodies, 1);
            }
        }
        Board::count(&board.beats[worker], 1);
    }
    Ok(())
}

fn body(name: &str) -> Outcome<Test> {
    tests::all()
        .into_iter()
        .find(|test| test.name == name)
        .ok_or_else(|| Fail(format!("there is no test {name}")))
}

fn play_body(ctx: &Ctx, test: &Test) -> Outcome {
    let mut process = Process::start(test.name.into(), || (test.body)(ctx))?;
    let end = Instant::now() + Duration::from_secs(test.limit * SLOWER);
    loop {
        if let Some(outcome) = process.ended()? {
            return outcome;
        }
        check!(
            Instant::now() < end,
            "not finished after {} s; threads:\n{}",
            test.limit * SLOWER,
            crate::runner::own_stacks()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
