//! What a dump of sock_diag costs: it grows with the number of sockets, not with its square, and whoever makes
//! a socket meanwhile does not wait for it.

use crate::clock;
use smc_selftest::diag::Dump;
use smc_selftest::kind::{AF_SMC, SMCPROTO_SMC};
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, check_eq, Context, Outcome};

/// Sockets that are listed.
const COUNTS: [usize; 3] = [2_500, 5_000, 10_000];
/// A socket more costs as much among many as among few, but for the way to it in a tree (O(log n)) and caches of
/// the kernel's memory.
const MOST: f64 = 1.25;
/// The same for making a socket while a dump is under way.
const MOST_BESIDE: f64 = 1.05;
const SAMPLES: usize = 5;

/// Instructions for each socket of a dump, and of making and closing one, without a dump and in the middle of one.
pub struct Cost {
    pub sockets: usize,
    pub each: f64,
    pub alone: u64,
    pub beside: u64,
}

pub fn measure() -> Outcome<Vec<Cost>> {
    let most = COUNTS.into_iter().max().unwrap_or(0) as u64 + 200;
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: `limit` is live.
    sys::cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    let mut socks = Vec::new();
    let mut costs = Vec::new();
    for sockets in COUNTS {
        println!("dumps of {sockets} sockets");
        while socks.len() < sockets {
            socks.push(new_socket()?);
        }
        let mut least = u64::MAX;
        for _ in 0..SAMPLES {
            let mut dump = Dump::start(0)?;
            let mut listed = 0;
            // The kernel's part only: the next part is made when the one before it is read.
            let (ended, took) = clock::count(|| -> Outcome {
                while let Some(part) = dump.part()? {
                    listed += part.len();
                }
                Ok(())
            });
            ended?;
            check_eq!(listed, sockets, "sockets in a dump");
            least = least.min(took);
        }
        let alone = one_socket()?;
        let mut dump = Dump::start(0)?;
        dump.part()?;
        let beside = one_socket()?;
        dump.rest().during("the rest of a dump")?;
        costs.push(Cost {
            sockets,
            each: least as f64 / sockets as f64,
            alone,
            beside,
        });
    }
    Ok(costs)
}

/// In the namespace of the bench, as all of it.
fn new_socket() -> std::io::Result<Sock> {
    Sock::raw(AF_SMC, libc::SOCK_STREAM, SMCPROTO_SMC)
}

/// Instructions of making and closing a socket: the least of some.
fn one_socket() -> Outcome<u64> {
    let mut least = u64::MAX;
    for _ in 0..4 * SAMPLES {
        let (made, took) = clock::count(|| new_socket().map(drop));
        made?;
        least = least.min(took);
    }
    Ok(least)
}

/// Prints what was measured; why it is too much, if it is.
pub fn judge(costs: &[Cost]) -> Outcome {
    println!("\nInstructions of sock_diag, by the number of sockets in the namespace:");
    println!("|  | a dump, for each socket | socket, close | the same in the middle of a dump |");
    println!("|---|---:|---:|---:|");
    for cost in costs {
        println!(
            "| {} sockets | {:.0} | {} | {} |",
            cost.sockets, cost.each, cost.alone, cost.beside
        );
    }
    if let (Some(few), Some(many)) = (costs.first(), costs.last()) {
        check!(
            many.each <= few.each * MOST,
            "a socket costs {:.0} among {} and {:.0} among {}",
            few.each,
            few.sockets,
            many.each,
            many.sockets
        );
    }
    for cost in costs {
        check!(
            cost.beside as f64 <= cost.alone as f64 * MOST_BESIDE,
            "socket and close cost {} while a dump is under way, {} otherwise",
            cost.beside,
            cost.alone
        );
    }
    Ok(())
}
