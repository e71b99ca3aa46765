//! Conformance: the same random script of socket calls over TCP and over SMC must give the same
//! values, errors, bytes, and poll events after each step.
//!
//! A script is a list of [`Op`]s on a client, a listener and the accepted socket. It runs over TCP
//! first; what is seen there is what SMC has to show. No call blocks, and after each step SMC gets
//! time to come to the same state (RDMA has its own pace), so that the outcome of the next call does
//! not depend on time.

mod generate;
mod op;
mod world;

pub use op::{End, Op};

use crate::kind::Kind;
use crate::{Fail, Outcome};
use rand::rngs::SmallRng;
use rand::SeedableRng;
use std::fmt::Write;
pub use world::catch_broken_pipes;
use world::{Seen, State, World};

/// One step as TCP did it.
struct Step {
    op: Op,
    seen: Seen,
    after: Vec<State>,
}

/// Runs the script of this seed over TCP and over `kind`; the differences, in words.
pub fn compare(kind: Kind, seed: u64) -> Outcome {
    let script = generate::script(&mut SmallRng::seed_from_u64(seed));
    let mut tcp = World::new(kind.plain());
    let mut steps = Vec::with_capacity(script.len());
    for op in script {
        let seen = tcp.run(&op)?;
        let after = tcp.settle()?;
        steps.push(Step { op, seen, after });
    }
    drop(tcp);
    let mut smc = World::new(kind);
    for (number, step) in steps.iter().enumerate() {
        let seen = smc.run(&step.op)?;
        let difference = if seen == step.seen {
            smc.await_states(&step.after)?.map(|states| {
                format!(
                    "the state afterwards is\n{} but TCP's is\n{}",
                    listed(&states),
                    listed(&step.after)
                )
            })
        } else {
            Some(format!("it gave {seen}, but TCP {}", step.seen))
        };
        if let Some(difference) = difference {
            let mut text = format!("script {seed}, {}:\n", kind.name());
            for step in &steps[..=number] {
                let _ = writeln!(text, "  {:?} -> {}", step.op, step.seen);
            }
            text.push_str(&difference);
            return Err(Fail(text));
        }
    }
    Ok(())
}

fn listed(states: &[State]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        let _ = writeln!(text, "    {state}");
        text
    })
}
