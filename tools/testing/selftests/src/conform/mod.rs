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
use std::time::Duration;
pub use world::catch_broken_pipes;
use world::{Seen, State, World};

/// One step as TCP did it.
#[derive(PartialEq, Eq)]
struct Step {
    op: Op,
    seen: Seen,
    after: Vec<State>,
}

/// Runs the script of this seed over TCP and over `kind`; the differences, in words.
///
/// A busy machine may hold up a segment for longer than TCP's run waited for it. So a difference
/// holds if TCP, given much more time, does the same again; else that run is the measure.
pub fn compare(kind: Kind, seed: u64) -> Outcome {
    let script = || generate::script(&mut SmallRng::seed_from_u64(seed));
    let tcp = by_tcp(kind, script(), world::CALM)?;
    let Some(difference) = difference(kind, &tcp)? else {
        return Ok(());
    };
    let patient = by_tcp(kind, script(), world::LONG_CALM)?;
    let holds = if patient == tcp {
        Some(difference)
    } else {
        self::difference(kind, &patient)?
    };
    holds.map_or(Ok(()), |text| {
        Err(Fail(format!("script {seed}, {}:\n{text}", kind.name())))
    })
}

/// What TCP does; the next step follows when nothing has changed for `calm`.
fn by_tcp(kind: Kind, script: Vec<Op>, calm: Duration) -> Outcome<Vec<Step>> {
    let mut tcp = World::new(kind.plain());
    let mut steps = Vec::with_capacity(script.len());
    for op in script {
        let seen = tcp.run(&op)?;
        let after = tcp.settle(calm)?;
        steps.push(Step { op, seen, after });
    }
    Ok(steps)
}

/// The steps up to the first one that `kind` does otherwise, and what it does.
fn difference(kind: Kind, steps: &[Step]) -> Outcome<Option<String>> {
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
            let mut text = String::new();
            for step in &steps[..=number] {
                let _ = writeln!(text, "  {:?} -> {}", step.op, step.seen);
            }
            text.push_str(&difference);
            return Ok(Some(text));
        }
    }
    Ok(None)
}

fn listed(states: &[State]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        let _ = writeln!(text, "    {state}");
        text
    })
}
