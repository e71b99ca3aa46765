//! Random scripts of socket calls: SMC has to do what TCP does. See [`crate::conform`].

use super::join;
use crate::conform;
use crate::kind::Expect;
use crate::runner::{Ctx, Needs, Test};
use crate::{Fail, Outcome};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

pub const TESTS: [Test; 1] = [Test {
    name: "conform.scripts",
    body: scripts,
    limit: 1500,
    needs: Needs::Any,
}];

/// Scripts at full size.
const SCRIPTS: u64 = 10_000;
/// Over TCP, where it is compared with itself: that proves the comparison.
const SCRIPTS_OF_TCP: u64 = 1_000;
const THREADS: u64 = 4;
/// Differences that are shown.
const SHOWN: u64 = 8;

fn scripts(ctx: &Ctx) -> Outcome {
    conform::catch_broken_pipes();
    let scripts = match ctx.kind.expect() {
        Expect::Plain => SCRIPTS_OF_TCP,
        _ => SCRIPTS,
    };
    let count = scripts / ctx.divisor as u64;
    let differences = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (kind, seed) = (ctx.kind, ctx.seed << 20);
            let differences = differences.clone();
            std::thread::spawn(move || -> Outcome {
                for script in (thread..count).step_by(THREADS as usize) {
                    if let Err(failure) = conform::compare(kind, seed + script) {
                        eprintln!("{failure}");
                        if differences.fetch_add(1, Ordering::Relaxed) >= SHOWN {
                            break;
                        }
                    }
                }
                Ok(())
            })
        })
        .collect();
    threads.into_iter().try_for_each(join)?;
    match differences.load(Ordering::Relaxed) {
        0 => Ok(()),
        count => Err(Fail(format!(
            "{count} scripts or more differ from TCP (see above)"
        ))),
    }
}
