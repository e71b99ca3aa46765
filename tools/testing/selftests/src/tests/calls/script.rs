//! What a program does, in numbers: each is the seed of one call.

use crate::kind::Kind;
use rand::rngs::SmallRng;
use rand::Rng;
use std::fmt;
use std::time::Duration;

pub const THREADS: usize = 3;
/// Calls of a thread.
const CALLS: std::ops::Range<usize> = 5..80;

#[derive(Clone)]
pub struct Script {
    /// Of the sockets that it has in the beginning.
    pub kind: Kind,
    /// By a user, and not by root.
    pub by_user: bool,
    /// Killed after so long, if it still runs.
    pub dies_after: Option<Duration>,
    pub calls: [Vec<u32>; THREADS],
}

impl Script {
    /// A new one, or one of those that reached something new, changed.
    pub fn next(random: &mut SmallRng, kept: &[Script]) -> Script {
        if kept.is_empty() || random.gen_bool(0.3) {
            return Script::new(random);
        }
        let mut script = kept[random.gen_range(0..kept.len())].clone();
        let other = &kept[random.gen_range(0..kept.len())];
        for _ in 0..random.gen_range(1..6) {
            script.change(random, other);
        }
        script
    }

    fn new(random: &mut SmallRng) -> Script {
        Script {
            kind: Kind::at_random(random),
            by_user: random.gen_bool(0.3),
            dies_after: random
                .gen_bool(0.1)
                .then(|| Duration::from_millis(random.gen_range(50..600))),
            calls: std::array::from_fn(|_| {
                (0..random.gen_range(CALLS)).map(|_| random.gen()).collect()
            }),
        }
    }

    fn change(&mut self, random: &mut SmallRng, other: &Script) {
        let calls = &mut self.calls[random.gen_range(0..THREADS)];
        let at = random.gen_range(0..=calls.len());
        match random.gen_range(0..5) {
            0 => calls.insert(at, random.gen()),
            1 if at < calls.len() => drop(calls.remove(at)),
            2 if at < calls.len() => calls[at] = random.gen(),
            3 if at < calls.len() => {
                let again = calls[at];
                calls.insert(random.gen_range(0..=calls.len()), again);
            }
            _ => {
                let theirs = &other.calls[random.gen_range(0..THREADS)];
                let from = random.gen_range(0..=theirs.len());
                calls.splice(at.., theirs[from..].iter().copied());
            }
        }
        calls.truncate(2 * CALLS.end);
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "over {}, by {}",
            self.kind.name(),
            if self.by_user { "a user" } else { "root" }
        )?;
        if let Some(time) = self.dies_after {
            write!(f, ", killed after {} ms", time.as_millis())?;
        }
        for calls in &self.calls {
            write!(f, "\n ")?;
            for call in calls {
                write!(f, " {call:08x}")?;
            }
        }
        Ok(())
    }
}
